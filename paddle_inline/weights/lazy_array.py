"""Arrays that are still in their file, and the safetensors format.

Nothing here believes a file: what it declares is held against the bytes it has before memory is claimed.
bfloat16, which numpy does not know, is read as uint16, as Paddle itself stores it.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import MissingFileError, UserError, short


class WeightsFileError(UserError):
    """A weight file that cannot be read: empty, cut short, damaged, or asking for more than arrays."""


@dataclass(frozen=True)
class LazyArray:
    """An array that a file holds; `read` brings it into memory, and no sooner."""

    shape: tuple[int, ...]
    dtype: str  # numpy's name, or "bfloat16"
    load: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """The bytes it takes in memory."""
        return math.prod(self.shape) * numpy_dtype(self.dtype).itemsize

    def read(self) -> np.ndarray:
        """Read the array, C-contiguous, perhaps read-only; WeightsFileError if the file lacks it after all."""
        return self.load()


def numpy_dtype(name: str) -> np.dtype:
    """Return the numpy dtype in which a dtype of this name is held in memory."""
    return np.dtype("uint16" if name == "bfloat16" else name)


def nonfinite(values: np.ndarray) -> int:
    """Count how many of an array's numbers are NaN or infinite; uint16 is taken for bfloat16."""
    if values.dtype == np.uint16:
        return int(np.count_nonzero((values & 0x7F80) == 0x7F80))  # all bits of the exponent
    return int(values.size - np.count_nonzero(np.isfinite(values)))


def check_shape(shape: Any) -> tuple[int, ...]:
    """Check that what a file declares as a shape is one, and return it as a tuple.

    Raises:
        WeightsFileError: it is not.
    """
    if not isinstance(shape, (list, tuple)) or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise WeightsFileError("it declares an array whose shape is not a list of sizes")
    if len(shape) > 32:
        raise WeightsFileError(f"it declares an array of {len(shape)} dimensions")
    return tuple(shape)


def check_file(path: str | os.PathLike[str]) -> Path:
    """Check that a path is of a regular file with something in it, and return it.

    Raises:
        MissingFileError: there is no such file.
        WeightsFileError: it is a folder, a device, a pipe, an empty file, or a path that the system refuses.
    """
    path = Path(path)
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
    """Read `count` numbers of a numpy dtype from `offset` in a file, in the machine's byte order.

    Raises:
        WeightsFileError: the file ends before.
    """
    values = np.fromfile(path, dtype, count, offset=offset)
    if values.size != count:
        raise WeightsFileError(f"{path} ends before the {count} numbers of {dtype} at byte {offset}")
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
_LONGEST_HEADER = 100_000_000  # the format's own limit


def open_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, LazyArray], dict[str, str]]:
    """Open a safetensors file; return ({name: LazyArray}, metadata).

    The safetensors package would read it too, but not bfloat16 into numpy, not without mapping the whole
    file, and of two tensors of one name it silently keeps one.

    Raises:
        MissingFileError: there is no such file.
        WeightsFileError: it is anything but a sound file of the dtypes above.
    """
    path = check_file(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0] if size >= 8 else size
        if length > min(size - 8, _LONGEST_HEADER):
            raise WeightsFileError(f"{path} is not a safetensors file: its header does not fit into it")
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_unique)
        metadata = header.pop("__metadata__", {})
        arrays, spans = {}, []
        for name, entry in header.items():
            arrays[name], span = _entry(path, 8 + length, entry)
            spans.append(span)
    except WeightsFileError as error:
        raise WeightsFileError(f"{path} is not read: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WeightsFileError(f"{path} has a damaged header: {type(error).__name__}") from None
    end = 0
    for begin, stop in sorted(spans):
        if begin != end:
            raise WeightsFileError(f"{path} is damaged: its tensors overlap or leave gaps at byte {end}")
        end = stop
    if 8 + length + end != size:
        raise WeightsFileError(f"{path} has {size} bytes where its header declares {8 + length + end}")
    return arrays, metadata if isinstance(metadata, dict) else {}


def _entry(path: Path, start: int, entry: Any) -> tuple[LazyArray, tuple[int, int]]:
    shape, (begin, stop) = check_shape(entry["shape"]), check_shape(entry["data_offsets"])
    if entry["dtype"] not in SAFETENSORS_DTYPES:
        raise WeightsFileError(f"it holds a tensor of dtype {short(str(entry['dtype']))}")
    name = SAFETENSORS_DTYPES[entry["dtype"]]
    dtype = numpy_dtype(name).newbyteorder("<")
    if math.prod(shape) * dtype.itemsize != stop - begin:
        raise WeightsFileError(f"it declares {list(shape)} of {name} but brings {stop - begin} bytes")
    count = math.prod(shape)
    return LazyArray(shape, name, lambda: read_at(path, start + begin, dtype, count).reshape(shape)), (
        begin,
        stop,
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dict of the pairs; no key may come twice."""
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise WeightsFileError(f"it names {short(twice)!r} twice")
    return result
