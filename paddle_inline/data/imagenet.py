"""ImageNet as a folder of classes, as two zip files with map lists, or as image lists.

(`shards` reads it from tar files.)
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import zipfile
from pathlib import Path

from PIL import Image

from ..utils.errors import FileAccessError, MissingFileError, UserError

IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def read_rgb(file):
    """The picture in a file as an RGB image; OSError, SyntaxError or ValueError where it is none."""
    with Image.open(file) as image:
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")  # (it would copy one in RGB too)


class Folder:
    """`root`/CLASS/image, the classes numbered in alphabetical order.

    Args:
        root: such as IMAGENET/train.
        index: a file that keeps the list of images, so that a million files are listed once; None
            keeps none. It is made anew when a class folder has changed.

    Raises:
        FileNotFoundError: if there is no such folder, or no image in it.
    """

    def __init__(self, root, index=None):
        self.root = str(root)
        folders = sorted(entry.name for entry in _scan(self.root) if entry.is_dir())
        if not folders:
            raise MissingFileError(f"{root} holds no class folders; expected {root}/CLASS/image.JPEG")
        self.classes = tuple(folders)
        stamp = [[name, os.stat(os.path.join(self.root, name)).st_mtime_ns] for name in folders]
        self.items = read_index(index, stamp)
        if self.items is None:
            self.items = [
                (f"{name}/{file}", label)
                for label, name in enumerate(folders)
                for file in sorted(entry.name for entry in _scan(os.path.join(self.root, name)))
                if file.lower().endswith(IMAGES)
            ]
            write_index(index, stamp, self.items)
        if not self.items:
            raise MissingFileError(f"{root} has {len(folders)} class folders and no image in them")

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        """(PIL image in RGB, class number)."""
        file, label = self.items[i]
        return read_rgb(os.path.join(self.root, file)), label

    def name(self, i):
        return os.path.join(self.root, self.items[i][0])


class Listed(Folder):
    """Images named in a list of lines `file label`, the files relative to `root`.

    Raises:
        ValueError: naming the first line that is not of that form.
    """

    def __init__(self, root, lines_file):
        self.root = str(root)
        self.items = read_map(lines_file)
        self.classes = tuple(str(label) for label in range(1 + max(label for _, label in self.items)))


class Zipped:
    """Images inside a zip file, named in a map list of lines `file<TAB>label`.

    Each process opens the file for itself, when it first needs it.

    Raises:
        FileNotFoundError, ValueError: for a missing or broken file, naming it.
    """

    def __init__(self, archive, map_file):
        self.archive = str(archive)
        if not zipfile.is_zipfile(self.archive):
            what = "is no zip file" if os.path.exists(self.archive) else "does not exist"
            raise MissingFileError(f"{self.archive} {what}")
        self.items = read_map(map_file)
        self.classes = tuple(str(label) for label in range(1 + max(label for _, label in self.items)))
        self._open = {}
        with zipfile.ZipFile(self.archive) as content:
            inside = set(content.namelist())
        prefix = Path(self.archive).stem
        for way in ("", f"{prefix}/"):
            if way + self.items[0][0] in inside:
                self.prefix = way
                break
        else:
            raise MissingFileError(f"{map_file} names {self.items[0][0]}, which {self.archive} does not hold")

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        """(PIL image in RGB, class number)."""
        file, label = self.items[i]
        owner = os.getpid(), threading.get_ident()  # an open zip file has one position
        if owner not in self._open:
            self._open[owner] = zipfile.ZipFile(self.archive)
        try:
            data = self._open[owner].read(self.prefix + file)
        except (KeyError, zipfile.BadZipFile) as error:
            raise FileAccessError(str(error)) from error
        return read_rgb(io.BytesIO(data)), label

    def name(self, i):
        return f"{self.archive}@/{self.items[i][0]}"

    def __getstate__(self):
        return {**self.__dict__, "_open": {}}


def open_imagenet(path, *, train, zip_mode=False):
    """ImageNet's training or validation images.

    Args:
        path: holds `train/` and `val/`; or `train_list.txt` and `val_list.txt`; or, with `zip_mode`,
            `train.zip`, `val.zip`, `train_map.txt` and `val_map.txt`.

    Raises:
        FileNotFoundError: naming what was looked for.
    """
    part = "train" if train else "val"
    if not path:
        raise MissingFileError("no data set given: set data.data_path (--data-path PATH)")
    root = Path(path)
    if not root.is_dir():
        raise MissingFileError(f"no data set folder {path}; give the one with train/ and val/")
    if zip_mode:
        return Zipped(root / f"{part}.zip", root / f"{part}_map.txt")
    if (root / part).is_dir() and any(entry.is_dir() for entry in _scan(str(root / part))):
        return Folder(root / part, index_file(root / part))
    if (root / f"{part}_list.txt").is_file():
        return Listed(root, root / f"{part}_list.txt")
    raise MissingFileError(
        f"{path} holds neither {part}/CLASS/ folders, nor {part}/*.tar, nor {part}_list.txt"
    )


def index_file(root) -> Path:
    """Where a folder's list of images is kept between runs: the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    name = hashlib.sha256(os.path.realpath(root).encode()).hexdigest()[:16]
    return Path(cache) / "paddle_inline" / f"{name}.json"


def read_map(path) -> list[tuple[str, int]]:
    """[(file, label), ...] of a list whose lines end in a label.

    Raises:
        FileNotFoundError, ValueError: naming the file, and the line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise MissingFileError(f"no list of images {path}") from None
    items = []
    for number, line in enumerate(lines, 1):
        file, _, label = line.strip().replace("\t", " ").rpartition(" ")
        if not line.strip():
            continue
        if not (file and label.isdigit()):
            raise UserError(f"{path}, line {number}: {line!r} is not `file label`")
        items.append((file.strip(), int(label)))
    if not items:
        raise UserError(f"{path} names no image")
    return items


def _scan(folder):
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except NotADirectoryError:
        return []
    except FileNotFoundError:
        raise MissingFileError(f"no such folder {folder}") from None


def read_index(path, stamp):
    """The rows that `write_index` kept, or None if there are none of this stamp."""
    try:
        kept = json.loads(Path(path).read_text(encoding="utf-8"))
        if kept["stamp"] == stamp:
            return [tuple(item) for item in kept["items"]]
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return None


def write_index(path, stamp, items):
    """A convenience: a cache that cannot be written is done without."""
    if path is None:
        return
    partial = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(partial, "w", encoding="utf-8") as file:
            json.dump({"stamp": stamp, "items": items}, file)
        os.replace(partial, path)
    except OSError:
        pass
