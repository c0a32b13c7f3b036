"""The pickle in a torch file: plain data, and tensors over storages that the file holds elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from paddle_inline.utils.errors import counted, short
from paddle_inline.weights.inert_data import inert_data
from paddle_inline.weights.lazy_array import LazyArray, Place, WeightsFileError, check_shape, numpy_dtype
from paddle_inline.weights.pickled_arrays import COMMON, AnyArray, Array
from paddle_inline.weights.safe_pickle import Inert, Name, load

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
# Bytes of a number in storages that are not read; the numbers of others may lie behind them.
_OTHER_STORAGES = {
    **{"QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1, "QUInt2x4Storage": 1},
    **{"ComplexFloatStorage": 8, "ComplexDoubleStorage": 16},
}
_UNTYPED = "UntypedStorage"
_DTENSOR = (
    "it is a DTensor, of which this file has one rank's part; gather it before saving, with tensor.full_tensor() or "
    "get_model_state_dict(..., options=StateDictOptions(full_state_dict=True))"
)
# Functions of torch that make other tensors than those of plain numbers.
_UNREADABLE = {
    "torch._utils._rebuild_meta_tensor_no_storage": "it is on the meta device: its numbers are not in the file",
    "torch._utils._rebuild_sparse_tensor": "it is sparse; save tensor.to_dense()",
    "torch._utils._rebuild_sparse_csr_tensor": "it is sparse; save tensor.to_dense()",
    "torch._utils._rebuild_qtensor": "it is quantized; save the model before it was quantized",
    "torch._utils._rebuild_nested_tensor": "it is a nested tensor",
    "torch._utils._rebuild_wrapper_subclass": "it is a wrapped tensor, whose numbers are elsewhere",
}


class Tensor:
    """A tensor of a torch file: `stored` says where, and in which shape and dtype."""

    def __init__(self, stored: LazyArray) -> None:
        self.stored = stored

    def build(self, state: Any) -> None:
        """Ignore attributes that somebody set on the tensor; weights need none."""


class Unreadable:
    """A tensor whose numbers are not read, and why; only who needs it is stopped."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind, self.reason = kind, reason

    def build(self, state: Any) -> None:
        """Ignore its state."""

    def __repr__(self) -> str:
        return f"<{self.kind.rsplit('.', 1)[-1]}>"


@dataclass(frozen=True)
class Storage:
    """A run of bytes holding numbers of one dtype (None: untyped); `read(begin, end)` gives some of them, `offset()`
    says where in the file they begin."""

    dtype: str | None
    size: int
    byte_order: str
    read: Callable[[int, int], np.ndarray]
    offset: Callable[[], int]


def itemsize(dtype: str | None) -> int:
    """Return the bytes of a number of a dtype; None: a byte."""
    return 1 if dtype is None else numpy_dtype(dtype).itemsize


def load_torch_pickle(stream: BinaryIO, storage: Callable[..., Storage], skip_calls: bool) -> Any:
    """Read the pickle of a torch file; `storage(dtype, key, count, view)` makes what an id stands for."""

    def persistent(identity: Any) -> Any:
        if isinstance(identity, tuple) and identity[:1] == ("module",) and len(identity) > 1:
            return identity[1]  # a class, with its source text, which nobody reads
        tag, kind, key, _, count, *view = identity if isinstance(identity, tuple) else (None,) * 5
        if tag != "storage" or not isinstance(kind, Name) or not isinstance(key, (str, int)):
            raise WeightsFileError("it refers to something that is not a storage")
        check_shape((count,))
        kind = kind.path.rsplit(".", 1)[1]
        if kind in _OTHER_STORAGES:
            storage(f"V{_OTHER_STORAGES[kind]}", key, count, view[0] if view else None)
        if kind not in _STORAGES and kind != _UNTYPED:
            return Unreadable(kind, f"it is a tensor of {short(kind)}, not of plain numbers")
        return storage(_STORAGES.get(kind), key, count, view[0] if view else None)

    def inert(path: str, arguments: tuple[Any, ...], by_call: bool) -> Inert | Unreadable:
        if path in _UNREADABLE:
            return Unreadable(path, _UNREADABLE[path])
        found = inert_data(path, arguments, by_call)
        if found is None and not skip_calls:
            raise WeightsFileError(
                f"to unpickle it is to call {short(path)}, which weights do not need. Nothing was run. "
                "If you know why it is there, skip such calls (--skip-calls) and its tensors are read"
            )
        return found or Inert(path, arguments)

    return load(stream, _KNOWN, persistent, inert)


def _tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    grad: Any = False,
    hooks: Any = None,
    attributes: Any = None,
    dtype: str | None = None,
) -> Tensor | Unreadable:
    """Make a tensor over a storage from the arguments of torch._utils._rebuild_tensor_v2."""
    if isinstance(storage, Unreadable):
        return storage
    if not isinstance(storage, Storage):
        raise WeightsFileError("it holds a tensor without a storage")
    if attributes:
        raise WeightsFileError("it holds a tensor with attributes (conjugated or negated lazily)")
    shape, strides, (offset,) = check_shape(shape), check_shape(strides), check_shape((offset,))
    dtype = dtype or storage.dtype
    if dtype is None or len(strides) != len(shape):
        raise WeightsFileError("it holds a tensor without a dtype or a layout")
    available, count = storage.size // itemsize(dtype), math.prod(shape)
    if count > available and 0 in strides and 0 < _span(shape, strides) + offset <= available:
        return Unreadable("expanded tensor", "it is an expanded view (a stride is 0); save its .contiguous()")
    if count and (count > available or offset + _span(shape, strides) > available):
        raise WeightsFileError(
            f"it declares a tensor {list(shape)} over a storage of {counted(available, 'number')}"
        )
    layout = storage, dtype, offset, shape, strides
    return Tensor(LazyArray(shape, dtype, partial(_read, *layout), partial(_place, *layout)))


def _tensor_of_dtype(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    grad: Any,
    hooks: Any,
    dtype: Any,
    attributes: Any = None,
) -> Tensor | Unreadable:
    """Do the same for torch._utils._rebuild_tensor_v3, whose storage is untyped."""
    name = dtype.path.rsplit(".", 1)[1] if isinstance(dtype, Name) else "unknown"
    if name not in _STORAGES.values():
        return Unreadable(name, f"it is a tensor of dtype {short(name)}, which these models never have")
    return _tensor(storage, offset, shape, strides, attributes=attributes, dtype=name)


def _of_type(make: Name, kind: Any, arguments: Any, state: Any) -> Tensor | Unreadable:
    """Do the same for a subclass of torch.Tensor, which counts as a plain tensor."""
    if make.path not in _KNOWN:
        path = kind.path if isinstance(kind, Name) else make.path
        return Unreadable(path, _DTENSOR if path.endswith("DTensor") else f"it is a {short(path)}")
    return _KNOWN[make.path](*arguments)


def _of_device(data: Any, dtype: Any, *_: Any) -> Tensor | Unreadable:
    """Make a tensor of an accelerator whose numbers are in the file, as an array or as a tensor of the CPU."""
    if isinstance(data, (Tensor, Unreadable)):
        return data
    if not isinstance(data, Array) or data.stored is None:
        raise WeightsFileError("it holds a tensor of a device without its numbers")
    stored, name = data.stored, dtype.path.rsplit(".", 1)[-1] if isinstance(dtype, Name) else ""
    if name != stored.dtype and (name, stored.dtype) != ("bfloat16", "float32"):  # exact in float32
        return Unreadable(name, f"it is a tensor of {short(name)} kept as {stored.dtype}")
    return Tensor(stored)


def _span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    return 1 + sum((size - 1) * step for size, step in zip(shape, strides))


def _read(
    storage: Storage, dtype: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> np.ndarray:
    number = numpy_dtype(dtype).newbyteorder(storage.byte_order)
    if not math.prod(shape):
        return np.empty(shape, numpy_dtype(dtype))
    begin = offset * number.itemsize
    values = storage.read(begin, begin + _span(shape, strides) * number.itemsize).view(number)
    steps = [step * number.itemsize for step in strides]
    values = np.lib.stride_tricks.as_strided(values, shape, steps, writeable=False)
    return np.asarray(values, numpy_dtype(dtype), order="C")


def _place(
    storage: Storage, dtype: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> Place:
    number = numpy_dtype(dtype).newbyteorder(storage.byte_order)
    begin = storage.offset() + offset * number.itemsize
    return Place(begin, number, tuple(step * number.itemsize for step in strides))


# What calling these names makes.
_KNOWN: dict[str, Callable[..., Any]] = {
    **COMMON,
    "numpy.ndarray": AnyArray,
    "numpy.core.multiarray._reconstruct": AnyArray,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch._utils._rebuild_device_tensor_from_numpy": _of_device,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _of_device,
    "torch._utils._rebuild_xla_tensor": _of_device,
    "torch.Size": tuple,
}
