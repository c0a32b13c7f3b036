"""Image files: which names are theirs, and how one is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps

from ..utils.errors import FileAccessError, MissingFileError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_ORIENTATION = 0x0112  # the EXIF tag


class UnreadableImage(OSError):
    """A file that cannot be read as an image."""


def is_picture(name: str) -> bool:
    """Return whether a file's name ends as those of images do, in capitals or not."""
    return name.lower().endswith(SUFFIXES)


def read_rgb(file: str | os.PathLike[str] | BinaryIO) -> Image.Image:
    """Read an image in RGB, upright: turned and mirrored as its EXIF orientation says.

    Args:
        file: a path or an open binary file; of several frames the first is read.

    Raises:
        UnreadableImage: it cannot be read; the message says why and does not name the file.
    """
    try:
        with Image.open(file) as image:
            image.load()
            if _orientation(image) != 1:
                image = ImageOps.exif_transpose(image)
            return image if image.mode == "RGB" else image.convert("RGB")  # (it would copy one in RGB too)
    except Exception as error:  # a damaged image can fail in any way
        raise UnreadableImage(str(error) or type(error).__name__) from error


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 where there is none or it cannot be read."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data leaves the image as it is
        return 1


def read_image(path: str | Path) -> Image.Image:
    """Read an image file as training reads it: in RGB, upright.

    Raises:
        MissingFileError: there is no such file.
        FileAccessError: it cannot be read as an image. Both name it.
    """
    if not Path(path).exists():
        raise MissingFileError(f"no image {path}")
    try:
        return read_rgb(path)
    except UnreadableImage as error:
        raise FileAccessError(f"{path} cannot be read as an image: {error}") from None


class PictureSource:
    """Images in files, decoded when they are asked for. A subclass gives `items`, `classes` and the methods below.

    Attributes:
        items: a tuple for each image, its class number last.
        classes: the names of the classes.
    """

    items: list[tuple]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return (PIL image in RGB, class number)."""
        return read_rgb(self.file(index)), self.items[index][-1]

    def file(self, index: int) -> str | BinaryIO:
        """Return the path of an image's file, or its bytes as a file."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """Return where an image is, as messages name it."""
        raise NotImplementedError
