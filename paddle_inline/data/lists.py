"""Images named in lists: beside a folder, in a zip file, in Tiny-ImageNet's table."""

from __future__ import annotations

import io
import os
import threading
import zipfile
from pathlib import Path
from typing import Any

from ..utils.errors import MissingFileError, UserError, short, shortened
from .classes import class_names
from .pictures import PictureSource, describe
from .text import read_text

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
        name_classes(self, root)
        first = [name for name, _ in self.items[:20]]
        if not any(os.path.exists(os.path.join(self.root, name)) for name in first):
            raise MissingFileError(
                f"{lines_file} names {short(first[0])}, which is not in {root}, nor are the next"
                if len(first) > 1
                else f"{lines_file} names {short(first[0])}, which is not in {root}"
            )

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


class Zipped(PictureSource):
    """Images inside a zip file, named in a map list of lines `file<TAB>label`.

    Each process opens the file for itself, when it first needs it.

    Raises:
        MissingFileError: there is no such file, or it lacks the first image of the list.
        UserError: it is no zip file, or the list is not of that form.
    """

    def __init__(self, archive: str | Path, map_file: str | Path) -> None:
        self.archive = str(archive)
        if not os.path.exists(self.archive):
            raise MissingFileError(f"{self.archive} does not exist")
        if not zipfile.is_zipfile(self.archive):
            raise UserError(f"{self.archive} is no zip file")
        self.items = [
            (name.replace("\\", "/").removeprefix("./"), label) for name, label in read_map(map_file)
        ]
        name_classes(self, Path(map_file).parent)
        self._open: dict[tuple[int, int], zipfile.ZipFile] = {}
        try:
            with zipfile.ZipFile(self.archive) as content:
                inside = set(content.namelist())
        except Exception as error:  # a damaged archive can fail in any way
            raise UserError(f"{self.archive} cannot be read as a zip file ({describe(error)})") from None
        first, folder = self.items[0][0], f"{Path(self.archive).stem}/"
        if first not in inside and folder + first not in inside:
            raise MissingFileError(f"{map_file} names {first}, which {self.archive} does not hold")
        self.prefix = "" if first in inside else folder

    def file(self, index: int) -> io.BytesIO:
        owner = os.getpid(), threading.get_ident()  # an open zip file has one position
        if owner not in self._open:
            self._open[owner] = zipfile.ZipFile(self.archive)
        return io.BytesIO(self._open[owner].read(self.prefix + self.items[index][0]))

    def name(self, index: int) -> str:
        return f"{self.archive}@/{self.items[index][0]}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def name_classes(source: PictureSource, root: str | Path) -> None:
    """Set the classes of a source with numbers for labels: the names in `root`/classes.txt, or the numbers."""
    labels = {item[-1] for item in source.items}
    names = Path(root) / "classes.txt"
    source.named = names.is_file()
    source.classes = class_names(names, 1 + max(labels))
    source.notes = []
    unused = [name for number, name in enumerate(source.classes) if number not in labels]
    if unused:
        source.notes.append(f"{root}: no image of class {', '.join(shortened(unused, 12))}")


def read_map(path: str | Path) -> list[tuple]:
    """Read [(file, label), ...] from a list whose lines end in a label, behind a space, a tab or a comma.

    A first line such as `file,label` is passed over.

    Raises:
        MissingFileError, FileAccessError: naming the file that is not there or cannot be read.
        UserError: naming the file and the line that is amiss.
    """
    items: list[tuple] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        found = _file_and_label(line.strip())
        if found is not None:
            items.append(found)
        elif items or line.strip().replace(",", " ").split()[0].strip('"').lower() not in HEADS:
            raise UserError(f"{path}, line {number}: {short(line)!r} is not `file label`")
    if not items:
        raise UserError(f"{path} names no image")
    return items


def _file_and_label(line: str) -> tuple[str, int] | None:
    for separator in ("\t", " ", ","):
        file, _, label = line.rpartition(separator)
        file, label = file.strip().removesuffix(",").rstrip(), label.strip().strip('"')
        if len(file) > 1 and file[0] == file[-1] == '"':
            file = file[1:-1].replace('""', '"')
        if file and label.isascii() and label.isdecimal():
            return file, int(label)
    return None
