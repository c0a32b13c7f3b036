"""Image files: which names are theirs, and how one is read.

One reader for training, evaluation and prediction. What it makes of each kind of image (docs/data.md says it too):

- EXIF orientation is applied; of several frames the first is read;
- a palette is looked up, CMYK and the like are converted, grey is repeated for the three channels;
- transparent images are laid on BACKGROUND, white;
- 16-bit grey is scaled from the range of its bits to 0..255; (Pillow reads 16-bit colour by its higher bytes)
- floating-point grey from 0..1, other values are refused, as are 32-bit whole numbers: their range is not known.

That is for a model of three channels. One of a single channel gets the same in grey (ITU-R 601's luma, which leaves a
grey picture as it is), one of four the colours with their alpha and no background, opaque where there is none.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps

from ..utils.errors import FileAccessError, MissingFileError, UserError

SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm"),
    *(".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
BACKGROUND = (255, 255, 255)  # of transparent images
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels of a model -> PIL's mode of its pictures
_ORIENTATION, _BITS = 0x0112, 0x0102  # tags of EXIF and TIFF
_TRUNCATED = threading.Lock()


class UnreadableImage(OSError):
    """A file that cannot be read as an image."""


def is_picture(name: str) -> bool:
    """Return whether a file's name ends as those of images do, in capitals or not."""
    return name.lower().endswith(SUFFIXES)


def describe(error: BaseException) -> str:
    """Return what an error of a decoder says, or what it is called."""
    return str(error) or type(error).__name__


def picture_mode(channels: int) -> str:
    """Return the mode in which pictures are read for a model of so many channels.

    Raises:
        UserError: pictures have no such number of channels.
    """
    if channels not in MODES:
        raise UserError(
            f"in_chans is {channels}; pictures have 1 channel (grey), 3 (RGB) or 4 (RGB and alpha): models of other "
            "channels are built, converted and verified, and run on arrays of yours by calling them"
        )
    return MODES[channels]


def read_rgb(file: str | os.PathLike[str] | BinaryIO, mode: str = "RGB") -> Image.Image:
    """Read an image in RGB, 8 bits a channel, upright, as the head of this module says.

    Args:
        file: a path or an open binary file; of several frames the first is read.
        mode: of MODES, in place of RGB.

    Raises:
        UnreadableImage: it cannot be read; the message says why and does not name the file.
    """
    try:
        with Image.open(file) as image:
            return upright_rgb(image, mode)
    except Exception as error:  # a damaged image can fail in any way
        raise UnreadableImage(describe(error)) from error


def upright_rgb(image: Image.Image, mode: str = "RGB") -> Image.Image:
    """Return an opened image in RGB or another of MODES, 8 bits a channel, upright, as this module's head says."""
    image.load()
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if (
        mode == "RGBA" and _is_transparent(image) and image.mode[0] not in "IF"
    ):  # those are scaled to 8 bits first
        return _with_alpha(image)
    if image.mode != "RGB" or _is_transparent(image):
        image = _to_rgb(image)
    return image if mode == "RGB" else image.convert(mode)


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info


def _with_alpha(image: Image.Image) -> Image.Image:
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = _scaled(np.asarray(image).astype(np.float64), _most(image))
    elif image.mode == "I":
        if image.format not in ("PNG", "PPM"):  # those two have 16 bits
            raise UnreadableImage(
                "its pixels are 32-bit whole numbers of unknown range: save it with 8 or 16 bits"
            )
        image = _scaled(np.asarray(image).astype(np.float64), 65535)
    elif image.mode == "F":
        pixels = np.asarray(image).astype(np.float64)
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise UnreadableImage(
                f"its pixels are floating-point numbers from {pixels.min():g} to {pixels.max():g}, not from 0 to 1"
            )
        image = _scaled(pixels, 1)
    elif _is_transparent(image):
        image = _with_alpha(image)
        return Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), image).convert("RGB")
    return image.convert("RGB")


def _scaled(pixels: np.ndarray, most: float) -> Image.Image:
    """Return pixels of 0..most as a grey image of 8 bits."""
    return Image.fromarray(np.rint(np.clip(pixels * (255 / most), 0, 255)).astype(np.uint8))


def _most(image: Image.Image) -> int:
    """Return the largest value of a pixel of up to 16 bits; TIFF says how many it has."""
    bits = getattr(image, "tag_v2", {}).get(_BITS, (16,))
    return (1 << int(bits[0] if isinstance(bits, tuple) else bits)) - 1


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 where there is none or it cannot be read."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data leaves the image as it is
        return 1


@contextlib.contextmanager
def truncated_allowed() -> Iterator[None]:
    """Read of a file that ends too early what is there, the rest grey or black, while this lasts."""
    with _TRUNCATED:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def read_image(path: str | Path, mode: str = "RGB") -> Image.Image:
    """Read an image file as training reads it: in RGB or another of MODES, upright.

    Raises:
        MissingFileError: there is no such file.
        FileAccessError: it cannot be read as an image. Both name it.
    """
    if not Path(path).exists():
        raise MissingFileError(f"no image {path}")
    try:
        return read_rgb(path, mode)
    except UnreadableImage as error:
        raise FileAccessError(f"{path} cannot be read as an image: {error}") from None


class PictureSource:
    """Images in files, decoded when they are asked for. A subclass gives `items`, `classes` and the methods below.

    Attributes:
        items: a tuple for each image, its class number last.
        classes: the names of the classes.
        named: whether those are names; without any they are the numbers.
        notes: what is to be said about it once, such as what was left out.
        mode: of MODES, in which they are read.
    """

    items: list[tuple]
    classes: tuple[str, ...]
    named: bool = True
    notes: Sequence[str] = ()
    mode: str = "RGB"

    @property
    def labels(self) -> list[int]:
        """The class numbers of all images."""
        return [item[-1] for item in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return (PIL image in `mode`, class number).

        Raises:
            UnreadableImage: it cannot be read, in whatever way its file or archive fails.
        """
        try:
            file = self.file(index)
        except Exception as error:  # a damaged archive can fail in any way
            raise UnreadableImage(describe(error)) from error
        return read_rgb(file, self.mode), self.items[index][-1]

    def file(self, index: int) -> str | BinaryIO:
        """Return the path of an image's file, or its bytes as a file."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """Return where an image is, as messages name it."""
        raise NotImplementedError
