"""The safetensors format, read without trusting the file, and written tensor by tensor.

The safetensors package would read it too, but not bfloat16 into numpy and not without mapping the whole file;
and where two tensors have one name it silently keeps one.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..utils.errors import counted, short
from .lazy_array import (
    LazyArray,
    Place,
    WeightsFileError,
    check_file,
    check_shape,
    dense_strides,
    little_endian,
    numpy_dtype,
    read_at,
)

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


def open_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, LazyArray], dict[str, Any]]:
    """Return ({name: LazyArray}, metadata) of a safetensors file.

    Raises:
        MissingFileError: there is no such file.
        WeightsFileError: it is damaged, or holds other dtypes than SAFETENSORS_DTYPES.
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
        arrays: dict[str, LazyArray] = {}
        spans = []
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
        raise WeightsFileError(
            f"{path} has {counted(size, 'byte')} where its header declares {8 + length + end}"
        )
    return arrays, metadata if isinstance(metadata, dict) else {}


def _entry(path: Path, start: int, entry: dict[str, Any]) -> tuple[LazyArray, tuple[int, int]]:
    """Return the array that an entry of the header declares, and where it begins and ends in the data."""
    shape, (begin, stop) = check_shape(entry["shape"]), check_shape(entry["data_offsets"])
    if entry["dtype"] not in SAFETENSORS_DTYPES:
        raise WeightsFileError(f"it holds a tensor of dtype {short(str(entry['dtype']))}")
    name = SAFETENSORS_DTYPES[entry["dtype"]]
    dtype = numpy_dtype(name).newbyteorder("<")
    if math.prod(shape) * dtype.itemsize != stop - begin:
        raise WeightsFileError(
            f"it declares {list(shape)} of {name} but brings {counted(stop - begin, 'byte')}"
        )
    count = math.prod(shape)
    place = Place(start + begin, dtype, dense_strides(shape, dtype.itemsize))
    array = LazyArray(
        shape, name, lambda: read_at(path, place.offset, dtype, count).reshape(shape), lambda: place
    )
    return array, (begin, stop)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dict of the pairs; no key may occur twice."""
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise WeightsFileError(f"it names {short(twice)!r} twice")
    return result


def write_safetensors(
    path: str | os.PathLike[str], arrays: Mapping[str, LazyArray], metadata: Mapping[str, str]
) -> None:
    """Write tensors, one in memory at a time, to a file that is not there yet.

    Args:
        path: of the file.
        arrays: the tensors by name.
        metadata: texts by name, `format` ("pt" of PyTorch's layout, "pd" of Paddle's) among them.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    names = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}
    # widest numbers first, so that every tensor is aligned for readers that map the file
    arrays = dict(sorted(arrays.items(), key=lambda item: -numpy_dtype(item[1].dtype).itemsize))
    for name, array in arrays.items():
        entries[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "xb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for array in arrays.values():
            file.write(little_endian(array.read()))
