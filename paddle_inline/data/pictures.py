"""Image files: which names are theirs, and how one is read.

One reader for training, evaluation and prediction. What it makes of each kind of image (docs/data.md says it too):

- EXIF orientation is applied; of several frames the first is read;
- a palette is looked up, CMYK and the like are converted, grey is repeated for the three channels;
- transparent images are laid on BACKGROUND, white;
- 16-bit grey is scaled from the range of its bits to 0..255; (Pillow reads 16-bit colour by its higher bytes)
- floating-point grey from 0..1, other values are refused, as are whole numbers of 32 bits or with a sign: their range
  is not known;
- TIFF's grey whose zero is white is turned round; PostScript (EPS) is refused: another program would run it.

That is for a model of three channels. One of a single channel gets the same in grey (ITU-R 601's luma, which leaves a
grey picture as it is), one of four the colours with their alpha and no background, opaque where there is none.

(A few lines above 300: the kinds of pixels stand beside the reader that they are told apart for.)
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from ..utils.errors import FileAccessError, MissingFileError, UserError, short
from ..utils.paths import expand
from ..weights.description import MODES
from .reduced import FORMATS as REDUCIBLE
from .reduced import Reading
from .signatures import HEAD, what_is

SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm"),
    *(".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
BACKGROUND = (255, 255, 255)  # of transparent images
_ORIENTATION, _BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 0x0112, 0x0102, 0x0106, 0x0153  # tags of EXIF and TIFF
_WHITE_IS_ZERO, _SIGNED = 0, 2  # values of the last two
# EXIF orientation -> what turns it upright: Pillow's numbers of FLIP_LEFT_RIGHT, ROTATE_180 ..., old and new
_TRANSPOSED: dict[int, Any] = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
_SWAPPED = (5, 6, 7, 8)  # those that exchange width and height
_TRUNCATED = threading.Lock()


class UnreadableImage(OSError):
    """A file that cannot be read as an image."""


def is_picture(name: str) -> bool:
    """Return whether a file's name ends as those of images do, in capitals or not."""
    return name.lower().endswith(SUFFIXES)


def describe(error: BaseException) -> str:
    """Return what an error of a decoder or of the system says, without a file's name, or what it is called."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, LookupError) and len(error.args) == 1:  # str() would quote it
        return str(error.args[0])
    return str(error) or type(error).__name__


def first_bytes(file: str | os.PathLike[str] | BinaryIO) -> bytes:
    """Return the first HEAD bytes of a path or an open binary file, none where they cannot be read."""
    with contextlib.suppress(Exception):  # what reads an archive's member can fail in any way
        if isinstance(file, (str, os.PathLike)):
            with open(file, "rb") as opened:
                return opened.read(HEAD)
        file.seek(0)
        return file.read(HEAD)
    return b""


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


def read_rgb(
    file: str | os.PathLike[str] | BinaryIO, mode: str = "RGB", reading: Reading | None = None
) -> Image.Image:
    """Read an image in RGB, 8 bits a channel, upright, as the head of this module says.

    Args:
        file: a path or an open binary file; of several frames the first is read.
        mode: of MODES, in place of RGB.
        reading: plans what is cut out of it, and may let it be decoded at a fraction of its size.

    Raises:
        UnreadableImage: it cannot be read; the message says why and does not name the file.
    """
    try:
        with Image.open(file) as image:
            if image.format == "EPS":
                raise UnreadableImage(f"it is {what_is(b'%!PS')}")
            return upright_rgb(image, mode, reading)
    except UnidentifiedImageError as error:
        kind = what_is(first_bytes(file))
        raise UnreadableImage(f"it is {kind}" if kind else "it is no image of a known kind") from error
    except Exception as error:  # a damaged image can fail in any way
        raise UnreadableImage(describe(error)) from error


def upright_rgb(image: Image.Image, mode: str = "RGB", reading: Reading | None = None) -> Image.Image:
    """Return an opened image in RGB or another of MODES, 8 bits a channel, upright, as this module's head says."""
    _halve_transparency(image)
    _require_all_rows(image)
    if reading is not None and image.format in REDUCIBLE:
        number = _orientation(image)
        reading.open(image, number in _TRANSPOSED, number in _SWAPPED)
    image.load()
    form, tags = image.format, getattr(image, "tag_v2", {})
    turn = _TRANSPOSED.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    transparent = _is_transparent(image)
    if mode == "RGBA" and transparent and image.mode[0] not in "IF":  # those have to be scaled to 8 bits
        return _with_alpha(image)
    if image.mode != "RGB" or transparent:
        image = _to_rgb(image, form, tags)
    return image if mode == "RGB" else image.convert(mode)


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info


def _with_alpha(image: Image.Image) -> Image.Image:
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def _require_all_rows(image: Image.Image) -> None:
    """Refuse a TIFF whose parts do not cover it, as of a damaged size: Pillow leaves the rest black without a word."""
    parts = [tile[1] for tile in getattr(image, "tile", None) or ()]
    if image.format == "TIFF" and parts:
        right, bottom = max(part[2] for part in parts), max(part[3] for part in parts)
        if right * bottom < image.width * image.height:  # which are the other way round in one that is turned
            raise UnreadableImage(
                f"its parts cover {right} x {bottom} pixels of {image.width} x {image.height}: it is damaged"
            )


def _halve_transparency(image: Image.Image) -> None:
    """Make the transparent colour of a PNG of 16 bits a channel one of 8 bits, as its pixels will be."""
    colour, tiles = image.info.get("transparency"), getattr(image, "tile", None)
    if isinstance(colour, tuple) and tiles and str(tiles[0][3]).startswith("RGB;16"):
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _to_rgb(image: Image.Image, form: str | None, tags: Mapping[int, Any]) -> Image.Image:
    """Return an image of another mode than RGB, or with a transparent colour, in RGB.

    Args:
        image: that is loaded.
        form: of its file.
        tags: of a TIFF file.
    """
    signed = _SIGNED in _values(tags, _SAMPLE_FORMAT)
    if signed or (image.mode == "I" and form not in ("PNG", "PPM")):  # those two have 16 bits
        bits = (*_values(tags, _BITS), 32)[0]
        raise UnreadableImage(
            f"its pixels are {'signed ' if signed else ''}{bits}-bit whole numbers of unknown range: save it with 8 "
            "or 16 bits"
        )
    if image.mode.startswith("I"):
        return _of_16_bits(image, 65535 if image.mode == "I" else _most(tags), tags).convert("RGB")
    if image.mode == "F":
        pixels = np.asarray(image).astype(np.float64)
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise UnreadableImage(
                f"its pixels are floating-point numbers from {pixels.min():g} to {pixels.max():g}, not from 0 to 1"
            )
        pixels *= 255
        if _WHITE_IS_ZERO in _values(tags, _PHOTOMETRIC):
            pixels = 255 - pixels
        return Image.fromarray(np.rint(pixels).astype(np.uint8)).convert("RGB")
    if _is_transparent(image):
        image = _with_alpha(image)
        return Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), image).convert("RGB")
    return image.convert("RGB")


def _of_16_bits(image: Image.Image, most: int, tags: Mapping[int, Any]) -> Image.Image:
    """Return a grey image with pixels of 0..most in 8 bits, its transparent grey as BACKGROUND."""
    table = np.clip(np.arange(1 << 16) * (255 / most), 0, 255)
    if _WHITE_IS_ZERO in _values(tags, _PHOTOMETRIC):
        table = 255 - table
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        table[transparent] = BACKGROUND[0]
    pixels = np.asarray(image)
    if image.mode == "I":
        pixels = np.clip(pixels, 0, 65535)
    return Image.fromarray(np.rint(table).astype(np.uint8)[pixels])


def _most(tags: Mapping[int, Any]) -> int:
    """Return the largest value of a pixel of up to 16 bits; TIFF says how many it has."""
    bits = _values(tags, _BITS)
    return (1 << int(bits[0] if bits else 16)) - 1


def _values(tags: Mapping[int, Any], tag: int) -> tuple:
    value = tags.get(tag, ())
    return value if isinstance(value, tuple) else (value,)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
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
    path = expand(path)
    if not os.path.exists(path):
        raise MissingFileError(f"no image {short(str(path), 400)}")
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
        """Return (PIL image in `mode`, class number); UnreadableImage as `read`."""
        return self.read(index)

    def read(self, index: int, reading: Reading | None = None) -> tuple[Image.Image, int]:
        """Return (PIL image in `mode`, class number).

        Args:
            reading: as of `read_rgb`.

        Raises:
            UnreadableImage: it cannot be read, in whatever way its file or archive fails.
        """
        try:
            file = self.file(index)
        except Exception as error:  # a damaged archive can fail in any way
            raise UnreadableImage(describe(error)) from error
        return read_rgb(file, self.mode, reading), self.items[index][-1]

    def file(self, index: int) -> str | BinaryIO:
        """Return the path of an image's file, or its bytes as a file."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """Return where an image is, as messages name it."""
        raise NotImplementedError
