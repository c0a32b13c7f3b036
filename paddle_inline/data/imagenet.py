"""ImageNet as a folder of classes, as two zip files with map lists, or as image lists.

(`shards` reads it from tar files.)
"""

from __future__ import annotations

import io
import os
import threading
import zipfile
from pathlib import Path
from typing import Any

from ..utils.errors import MissingFileError, UserError
from .classes import numbered_classes
from .folders import index_file, keep_index, pictures_in, subfolders
from .pictures import PictureSource, UnreadableImage
from .text import read_text


class Folder(PictureSource):
    """`root`/CLASS/image, the classes numbered in alphabetical order.

    Args:
        root: such as IMAGENET/train.
        index: a file that keeps the list of images, so that a million files are listed once; None
            keeps none. It is made anew when a class folder has changed.

    Raises:
        MissingFileError: if there is no such folder, or no image in it.
    """

    def __init__(self, root: str | Path, index: str | Path | None = None) -> None:
        self.root = str(root)
        self.classes = tuple(subfolders(root))
        if not self.classes:
            raise MissingFileError(f"{root} holds no class folders; expected {root}/CLASS/image.JPEG")
        stamp = [[name, os.stat(os.path.join(self.root, name)).st_mtime_ns] for name in self.classes]
        self.items = keep_index(index, stamp, self._list)
        if not self.items:
            raise MissingFileError(f"{root} has {len(self.classes)} class folders and no image in them")

    def _list(self) -> list[tuple]:
        return [
            (f"{name}/{file}", label)
            for label, name in enumerate(self.classes)
            for file in pictures_in(os.path.join(self.root, name))
        ]

    def file(self, index: int) -> str:
        return os.path.join(self.root, self.items[index][0])

    name = file


class Listed(Folder):
    """Images named in a list of lines `file label`, the files relative to `root`.

    Raises:
        UserError: naming the first line that is not of that form.
    """

    def __init__(self, root: str | Path, lines_file: str | Path) -> None:
        self.root = str(root)
        self.items = read_map(lines_file)
        self.classes = numbered_classes(1 + max(label for _, label in self.items))


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
        self.items = read_map(map_file)
        self.classes = numbered_classes(1 + max(label for _, label in self.items))
        self._open: dict[tuple[int, int], zipfile.ZipFile] = {}
        with zipfile.ZipFile(self.archive) as content:
            inside = set(content.namelist())
        first, folder = self.items[0][0], f"{Path(self.archive).stem}/"
        if first not in inside and folder + first not in inside:
            raise MissingFileError(f"{map_file} names {first}, which {self.archive} does not hold")
        self.prefix = "" if first in inside else folder

    def file(self, index: int) -> io.BytesIO:
        owner = os.getpid(), threading.get_ident()  # an open zip file has one position
        if owner not in self._open:
            self._open[owner] = zipfile.ZipFile(self.archive)
        try:
            return io.BytesIO(self._open[owner].read(self.prefix + self.items[index][0]))
        except (KeyError, zipfile.BadZipFile) as error:
            raise UnreadableImage(str(error)) from error

    def name(self, index: int) -> str:
        return f"{self.archive}@/{self.items[index][0]}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def open_imagenet(path: str | Path, *, train: bool, zip_mode: bool = False) -> PictureSource:
    """Return ImageNet's training or validation images.

    Args:
        path: holds `train/` and `val/`; or `train_list.txt` and `val_list.txt`; or, with `zip_mode`,
            `train.zip`, `val.zip`, `train_map.txt` and `val_map.txt`.

    Raises:
        MissingFileError: naming what was looked for.
    """
    part = "train" if train else "val"
    if not path:
        raise MissingFileError("no data set given: set data.data_path (--data-path PATH)")
    root = Path(path)
    if not root.is_dir():
        raise MissingFileError(f"no data set folder {path}; give the one with train/ and val/")
    if zip_mode:
        return Zipped(root / f"{part}.zip", root / f"{part}_map.txt")
    if (root / part).is_dir() and subfolders(root / part):
        return Folder(root / part, index_file(root / part))
    if (root / f"{part}_list.txt").is_file():
        return Listed(root, root / f"{part}_list.txt")
    raise MissingFileError(
        f"{path} holds neither {part}/CLASS/ folders, nor {part}/*.tar, nor {part}_list.txt"
    )


def read_map(path: str | Path) -> list[tuple]:
    """Read [(file, label), ...] from a list whose lines end in a label.

    Raises:
        MissingFileError, FileAccessError: naming the file that is not there or cannot be read.
        UserError: naming the file and the line that is amiss.
    """
    items = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        file, _, label = line.strip().replace("\t", " ").rpartition(" ")
        if not line.strip():
            continue
        if not (file and label.isdigit()):
            raise UserError(f"{path}, line {number}: {line!r} is not `file label`")
        items.append((file.strip(), int(label)))
    if not items:
        raise UserError(f"{path} names no image")
    return items
