"""Pictures decoded at a fraction of their size, where what is cut out of them is made smaller still.

JPEG is stored in blocks of 8 x 8 pixels, of which a decoder can make 4 x 4, 2 x 2 or 1 at a fraction of the work. What
comes out is not what decoding in full and resizing give: docs/data.md says by how much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from PIL import Image

from .filters import resize

FORMATS = ("JPEG", "MPO")  # that can be read so; MPO is JPEG of several frames
DENOMINATORS = (8, 4, 2)
MARGIN = (
    1.5  # times the result's sides are the least that a cut has when it is reduced: docs/data.md says why
)


class Cut(NamedTuple):
    """A part of a picture, and the size that it gets."""

    box: tuple[int, int, int, int]  # left, top, right, bottom, in pixels of the whole picture
    size: tuple[int, int]  # of the result: width, height
    resample: Any  # a filter of PIL

    def denominator(self) -> int:
        """Return by how much the picture can be reduced with the part still MARGIN times as large as the result."""
        left, top, right, bottom = self.box
        for number in DENOMINATORS:
            least = MARGIN * number
            if right - left >= least * self.size[0] and bottom - top >= least * self.size[1]:
                return number
        return 1

    def of(self, image: Image.Image, denominator: int = 1) -> Image.Image:
        """Return the result from a picture that was decoded at a fraction of its size, or in full."""
        if denominator == 1:
            return resize(image.crop(self.box), self.size, self.resample)
        left, top, right, bottom = (side / denominator for side in self.box)
        return resize(image, self.size, self.resample, (left, top, right, bottom))


class Reading:
    """One picture on its way from its file, cut before it is decoded.

    Args:
        plan: (width, height) of an upright picture -> its cut, or None: it is decoded in full and not cut here.

    Attributes:
        cut: of the picture, once its size is known.
        denominator: at which it was decoded; 1: in full.
    """

    def __init__(self, plan: Callable[[int, int], Cut | None]) -> None:
        self.plan, self.denominator = plan, 1
        self.cut: Cut | None = None

    def open(self, image: Image.Image, turned: bool, swapped: bool) -> None:
        """Plan the cut of an opened picture and let it be decoded as small as that allows.

        Args:
            image: of one of FORMATS, not yet loaded.
            turned: it will be turned upright: then both sides have to be multiples of the denominator, as an edge's
                block that is not whole would move all others.
            swapped: with its sides exchanged.
        """
        width, height = image.size
        self.cut = self.plan(height, width) if swapped else self.plan(width, height)
        number = 1 if self.cut is None else self.cut.denominator()
        while turned and number > 1 and (width % number or height % number):
            number //= 2
        if number > 1 and image.draft(None, (width // number, height // number)):
            self.denominator = number


def read_from(source: Any, index: int, reading: Reading) -> tuple[Image.Image, int]:
    """Return (PIL image, class number) of a source, cut as `reading` plans it where the source can."""
    return source.read(index, reading) if hasattr(source, "read") else source[index]
