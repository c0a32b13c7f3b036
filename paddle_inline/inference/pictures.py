"""What a Predictor takes for a picture."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Union

import numpy as np
from PIL import Image

from ..data.pictures import read_image
from ..utils.errors import WrongTypeError

Picture = Union[str, "os.PathLike[str]", np.ndarray, Image.Image]
TAKES = "a path, an array of H x W x 3 uint8 (RGB), a PIL image, or several of these in a list"


def pictures(images: Picture | Iterable[Picture]) -> Iterator[Image.Image]:
    """Yield one picture or several as PIL images, each read when it is its turn.

    Raises:
        WrongTypeError: something is none of TAKES.
    """
    if isinstance(images, (str, os.PathLike, Image.Image)) or (
        isinstance(images, np.ndarray) and images.ndim != 4
    ):
        return iter([picture(images)])
    if isinstance(images, (bytes, bytearray, Mapping)) or not isinstance(images, Iterable):
        raise WrongTypeError(f"a Predictor takes {TAKES}, not {_kind(images)}")
    return map(picture, images)  # which holds none of them


def picture(image: Picture) -> Image.Image:
    """Return a path's picture, an array's or a PIL image itself as a PIL image.

    Raises:
        WrongTypeError: it is something else.
        MissingFileError, FileAccessError: a path that is not there or holds no picture.
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, (str, os.PathLike)):
        return read_image(Path(image))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3:
        height, width, channels = image.shape
        if channels == 3 and height * width:
            return Image.fromarray(np.ascontiguousarray(image))
    raise WrongTypeError(f"a Predictor takes {TAKES}, not {_kind(image)}")


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {list(value.shape)}, {value.dtype}"
    return f"a {type(value).__name__}"
