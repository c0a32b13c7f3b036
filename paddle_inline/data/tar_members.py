"""What a tar file of images holds, read once: where each image begins, and its class."""

from __future__ import annotations

import io
import posixpath
import tarfile
from typing import BinaryIO

from ..utils.errors import UserError, short
from .classes import RULE_OF_NUMBERS, class_number
from .folders import LeftOut, is_system_name
from .pictures import describe, first_bytes, is_picture
from .signatures import what_is

WAY_OUT = (
    "a tar file has each image and its class number as NAME.jpg and NAME.cls, one behind the other; tar files of one "
    "class each, as ImageNet is distributed, are to be unpacked into train/CLASS/"
)
_BLOCK = 512  # bytes; tar files consist of such

Row = tuple[str, int, int, int]  # image's name, where its bytes begin, how many, class
Place = tuple[str, int, int]  # image's name, where its bytes begin, how many


def read_members(path: str, left_out: LeftOut) -> list[Row]:
    """Return the images of a tar file.

    Args:
        path: of the file.
        left_out: takes what is passed over.

    Raises:
        UserError: naming the file that is no such tar file or does not end as one, and the member that is wrong.
    """
    pairs = _Pairs(path, left_out)
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                pairs.add(archive, member)
            _require_end(path, file, archive.offset)
    except UserError:
        raise
    except Exception as error:  # a damaged archive can fail in any way
        kind = what_is(first_bytes(path))
        said = f"it is {kind}" if kind and "tar archive" not in kind else describe(error)
        raise UserError(
            f"{path} cannot be read as an uncompressed tar file ({said}); copy or download it again, or unpack it"
        ) from None
    return pairs.rows()


class _Pairs:
    """Images and labels in the order in which they stand, put together by their names."""

    def __init__(self, path: str, left_out: LeftOut) -> None:
        self.path, self.left_out = path, left_out
        self.found: list[Row] = []
        self.last = ""  # name of the newest pair, without its endings
        self.image: tuple[str, Place] | None = None
        self.label: tuple[str, int, str] | None = None
        self.places: dict[str, tuple[int, int]] = {}  # of regular files, for links to them

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Take the next member."""
        if member.isdir():
            return
        system = [part for part in member.name.split("/") if is_system_name(part)]
        key, _, ending = member.name.rpartition(".")
        if system:
            self.left_out.system[system[0]] += 1
        elif ending.lower() == "cls":
            self._add_label(key, archive, member)
        elif is_picture(member.name):
            self._add_image(key, member)
        else:
            self.left_out.add_file(member.name)

    def rows(self) -> list[Row]:
        """Return all pairs, at the end of the file."""
        self._require_none()
        return self.found

    def _add_label(self, key: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        if self.label is not None:
            raise UserError(f"{self.path}: {self.label[2]} has no image beside it; {WAY_OUT}")
        file = archive.extractfile(member)
        text = (file or io.BytesIO()).read(100)
        try:
            number = class_number(text.decode("ascii", "backslashreplace"))
        except UserError:
            raise UserError(
                f"{self.path}: {member.name} holds {text!r}, not a class number ({RULE_OF_NUMBERS})"
            ) from None
        self.label = key, number, member.name
        if self.image is not None and self.image[0].startswith(f"{key}."):
            self._leave_out(self.image[1][0])
            self.image = None
        self._join()

    def _add_image(self, key: str, member: tarfile.TarInfo) -> None:
        if any(whole and key.startswith(f"{whole}.") for whole in self._keys()):
            self._leave_out(member.name)  # such as 0.mask.png beside 0.jpg
            return
        if self.image is not None and self.image[0].startswith(f"{key}."):
            self._leave_out(self.image[1][0])
            self.image = None
        if self.image is not None:
            self._require_none()
        if member.issparse():
            raise UserError(
                f"{self.path}: {member.name} is stored as a sparse file: pack it without tar's -S"
            )
        place = self.places.get(self._target(member)) if member.issym() or member.islnk() else None
        if place is None and not member.isfile():
            raise UserError(
                f"{self.path}: {member.name} is a link to {short(member.linkname)}, which does not stand before it: "
                "pack the files themselves (tar --dereference --hard-dereference)"
            )
        at, size = place or (member.offset_data, member.size)
        self.places[posixpath.normpath(member.name)] = at, size
        self.image = key, (member.name, at, size)
        self._join()

    def _keys(self) -> list[str]:
        """Return the names that an image with more before its ending may belong to."""
        if self.image is None and self.label is None:
            return [self.last]
        return [pending[0] for pending in (self.image, self.label) if pending is not None]

    def _target(self, member: tarfile.TarInfo) -> str:
        if member.islnk():
            return posixpath.normpath(member.linkname)
        return posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))

    def _join(self) -> None:
        if self.image is None or self.label is None:
            return
        if self.image[0] != self.label[0]:
            self._require_none()
        self.found.append((*self.image[1], self.label[1]))
        self.last = self.image[0]
        self.image = self.label = None

    def _require_none(self) -> None:
        """Refuse an image or a label that has no partner."""
        if self.image is not None:
            raise UserError(f"{self.path}: {self.image[1][0]} has no .cls beside it; {WAY_OUT}")
        if self.label is not None:
            raise UserError(f"{self.path}: {self.label[2]} has no image beside it; {WAY_OUT}")

    def _leave_out(self, name: str) -> None:
        base = name.rsplit("/", 1)[-1]
        self.left_out.suffixes["." + base.split(".", 1)[1].lower()] += 1


def _require_end(path: str, file: BinaryIO, offset: int) -> None:
    """Refuse a tar file that is not read to its end: `tarfile` stops without a word at a damaged header.

    Raises:
        UserError: something else than the zeros of its end follows, or nothing at all.
    """
    file.seek(offset)
    if file.read(_BLOCK) != bytes(_BLOCK):
        file.seek(offset)
        ended = (
            "it ends there without an end mark: it is cut off"
            if not file.read(1)
            else "the header is damaged"
        )
        raise UserError(
            f"{path} is no whole tar file: behind byte {offset} {ended}; copy or download it again"
        )
    position = offset
    while part := file.read(1 << 20):
        if part.strip(b"\0"):
            raise UserError(
                f"{path} goes on behind its end mark at byte {position}: two tar files in one (cat), or damaged; "
                "leave them apart, or pack them anew"
            )
