"""What pickled weight files of either framework are made of: numpy's arrays and numbers, dictionaries, bytes.

`COMMON` is the table that `safe_pickle.load` takes; none of it calls what a file names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from ..utils.errors import counted, short
from .lazy_array import LazyArray, Place, WeightsFileError, check_shape, dense_strides, read_at
from .safe_pickle import Blob, Makers, Name, put_entries


class OrderedDict(dict):
    """collections.OrderedDict, with the attributes that a pickle gave it."""

    attributes: Any = None

    def build(self, state: Any) -> None:
        """Keep the attributes."""
        self.attributes = state


class _Dtype:
    """A numpy dtype, its byte order set by the pickle afterwards."""

    def __init__(self, name: Any, *_: Any) -> None:
        if isinstance(name, Name):  # a class of numpy's, as that of records
            name = "V1"
        if not (isinstance(name, str) and re.fullmatch(r"[<>=|]?[biufcUOSMmV]\d{0,5}", name)):
            raise WeightsFileError("it holds an array of an unknown dtype")
        self.value = np.dtype(name)

    @property
    def numbers(self) -> np.dtype:
        """The dtype, if it is one of numbers."""
        if self.value.kind not in "biufc":
            raise WeightsFileError(f"it holds an array of {self.value}, not of numbers")
        return self.value

    def build(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class Array:
    """A pickled numpy array: `stored`, once its shape and bytes are there."""

    stored: LazyArray | None = None

    def __repr__(self) -> str:
        return "<array>"

    def __init__(self, *_: Any) -> None:
        pass

    def build(self, state: Any) -> None:
        """Check and keep numpy's state: (version, shape, dtype, whether in Fortran's order, bytes)."""
        _, shape, dtype, fortran_order, data = state
        if isinstance(data, str):  # Python 2 has no other byte strings
            data = data.encode("latin1")
        if not isinstance(dtype, _Dtype):
            raise WeightsFileError("it holds an array of an unknown dtype")
        shape, dtype, order = check_shape(shape), dtype.numbers, "F" if fortran_order else "C"
        count = math.prod(shape)
        if count * dtype.itemsize != len(data):
            raise WeightsFileError(
                f"it declares an array {shape} of {dtype} but brings {counted(len(data), 'byte')}"
            )
        name = "bfloat16" if dtype.name == "uint16" else dtype.name  # as Paddle stores it
        offset, place = getattr(data, "offset", None), None
        if offset is not None:
            place = partial(Place, offset, dtype, dense_strides(shape, dtype.itemsize, order))
        self.stored = LazyArray(shape, name, partial(_read, data, dtype, shape, order), place)


def _read(data: bytes | Blob, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    if isinstance(data, Blob):
        values = read_at(data.path, data.offset, dtype, math.prod(shape))
    else:
        values = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
    return np.asarray(values.reshape(shape, order=order), order="C")


class AnyArray(Array):
    """The same beside weights, where an array may hold text or dates: nothing is stored of those."""

    def build(self, state: Any) -> None:
        """Keep an array of numbers, and the place of any other."""
        if not (isinstance(state[2], _Dtype) and state[2].value.kind in "UOSMmV"):
            super().build(state)


def _scalar(dtype: _Dtype, data: Any) -> Any:
    if dtype.value.kind == "U":
        return data.decode("utf-32-be" if dtype.value.byteorder == ">" else "utf-32-le").rstrip("\0")
    if dtype.value.kind in "OSMmV":
        return data
    return np.frombuffer(data, dtype.value)[0]


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """Make an array as protocol 5 writes it."""
    made = AnyArray()
    made.build((1, shape, dtype, order == "F", data))
    return made


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise WeightsFileError(f"it asks for the encoding {short(repr(encoding))}")
    return text.encode("latin1")  # how pickle protocol 2 writes bytes


def _ordered(pairs: Iterable[Any] = ()) -> OrderedDict:
    result = OrderedDict()
    put_entries(
        result, [key for key, _ in pairs], [value for _, value in pairs]
    )  # Python 2 gives the pairs here
    return result


# What weight files of either framework are made of, besides the framework's own.
COMMON: Makers = {
    "numpy.ndarray": Array,  # only named as an argument of _reconstruct
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": Array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _encode,
    "builtins.bytes": lambda: b"",  # protocol 2's way of writing no bytes
    "collections.OrderedDict": _ordered,
}
