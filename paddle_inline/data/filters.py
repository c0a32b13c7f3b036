"""Pictures resized as Pillow does it, bit for bit, by loops that use the processor's vector instructions.

Numba compiles them (`pixel_loops`) and is optional. Without it, with `PADDLE_INLINE_NUMBA=0`, on other processors than
x86-64, where the last bit of a weight may differ, and for what `resize` does not name, Pillow does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from ..utils import compiled
from .shifts import SAME_BITS

PIXELS = {"RGB": ("RGBX", np.uint32), "L": ("L", np.uint8)}  # mode -> order of its bytes, what a pixel is
SLIM = 16  # times as high as wide and more: Pillow may take such a picture's rows before its columns


def loops() -> ModuleType | None:
    """Return the compiled loops, or None: there is no Numba, it is not wanted, or its bits may not be Pillow's."""
    return _imported() if SAME_BITS and compiled.wanted() else None


@cache
def _imported():
    return compiled.load("paddle_inline.data.pixel_loops")


def resize(
    image: Image.Image, size: tuple[int, int], resample: Any, box: Sequence[float] | None = None
) -> Image.Image:
    """Return `image.resize(size, resample, box)`, by the loops where they know how.

    Args:
        image: RGB or grey for the loops.
        size: (width, height).
        resample: a filter of PIL, BICUBIC or BILINEAR for the loops.
        box: of the part that is resized, in pixels (left, top, right, bottom); None: all.
    """
    edges = np.float32((0, 0, *image.size) if box is None else box)  # as Pillow holds them
    left, top, right, bottom = edges.tolist()
    loop = loops()
    if (
        loop is None
        or image.mode not in PIXELS
        or resample not in (Image.BICUBIC, Image.BILINEAR)
        or image.height > SLIM * image.width
        or not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height)
        or min(size) < 1
    ):
        return image.resize(size, resample, box=None if box is None else tuple(box))
    cubic = resample == Image.BICUBIC
    span = (edges[2:] - edges[:2]).tolist()
    columns = loop.weights(left, span[0], image.width, size[0], cubic)
    rows = loop.weights(top, span[1], image.height, size[1], cubic)
    used = [int(end) for starts, counts, _ in (columns, rows) for end in (starts[0], starts[-1] + counts[-1])]
    part = (used[0], used[2], used[1], used[3])
    if part != (0, 0, *image.size):
        image = image.crop(part)
    order, kind = PIXELS[image.mode]
    pixels = np.frombuffer(image.tobytes("raw", order), kind).reshape(image.height, image.width)
    out = np.empty((size[1], size[0]), kind)
    loop.resample(pixels, part[0], part[1], columns, rows, out)
    return Image.frombytes(image.mode, size, out.data, "raw", order)
