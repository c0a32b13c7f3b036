"""torch's files, the zip archives of today and the streams before them, read without torch and without
running what they name.

Tensors stay in the file until they are wanted. Every size that the file declares is held against the bytes
that it has; the archive is never unpacked, so a member's name is never a path.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from paddle_inline.utils.errors import short
from paddle_inline.weights import safe_pickle as pickles
from paddle_inline.weights.lazy_array import (
    LazyArray,
    WeightsFileError,
    check_file,
    check_shape,
    numpy_dtype,
    read_at,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# All that zipfile and struct raise on a file whose bytes are not what they were.
_DAMAGE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, struct.error, EOFError, ValueError, OSError)
_LARGEST_DIRECTORY = 1 << 24  # of a zip file, in bytes: some 200,000 members

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
_UNTYPED = "UntypedStorage"


class Tensor:
    """A tensor of a torch file: `stored` says where, and in which shape and dtype."""

    def __init__(self, stored):
        self.stored = stored

    def build(self, state):
        """Attributes that somebody set on the tensor; weights need none."""


def open_torch(path, skip_calls=False):
    """The object that `torch.save` wrote, with a Tensor for every tensor and a pickles.Inert for every object
    of an unknown class.

    Args:
        skip_calls: also read a file that would call functions or classes, other than those that tensors and
            plain data are made of, on being unpickled; the calls are left undone either way.
    Raises:
        FileNotFoundError, WeightsFileError: no such file; a file that is damaged or asks for more than it
            should.
    """
    path = check_file(path)
    try:
        with open(path, "rb") as file:
            if file.read(4) == b"PK\3\4":
                return _Archive(path, file).contents(skip_calls)
            file.seek(0)
            return _Stream(path, file).contents(skip_calls)
    except WeightsFileError as error:
        raise WeightsFileError(f"{path} is not read: {error}") from None
    except _DAMAGE as error:
        raise WeightsFileError(f"{path} is damaged: {error}") from None


class _Archive:
    """A zip archive of one pickle, `data.pkl`, and one member per storage."""

    def __init__(self, path, file):
        _check_directory(file)
        self.path = path
        self.archive = zipfile.ZipFile(path)
        self.members = {}
        for member in self.archive.infolist():
            name = member.filename
            if name in self.members:
                raise WeightsFileError(f"its archive has two members named {short(name)!r}")
            if name.startswith("/") or "\\" in name or ".." in name.split("/"):
                raise WeightsFileError(f"its archive has a member named {short(name)!r}, a path out of it")
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise WeightsFileError(
                    f"its member {short(name)!r} is compressed, as torch never writes them"
                )
            self.members[name] = member
        size = path.stat().st_size
        if sum(member.file_size for member in self.members.values()) > size:
            raise WeightsFileError(f"its members declare more bytes than the {size} of the file")
        if any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in self.members):
            raise WeightsFileError("it is a TorchScript program, not a checkpoint; save the state_dict()")
        roots = [name[:-8] for name in self.members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise WeightsFileError("it is a zip file, but not one that torch.save wrote (no data.pkl)")
        self.root = roots[0]
        self.cache = (None, None)

    def contents(self, skip_calls):
        big = self.member("byteorder") is not None and self.archive.read(self.member("byteorder")) == b"big"
        self.byte_order = ">" if big else "<"
        stream = io.BytesIO(self.archive.read(self.member("data.pkl")))
        return _load(stream, self.storage, skip_calls)

    def member(self, name):
        return self.members.get(self.root + name)

    def storage(self, kind, key, count, view):
        member = self.member(f"data/{key}")
        if member is None:
            raise WeightsFileError(f"its archive lacks the storage {short(key)!r}")
        if view is not None or count * _itemsize(kind) != member.file_size:
            raise WeightsFileError(
                f"it declares {count} numbers of {kind or 'a byte'} where its archive has "
                f"{member.file_size} bytes"
            )
        return _Storage(kind, member.file_size, self.byte_order, partial(self.read, member))

    def read(self, member, begin, end):
        """Some bytes of a storage, all of it held against its checksum; kept for tensors that share it."""
        if self.cache[0] is not member:
            self.cache = (None, None)
            try:
                self.cache = (member, np.frombuffer(self.archive.read(member), np.uint8))
            except _DAMAGE as error:
                raise WeightsFileError(f"{self.path} is damaged: {error}") from None
        return self.cache[1][begin:end]


class _Stream:
    """The format before zip: pickles of a magic number, the writer's machine, the object and the storages'
    keys, then each storage's length and bytes."""

    def __init__(self, path, file):
        self.path, self.file = path, file
        self.roots = {}

    def contents(self, skip_calls):
        if pickles.load(self.file, {}) != LEGACY_MAGIC:
            raise WeightsFileError("it is a pickle, but not one that torch.save wrote")
        for _ in range(2):  # the format's version and the writer's machine
            pickles.load(self.file, {})
        contents = _load(self.file, self.storage, skip_calls)
        keys = pickles.load(self.file, {})
        if not isinstance(keys, list) or {str(key) for key in keys} != set(self.roots):
            raise WeightsFileError("its list of storages is not that of its tensors")
        for key in keys:
            root = self.roots[str(key)]
            (count,) = struct.unpack("<q", self.file.read(8))
            root.offset = self.file.tell()
            self.file.seek(0, io.SEEK_END)
            if count != root.count or root.offset + root.size > self.file.tell():
                raise WeightsFileError(f"its storage {short(key)} is cut short")
            self.file.seek(root.offset + root.size)
        return contents

    def storage(self, kind, key, count, view):
        root = self.roots.setdefault(str(key), _Root(count, count * _itemsize(kind)))
        if root.size != count * _itemsize(kind):
            raise WeightsFileError(f"it declares its storage {short(key)} in two sizes")
        start, length = 0, count
        if view is not None:  # a part of a storage, as before torch 0.4
            start, length = check_shape(view[1:])
            if start + length > count:
                raise WeightsFileError(f"it declares a view beyond its storage {short(key)}")
        read = partial(self.read, root, start * _itemsize(kind))
        return _Storage(kind, length * _itemsize(kind), "<", read)  # little-endian on any machine

    def read(self, root, start, begin, end):
        return read_at(self.path, root.offset + start + begin, np.dtype("uint8"), end - begin)


class _Root:
    """A storage in a stream: its numbers, its bytes, and where they begin, once that is known."""

    def __init__(self, count, size):
        self.count, self.size, self.offset = count, size, None


@dataclass(frozen=True)
class _Storage:
    """A run of bytes holding numbers of one dtype (None: untyped); `read(begin, end)` gives some of them."""

    dtype: str | None
    size: int
    byte_order: str
    read: Callable[[int, int], np.ndarray]


def _itemsize(dtype):
    return 1 if dtype is None else numpy_dtype(dtype).itemsize


def _load(stream, storage, skip_calls):
    """Read the pickle of a torch file; `storage(dtype, key, count, view)` makes what an id stands for."""

    def persistent(identity):
        if isinstance(identity, tuple) and identity[:1] == ("module",) and len(identity) > 1:
            return identity[1]  # a class, with its source text, which nobody reads
        tag, kind, key, _, count, *view = identity if isinstance(identity, tuple) else (None,) * 5
        if tag != "storage" or not isinstance(kind, pickles.Name) or not isinstance(key, (str, int)):
            raise WeightsFileError("it refers to something that is not a storage")
        check_shape((count,))
        kind = kind.path.rsplit(".", 1)[1]
        if kind not in _STORAGES and kind != _UNTYPED:
            raise WeightsFileError(f"it holds a tensor of {short(kind)}, not of plain numbers")
        return storage(_STORAGES.get(kind), key, count, view[0] if view else None)

    def inert(path, arguments, by_call):
        if by_call and not skip_calls and path not in _DATA:
            raise WeightsFileError(
                f"to unpickle it is to call {short(path)}, which weights do not need. Nothing was run. "
                "If you know why it is there, skip such calls (--skip-calls) and its tensors are read"
            )
        return pickles.Inert(path, arguments)

    return pickles.load(stream, _KNOWN, persistent, inert)


def _tensor(storage, offset, shape, strides, grad=False, hooks=None, attributes=None, dtype=None):
    """A tensor over a storage, from the arguments of torch._utils._rebuild_tensor_v2."""
    if not isinstance(storage, _Storage):
        raise WeightsFileError("it holds a tensor without a storage")
    if attributes:
        raise WeightsFileError("it holds a tensor with attributes (conjugated or negated lazily)")
    shape, strides, (offset,) = check_shape(shape), check_shape(strides), check_shape((offset,))
    dtype = dtype or storage.dtype
    if dtype is None or len(strides) != len(shape):
        raise WeightsFileError("it holds a tensor without a dtype or a layout")
    available, count = storage.size // _itemsize(dtype), math.prod(shape)
    if count and (count > available or offset + _span(shape, strides) > available):
        raise WeightsFileError(f"it declares a tensor {list(shape)} over a storage of {available} numbers")
    return Tensor(LazyArray(shape, dtype, partial(_read, storage, dtype, offset, shape, strides)))


def _tensor_of_dtype(storage, offset, shape, strides, grad, hooks, dtype, attributes=None):
    """The same for torch._utils._rebuild_tensor_v3, whose storage is untyped."""
    name = dtype.path.rsplit(".", 1)[1] if isinstance(dtype, pickles.Name) else "unknown"
    if name not in _STORAGES.values():
        raise WeightsFileError(f"it holds a tensor of dtype {short(name)}, which these models never have")
    return _tensor(storage, offset, shape, strides, attributes=attributes, dtype=name)


def _of_type(make, kind, arguments, state):
    """The same for a subclass of torch.Tensor, which counts as a plain tensor."""
    return _KNOWN[make.path](*arguments)


def _span(shape, strides):
    return 1 + sum((size - 1) * step for size, step in zip(shape, strides))


def _read(storage, dtype, offset, shape, strides):
    number = numpy_dtype(dtype).newbyteorder(storage.byte_order)
    if not math.prod(shape):
        return np.empty(shape, numpy_dtype(dtype))
    begin = offset * number.itemsize
    values = storage.read(begin, begin + _span(shape, strides) * number.itemsize).view(number)
    steps = [step * number.itemsize for step in strides]
    values = np.lib.stride_tricks.as_strided(values, shape, steps, writeable=False)
    return np.asarray(values, numpy_dtype(dtype), order="C")


def _check_directory(file):
    """Refuse a zip file whose list of members alone would fill the memory."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - (1 << 16) - 98))  # the longest comment and both records of the end
    tail = file.read()
    sizes = [
        struct.unpack_from(form, tail, position + offset)[0]
        for magic, form, offset in ((b"PK\5\6", "<I", 12), (b"PK\6\6", "<Q", 40))
        if 0 <= (position := tail.rfind(magic)) <= len(tail) - offset - struct.calcsize(form)
    ]
    if any(_LARGEST_DIRECTORY < size < 0xFFFFFFFF for size in sizes):
        raise WeightsFileError("it is a zip file of too many members to be a checkpoint")


# What calling these names makes.
_KNOWN = {
    **pickles.COMMON,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch.Size": tuple,
}
# Plain data that training code likes to keep beside its weights; calling these is as harmless as it looks.
_DATA = (
    "torch.device",
    "collections.Counter",
    "collections.defaultdict",
    "collections.deque",
    "builtins.set",
    "builtins.frozenset",
    "builtins.complex",
    "builtins.slice",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
)
