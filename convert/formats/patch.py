"""Other numbers in a checkpoint's file, written over the old ones: every other byte stays as it was.

What a file holds beside its weights, as settings, an optimizer or objects of foreign classes, need not be understood to
be kept. A file of torch is a zip archive, whose checksums follow from the numbers and are renewed.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from paddle_inline.weights.lazy_array import LazyArray, numpy_dtype

from .torch_file import data_offset

_CENTRAL, _DESCRIPTOR = (
    b"PK\1\2",
    b"PK\7\x08",
)  # marks of a record of the directory, and of one behind a member
_CHUNK = 1 << 24


def overwrite(path: Path, pairs: Iterable[tuple[LazyArray, LazyArray]]) -> None:
    """Write arrays over those of a file.

    Args:
        path: a copy of the file in which the old arrays are.
        pairs: (old, new), of one shape and dtype; each old one has a place.
    """
    with open(path, "r+b") as file:
        archive = file.read(4) == b"PK\3\4"
    changed = []
    for old, new in pairs:
        assert old.place is not None
        place = old.place()
        if not all(old.shape):
            continue
        length = sum((n - 1) * step for n, step in zip(old.shape, place.strides)) + place.dtype.itemsize
        region = np.memmap(path, np.uint8, "r+", place.offset, (length,))
        numbers: np.ndarray = np.ndarray(old.shape, place.dtype, region.data, strides=place.strides)
        numbers[...] = new.read().view(numpy_dtype(old.dtype))
        region.flush()
        changed.append((place.offset, place.offset + length))
        del numbers, region
    if archive:
        _renew_checksums(path, changed)


def _renew_checksums(path: Path, changed: list[tuple[int, int]]) -> None:
    """Give the members of a zip archive whose bytes have changed the checksums of what they are now."""
    with zipfile.ZipFile(path) as archive:
        members, directory = archive.infolist(), archive.start_dir
    with open(path, "r+b") as file:
        for member in members:  # in the directory's order
            file.seek(directory)
            record = file.read(46)
            assert record[:4] == _CENTRAL
            begin = data_offset(path, member)
            end = begin + member.file_size
            if any(begin < stop and start < end for start, stop in changed):
                checksum = struct.pack("<I", _crc(file, begin, member.file_size))
                _put(file, directory + 16, checksum)
                if member.flag_bits & 8:  # it stands behind the bytes, with a mark or without
                    file.seek(end)
                    _put(file, end + 4 * (file.read(4) == _DESCRIPTOR), checksum)
                else:
                    _put(file, member.header_offset + 14, checksum)
            directory += 46 + sum(struct.unpack_from("<HHH", record, 28))


def _crc(file: BinaryIO, begin: int, size: int) -> int:
    file.seek(begin)
    checksum = 0
    for start in range(0, size, _CHUNK):
        checksum = zlib.crc32(file.read(min(_CHUNK, size - start)), checksum)
    return checksum


def _put(file: BinaryIO, offset: int, data: bytes) -> None:
    file.seek(offset)
    file.write(data)
