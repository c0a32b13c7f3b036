"""What a Predictor takes for a picture."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Union

import numpy as np
from PIL import Image

from ..data.pictures import read_image
from ..utils.errors import FileAccessError, MissingFileError, WrongTypeError, short

Picture = Union[str, "os.PathLike[str]", np.ndarray, Image.Image]
# PIL's mode of a model's pictures -> the shapes of arrays that are such; the channels of a grey one may be left out
ARRAYS = {
    "L": ("H x W uint8 (grey)", "H x W x 3 uint8 (RGB)"),
    "RGB": ("H x W x 3 uint8 (RGB)",),
    "RGBA": ("H x W x 4 uint8 (RGB and alpha)", "H x W x 3 uint8 (RGB)"),
}
_CHANNELS = {"L": (1, 3), "RGB": (3,), "RGBA": (4, 3)}


def taken(mode: str = "RGB") -> str:
    """Return what a Predictor takes whose model's pictures are of a mode, for messages."""
    return f"a path, an array of {' or '.join(ARRAYS[mode])}, a PIL image, or several of these in a list"


def pictures(images: Picture | Iterable[Picture], mode: str = "RGB") -> Iterator[Image.Image]:
    """Yield one picture or several as PIL images, each read when it is its turn.

    Args:
        images: what `taken` names.
        mode: in which files are read.

    Raises:
        WrongTypeError: something is none of that.
    """
    if isinstance(images, (str, os.PathLike, Image.Image)) or (
        isinstance(images, np.ndarray) and images.ndim != 4
    ):
        return iter([picture(images, mode)])
    if isinstance(images, (bytes, bytearray, memoryview, Mapping, io.IOBase)) or not isinstance(
        images, Iterable
    ):
        raise WrongTypeError(f"a Predictor takes {taken(mode)}, not {_kind(images)}")
    return map(functools.partial(picture, mode=mode), images)  # which holds none of them


def picture(image: Picture, mode: str = "RGB") -> Image.Image:
    """Return a path's picture, an array's or a PIL image itself as a PIL image.

    Raises:
        WrongTypeError: it is something else.
        MissingFileError, FileAccessError: a path that is not there or holds no picture.
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, (str, os.PathLike)):
        return read_image(_path(os.fspath(image)), mode)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size:
        pixels = image[..., None] if image.ndim == 2 and mode == "L" else image
        if pixels.ndim == 3 and pixels.shape[2] in _CHANNELS[mode]:
            return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    raise WrongTypeError(f"a Predictor takes {taken(mode)}, not {_kind(image)}")


def _path(name: str) -> Path:
    if "://" in name or name.startswith("data:"):
        address = short(name)
        raise MissingFileError(
            f"no image {address}: it is an address; download it, and give its path or a PIL image"
        )
    if not name or os.path.isdir(name):
        raise FileAccessError(f"{name!r} is a folder, not an image: give the paths of its images, in a list")
    return Path(name)


def _kind(value: object) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{type(value).__name__}: of a whole file make a picture, PIL.Image.open(io.BytesIO(DATA))"
    if isinstance(value, io.IOBase):
        return f"an open file ({type(value).__name__}): make a picture of it, PIL.Image.open(FILE)"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__}: give its values()"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} in a list: give one list of pictures"
    if hasattr(value, "numpy"):
        return f"a {type(value).__name__}: give its numpy(), H x W x 3 uint8"
    if isinstance(value, np.ndarray):
        return f"an array of shape {list(value.shape)}, {value.dtype}"
    return f"a {type(value).__name__}"
