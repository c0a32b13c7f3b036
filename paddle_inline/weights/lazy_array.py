"""Arrays that are still in their file.

Nothing here trusts a file: what it declares is checked against the bytes it has before memory is allocated.
bfloat16, which numpy does not know, is read as uint16, as Paddle itself stores it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..utils.errors import MissingFileError, UserError, counted, short
from ..utils.paths import expand


class WeightsFileError(UserError):
    """A weight file that cannot be read: empty, cut short, damaged, or asking for more than arrays."""


@dataclass(frozen=True)
class Place:
    """Where an array's numbers lie in its file, so that a copy of the file can be given others."""

    offset: int  # of the first, in bytes
    dtype: np.dtype  # with the file's byte order
    strides: tuple[int, ...]  # in bytes


@dataclass(frozen=True)
class LazyArray:
    """An array that a file holds; `read` brings it into memory, and no sooner.

    Attributes:
        place: says where it lies in the file; None of one that is made, or whose bytes are not in the file as they are.
    """

    shape: tuple[int, ...]
    dtype: str  # numpy's name, or "bfloat16"
    load: Callable[[], np.ndarray]
    place: Callable[[], Place] | None = None

    @property
    def nbytes(self) -> int:
        """The bytes it takes in memory."""
        return math.prod(self.shape) * numpy_dtype(self.dtype).itemsize

    def read(self) -> np.ndarray:
        """Return the array, C-contiguous, perhaps read-only.

        Raises:
            WeightsFileError: the file has changed and lacks it.
        """
        return self.load()


def dense_strides(shape: tuple[int, ...], itemsize: int, order: str = "C") -> tuple[int, ...]:
    """Return the strides, in bytes, of an array without gaps, in C's or Fortran's order."""
    strides, step = [], itemsize
    for size in shape if order == "F" else reversed(shape):
        strides.append(step)
        step *= size
    return tuple(strides if order == "F" else reversed(strides))


def numpy_dtype(name: str) -> np.dtype:
    """Return the numpy dtype in which a dtype of this name is held in memory."""
    return np.dtype("uint16" if name == "bfloat16" else name)


def nonfinite(values: np.ndarray) -> int:
    """Return how many of an array's numbers are NaN or infinite; uint16 is read as bfloat16."""
    if values.dtype == np.uint16:
        return int(np.count_nonzero((values & 0x7F80) == 0x7F80))  # all bits of the exponent
    return int(values.size - np.count_nonzero(np.isfinite(values)))


def check_shape(shape: object) -> tuple[int, ...]:
    """Return `shape` as a tuple.

    Raises:
        WeightsFileError: it is not a list or tuple of at most 32 sizes.
    """
    if not isinstance(shape, (list, tuple)) or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise WeightsFileError("it declares an array whose shape is not a list of sizes")
    if len(shape) > 32:
        raise WeightsFileError(f"it declares an array of {len(shape)} dimensions")
    return tuple(shape)


def check_file(path: str | os.PathLike[str]) -> Path:
    """Return the path of a regular file that is not empty.

    Raises:
        MissingFileError: there is no such file.
        WeightsFileError: it is a folder, a device, a pipe or empty, or the system refuses the path.
    """
    path = Path(expand(path))
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte in its name
        raise MissingFileError(f"no file {short(str(path), 400)}") from None
    except OSError as error:  # a name too long, a folder that may not be entered
        raise WeightsFileError(f"{short(str(path), 400)} cannot be read: {error.strerror}") from None
    if not path.is_file():
        raise WeightsFileError(f"{path} is a {'folder' if path.is_dir() else 'device or pipe'}, not a file")
    if path.stat().st_size == 0:
        raise WeightsFileError(f"{path} is empty")
    return path


def read_at(path: str | os.PathLike[str], offset: int, dtype: np.dtype, count: int) -> np.ndarray:
    """Return `count` numbers of a dtype from the byte `offset` of a file, in the machine's byte order.

    Raises:
        WeightsFileError: the file ends before them.
    """
    values = np.fromfile(path, dtype, count, offset=offset)
    if values.size != count:
        raise WeightsFileError(f"{path} ends before {counted(count, 'number')} of {dtype} at byte {offset}")
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def little_endian(values: np.ndarray) -> np.ndarray:
    """Return an array C-contiguous and in the byte order of the files."""
    return np.asarray(values, values.dtype.newbyteorder("<"), order="C")
