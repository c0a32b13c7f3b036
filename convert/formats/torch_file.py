"""PyTorch's files, today's zip archives and the streams before them, read without PyTorch and without running
what they name.

Tensors stay in the file until they are wanted. Every size that the file declares is checked against the
bytes that it has; the archive is never unpacked, so a member's name is never a path.
"""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from paddle_inline.utils.errors import counted, short
from paddle_inline.weights.lazy_array import WeightsFileError, check_file, check_shape, read_at
from paddle_inline.weights.safe_pickle import load

from .torch_pickle import Storage, Tensor, itemsize, load_torch_pickle

__all__ = ["LEGACY_MAGIC", "Tensor", "open_torch"]

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# All that zipfile and struct raise on a file whose bytes are not what they were.
_DAMAGE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, struct.error, EOFError, ValueError, OSError)
_CUT = "it is cut short or damaged: download or copy it again, and compare its size with the original's"
_HEADER = 30  # bytes before the name in the header of a member
_LARGEST_DIRECTORY = 1 << 24  # of a zip file, in bytes: some 200,000 members


def open_torch(path: str | Path, skip_calls: bool = False) -> Any:
    """Return the object that `torch.save` wrote.

    A Tensor stands for every tensor in it and an Inert for every object of an unknown class.

    Args:
        skip_calls: also read a file that would call functions or classes, other than those that tensors and
            plain data are made of, on being unpickled; the calls are left undone either way.

    Raises:
        MissingFileError: no such file.
        WeightsFileError: the file is damaged or asks for more than it should.
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
        raise WeightsFileError(f"{path} is not read: {_CUT} ({error})") from None


class _Archive:
    """A zip archive of one pickle, `data.pkl`, and one member per storage."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        _check_directory(file)
        self.path = path
        self.archive = zipfile.ZipFile(path)
        self.members: dict[str, zipfile.ZipInfo] = {}
        for member in self.archive.infolist():
            name = member.filename
            if name in self.members:
                raise WeightsFileError(f"its archive has two members named {short(name)!r}")
            if name.startswith("/") or "\\" in name or ".." in name.split("/"):
                raise WeightsFileError(f"its archive has a member named {short(name)!r}, a path out of it")
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise WeightsFileError(
                    f"its member {short(name)!r} is compressed, as torch never writes them; unpack it, and zip the "
                    "folder again without compression (zip -0 -r)"
                )
            self.members[name] = member
        size = path.stat().st_size
        if sum(member.file_size for member in self.members.values()) > size:
            raise WeightsFileError(f"its members declare more bytes than the {size} of the file")
        if any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in self.members):
            raise WeightsFileError("it is a TorchScript program, not a checkpoint; save the state_dict()")
        roots = [name[:-8] for name in self.members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise WeightsFileError(
                "it is a zip file, but not one that torch.save wrote (no data.pkl); unpack it"
            )
        self.root = roots[0]
        self.cache: tuple[zipfile.ZipInfo | None, Any] = (None, None)

    def contents(self, skip_calls: bool) -> Any:
        order = self.member("byteorder")
        self.byte_order = ">" if order is not None and self.archive.read(order) == b"big" else "<"
        stream = io.BytesIO(self.archive.read(f"{self.root}data.pkl"))
        return load_torch_pickle(stream, self.storage, skip_calls)

    def member(self, name: str) -> zipfile.ZipInfo | None:
        return self.members.get(self.root + name)

    def storage(self, kind: str | None, key: Any, count: int, view: Any) -> Storage:
        member = self.member(f"data/{key}")
        if member is None:
            raise WeightsFileError(f"its archive lacks the storage {short(key)!r}")
        if view is not None or count * itemsize(kind) != member.file_size:
            raise WeightsFileError(
                f"it declares {counted(count, 'number')} of {kind or 'a byte'} where its archive has "
                f"{counted(member.file_size, 'byte')}"
            )
        begin = partial(data_offset, self.path, member)
        return Storage(kind, member.file_size, self.byte_order, partial(self.read, member), begin)

    def read(self, member: zipfile.ZipInfo, begin: int, end: int) -> np.ndarray:
        """Return some bytes of a storage, all of it checked against its checksum; kept for tensors that share it."""
        if self.cache[0] is not member:
            self.cache = (None, None)
            try:
                self.cache = (member, np.frombuffer(self.archive.read(member), np.uint8))
            except _DAMAGE as error:
                raise WeightsFileError(f"{self.path} is not read: {_CUT} ({error})") from None
        return self.cache[1][begin:end]


class _Stream:
    """The format before zip: pickles of a magic number, the writer's machine, the object and the storages'
    keys, then each storage's length and bytes."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.roots: dict[str, _Root] = {}

    def contents(self, skip_calls: bool) -> Any:
        if load(self.file, {}) != LEGACY_MAGIC:
            raise WeightsFileError("it is a pickle, but not one that torch.save wrote")
        for _ in range(2):  # the format's version and the writer's machine
            load(self.file, {})
        contents = load_torch_pickle(self.file, self.storage, skip_calls)
        keys = load(self.file, {})
        if not isinstance(keys, list) or {str(key) for key in keys} != set(self.roots):
            raise WeightsFileError("its list of storages is not that of its tensors")
        for key in keys:
            root = self.roots[str(key)]
            (count,) = struct.unpack("<q", self.file.read(8))
            root.offset = self.file.tell()
            self.file.seek(0, io.SEEK_END)
            if count != root.count or root.offset + root.size > self.file.tell():
                raise WeightsFileError(f"its storage {short(key)} is cut short; download or copy it again")
            self.file.seek(root.offset + root.size)
        return contents

    def storage(self, kind: str | None, key: Any, count: int, view: Any) -> Storage:
        root = self.roots.setdefault(str(key), _Root(count, count * itemsize(kind)))
        if root.size != count * itemsize(kind):
            raise WeightsFileError(f"it declares its storage {short(key)} in two sizes")
        start, length = 0, count
        if view is not None:  # a part of a storage, as before torch 0.4
            start, length = check_shape(view[1:])
            if start + length > count:
                raise WeightsFileError(f"it declares a view beyond its storage {short(key)}")
        read = partial(self.read, root, start * itemsize(kind))
        begin = partial(self.begin, root, start * itemsize(kind))
        return Storage(kind, length * itemsize(kind), "<", read, begin)  # little-endian on any machine

    def begin(self, root: _Root, start: int) -> int:
        return root.offset + start

    def read(self, root: _Root, start: int, begin: int, end: int) -> np.ndarray:
        return read_at(self.path, root.offset + start + begin, np.dtype("uint8"), end - begin)


@dataclass
class _Root:
    """A storage in a stream: its numbers, its bytes, and where they begin, which the end of the pickle tells."""

    count: int
    size: int
    offset: int = 0


def data_offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Return where the bytes of an archive's member begin: behind its own header, whose length that header has."""
    with open(path, "rb") as file:
        file.seek(member.header_offset)
        head = file.read(_HEADER)
    name, extra = struct.unpack_from("<HH", head, _HEADER - 4)
    return member.header_offset + _HEADER + name + extra


def _check_directory(file: BinaryIO) -> None:
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
