"""Images named in lists: beside a folder, in a zip file, in Tiny-ImageNet's table."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..utils.errors import MissingFileError, UserError, joined, short
from .classes import class_names, class_number, notes_on_labels
from .folders import LeftOut, is_system_name
from .pictures import PictureSource, UnreadableImage, describe, first_bytes, is_picture
from .signatures import what_is
from .text import read_text

MOST_BYTES = 512 << 20  # of an image in an archive, which is read into memory as a whole

# Words that a list's first line begins with where it names its columns.
HEADS = ("file", "filename", "file_name", "image", "image_path", "img", "name", "path", "id", "image_id")


class Listed(PictureSource):
    """Images named in a list of lines `file label`, the files relative to `root`.

    Args:
        root: holds the images, and perhaps classes.txt with the names of the classes.
        lines_file: the list.

    Raises:
        UserError: naming the first line that is not of that form.
        MissingFileError: none of the first images is there.
    """

    def __init__(self, root: str | Path, lines_file: str | Path) -> None:
        self.root = str(root)
        self.items = [(self._file(name), label) for name, label in read_map(lines_file)]
        first = [name for name, _ in self.items[:20]]
        if not any(os.path.exists(os.path.join(self.root, name)) for name in first):
            part = Path(lines_file).name.split("_")[0]
            below = os.path.exists(os.path.join(self.root, part, first[0]))
            raise MissingFileError(
                f"{lines_file} names {short(first[0])}, which is not in {root}{', nor are the next' * (len(first) > 1)}"
                + (f"; {root}/{part} has it: write {part}/{short(first[0])} in the list" if below else "")
                + ("" if below else f": files are named as they lie in {root}")
            )
        name_classes(self, root, lines_file)

    def _file(self, name: str) -> str:
        r"""Return a name with / where the list has \ and means it."""
        if "\\" in name and not os.path.exists(os.path.join(self.root, name)):
            return name.replace("\\", "/")
        return name

    def file(self, index: int) -> str:
        return os.path.join(self.root, self.items[index][0])

    name = file


class Annotated(Listed):
    """Held-out images as Tiny-ImageNet has them: `root`/images/ and a table of lines `file<TAB>class...`.

    Raises:
        UserError: naming the line that is amiss.
        MissingFileError: none of the first images is there.
    """

    def __init__(self, root: str | Path, table: str | Path) -> None:
        rows = [
            (number, line.split("\t"))
            for number, line in enumerate(read_text(table).split("\n"), 1)
            if line.strip()
        ]
        for number, row in rows:
            if len(row) < 2 or not (row[0].strip() and row[1].strip()):
                raise UserError(f"{table}, line {number}: {short(row[0])!r} is not `file<TAB>class`")
        self.root, self.named = str(root), True
        self.classes = tuple(sorted({row[1].strip() for _, row in rows}))
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.items = [(f"images/{row[0].strip()}", numbers[row[1].strip()]) for _, row in rows]
        if not any(os.path.exists(self.file(i)) for i in range(min(20, len(self.items)))):
            raise MissingFileError(f"{table} names no image that {root}/images holds")
        self.notes = repeated(self.items, table)


class Zipped(PictureSource):
    """Images inside a zip file, named in a map list of lines `file<TAB>label`.

    Each process opens the file for itself, when it first needs it.

    Raises:
        MissingFileError: there is no such file, or it lacks all images of the list.
        UserError: it is no zip file, or the list is not of that form.
    """

    def __init__(self, archive: str | Path, map_file: str | Path) -> None:
        self.archive = str(archive)
        _require_zip(Path(archive), Path(map_file))
        named = [(_plain(name), label) for name, label in read_map(map_file)]
        self._open: dict[tuple[int, int], zipfile.ZipFile] = {}
        try:
            with zipfile.ZipFile(self.archive) as content:
                inside = _names(content.infolist())
        except Exception as error:  # a damaged archive can fail in any way
            raise UserError(f"{self.archive} cannot be read as a zip file ({describe(error)})") from None
        tops = {name.split("/")[0] for name in inside}
        top = f"{tops.pop()}/" if len(tops) == 1 else f"{Path(self.archive).stem}/"
        some = [name for name, _ in named[:1000]]
        prefix = (
            top if sum(top + name in inside for name in some) > sum(name in inside for name in some) else ""
        )
        self.items = [(inside.get(prefix + name, name), label) for name, label in named]
        lacking = [name for name, _ in named if prefix + name not in inside]
        if len(lacking) == len(named):
            raise MissingFileError(
                f"{map_file} names {short(named[0][0])}, which {self.archive} does not hold, nor any other file "
                f"of the list; it holds {joined(list(inside), 3) or 'no file'}"
            )
        name_classes(self, Path(map_file).parent, map_file)
        said = f"{map_file} names {len(lacking)} files that {self.archive} lacks: {joined(lacking, 3)}"
        others = _not_listed(inside, {prefix + name for name, _ in named}, self.archive)
        self.notes = [*self.notes, *([said] if lacking else []), *others]

    def file(self, index: int) -> io.BytesIO:
        owner = os.getpid(), threading.get_ident()  # an open zip file has one position
        if owner not in self._open:
            self._open[owner] = zipfile.ZipFile(self.archive)
        size = self._open[owner].getinfo(self.items[index][0]).file_size
        if size > MOST_BYTES:
            raise UnreadableImage(f"it unpacks to {size >> 20} MiB; an image has {MOST_BYTES >> 20} at most")
        return io.BytesIO(self._open[owner].read(self.items[index][0]))

    def name(self, index: int) -> str:
        return f"{self.archive}@/{self.items[index][0]}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def _require_zip(archive: Path, map_file: Path) -> None:
    for path in (archive, map_file):
        if not path.exists():
            raise MissingFileError(
                f"{path} does not exist; --zip takes {archive.name} and {map_file.name}, of lines `file<TAB>label`, in "
                f"{path.parent}; class folders are read without --zip"
            )
    if archive.is_dir():
        raise UserError(f"{archive} is a folder, no zip file: leave --zip out")
    if not zipfile.is_zipfile(archive):
        head = first_bytes(archive)
        cut = "has the beginning of a zip file and not its end: it is cut off; copy or download it again"
        kind = what_is(head) or "something else"
        raise UserError(f"{archive} {cut if head[:2] == b'PK' else f'is no zip file but {kind}'}")


def _plain(name: str) -> str:
    r"""Return a name inside an archive with / for \, and nothing in front."""
    return name.replace("\\", "/").removeprefix("./").lstrip("/")


def _names(members: Sequence[zipfile.ZipInfo]) -> dict[str, str]:
    """Return {name as a list has it: name} of a zip file's members, in the encodings that they may be in."""
    found = {_plain(member.filename): member.filename for member in members if not member.is_dir()}
    for member in members:
        if not member.flag_bits & 0x800 and not member.filename.isascii():  # read as CP437 for want of a mark
            for encoding in ("utf-8", "gb18030"):
                with contextlib.suppress(UnicodeError):
                    found.setdefault(
                        _plain(member.filename.encode("cp437").decode(encoding)), member.filename
                    )
    return found


def _not_listed(inside: dict[str, str], named: set[str], archive: str) -> list[str]:
    """Return what is to be said about a zip file's members that its list does not name."""
    real, left_out, images = {inside[name] for name in named if name in inside}, LeftOut(), 0
    for name in set(inside.values()) - real:
        parts = _plain(name).split("/")
        system = [part for part in parts if is_system_name(part)]
        if system:
            left_out.system[system[0]] += 1
        elif is_picture(name):
            images += 1
        else:
            left_out.add_file(parts[-1])
    notes = left_out.notes(archive)
    return [f"{archive}: left out: {images} images that the list does not name", *notes] if images else notes


def name_classes(source: PictureSource, root: str | Path, labels_in: str | Path) -> None:
    """Set the classes of a source with numbers for labels: the names in `root`/classes.txt, or the numbers."""
    labels = {item[-1] for item in source.items}
    names = Path(root) / "classes.txt"
    source.named = names.is_file()
    source.classes = class_names(names, labels, labels_in)
    source.notes = [
        *notes_on_labels(source.classes, source.named, labels, labels_in),
        *repeated(source.items, labels_in),
        *_no_images(source.items, labels_in),
    ]


def repeated(items: Sequence[tuple], where: str | Path) -> list[str]:
    """Return what is to be said about files that a list names more than once."""
    if len({item[0] for item in items}) == len(items):
        return []
    labels: dict[str, set[int]] = {}
    for name, label in items:
        labels.setdefault(name, set()).add(label)
    several = [name for name, found in labels.items() if len(found) > 1]
    notes = [f"{where} names {len(items) - len(labels)} files more than once"]
    if several:
        shown = [f"{short(name, 60)} {sorted(labels[name])}" for name in several[:3]]
        notes.append(f"{where} gives {len(several)} files several labels: {', '.join(shown)}")
    return notes


def _no_images(items: Sequence[tuple], where: str | Path) -> list[str]:
    left_out = LeftOut()
    for name, _ in items:
        if not is_picture(name):
            left_out.add_file(name)
    counts = ", ".join(f"{count} {short(suffix, 30)}" for suffix, count in left_out.suffixes.most_common(6))
    return [f"{where} names files that do not end as images do: {counts}"] if counts else []


def read_map(path: str | Path) -> list[tuple]:
    """Read [(file, label), ...] from a list whose lines end in a label, behind a space, a tab or a comma.

    A first line such as `file,label` is passed over.

    Raises:
        MissingFileError, FileAccessError: naming the file that is not there or cannot be read.
        UserError: naming the file and the line that is amiss.
    """
    items: list[tuple] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        line = line.strip()
        if not line:
            continue
        try:
            items.append(_file_and_label(line))
        except UserError as error:
            if items or line.replace(",", " ").split()[0].strip('"').lower() not in HEADS:
                raise UserError(
                    f"{path}, line {number}: {short(line)!r} is not `file label`: {error}"
                ) from None
    if not items:
        raise UserError(f"{path} names no image; its lines are `file label`")
    return items


def _file_and_label(line: str) -> tuple[str, int]:
    """Return (file, label) of a line.

    Raises:
        UserError: it has none, several, or the label first.
    """
    for separator in ("\t", " ", ","):
        file, _, label = line.rpartition(separator)
        file, label = file.strip().removesuffix(",").rstrip(), label.strip().strip('"')
        if len(file) > 1 and file[0] == file[-1] == '"':
            file = file[1:-1].replace('""', '"')
        if file and label.isascii() and label.isdecimal():
            if not is_picture(file) and is_picture(_words(file)[0]):
                raise UserError("it has several labels; an image has one class")
            return file, class_number(label)
    first, last = _words(line)
    if not first:
        raise UserError("it has no label")
    if first.isdecimal() or is_picture(last):
        raise UserError("the file comes first, then its label")
    class_number(last)
    raise UserError("the label comes last, behind a space, a tab or a comma")


def _words(line: str) -> tuple[str, str]:
    """Return a line without its last word, and that word."""
    first, _, last = line.replace("\t", " ").replace(",", " ").rpartition(" ")
    return first.rstrip(), last.strip('"')
