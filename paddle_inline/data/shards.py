"""Images in tar files, read one file after another.

    IMAGENET/
      classes.txt                 one name a line, class 0 first; without it the names are the numbers
      train/*.tar, val/*.tar      uncompressed; or train*.tar and val*.tar beside classes.txt

Inside a tar file each image is two members in a row with one name and two endings, as WebDataset writes
them: the picture (.jpg, .jpeg, .png or .webp) and .cls, its class number in digits, in either order.
Members with other endings are passed over.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np

from ..utils.errors import UserError
from .draws import Draws
from .imagenet import read_index, read_rgb, write_index

PICTURES = ("jpg", "jpeg", "png", "webp")
WINDOW = 4096  # images among which an epoch's order is mixed, about half a gigabyte of ImageNet


class Shards:
    """The images of some tar files, in the order of their names.

    The files are listed once: where every picture begins is kept in `index`, so that any image can be
    read by one seek and no tar file is opened as such again.

    Args:
        files: paths of tar files.
        classes_file: of the class names, one a line; need not exist.
        index: a file that keeps the list, or None. It is made anew when a tar file has changed.

    Raises:
        ValueError: naming the file that is no such tar file, and the member that is amiss.
    """

    def __init__(self, files, classes_file, index=None):
        files = sorted(str(file) for file in files)
        self.folder = os.path.dirname(files[0])
        stamp = [[name, os.stat(name).st_size, os.stat(name).st_mtime_ns] for name in files]
        items = read_index(index, stamp)
        if items is None:
            items = [(os.path.basename(file), *row) for file in files for row in _read_members(file)]
            write_index(index, stamp, items)
        if not items:
            raise UserError(f"{files[0]}: no image in it, nor in {len(files) - 1} more")
        self.items = items
        count = 1 + max(item[-1] for item in items)
        self.classes = _class_names(Path(classes_file), count)
        starts = [i for i, item in enumerate(items) if not i or item[0] != items[i - 1][0]]
        self.ranges = list(zip(starts, [*starts[1:], len(items)]))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        """(PIL image in RGB, class number)."""
        file, _, start, size, label = self.items[i]
        with open(os.path.join(self.folder, file), "rb", buffering=0) as shard:
            shard.seek(start)
            data = shard.read(size)
        return read_rgb(io.BytesIO(data)), label

    def name(self, i):
        file, member = self.items[i][:2]
        return f"{os.path.join(self.folder, file)}@/{member}"

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """An epoch's order, decided by `seed` and `epoch`: the files in random order, one after another,
        and every WINDOW images that follow each other mixed."""
        shards = Draws(seed, epoch).np.permutation(len(self.ranges))
        order = np.concatenate([np.arange(*self.ranges[shard]) for shard in shards])
        for start in range(0, len(order), WINDOW):
            Draws(seed, epoch, start).np.shuffle(order[start : start + WINDOW])
        return order


def find_shards(root, part) -> list[Path]:
    """The tar files of `train` or `val` in a data set's folder; empty where there are none."""
    return sorted((Path(root) / part).glob("*.tar")) or sorted(Path(root).glob(f"{part}*.tar"))


def _read_members(path):
    """[(picture's name, where its bytes begin, how many, class), ...] of a tar file."""
    found, picture, label = [], None, None
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                key, _, ending = member.name.rpartition(".")
                ending = ending.lower()
                if not member.isfile() or ending not in (*PICTURES, "cls"):
                    continue
                if ending == "cls":
                    text = archive.extractfile(member).read(100)
                    if not text.strip().isdigit():
                        raise UserError(f"{path}: {member.name} holds {text!r}, not a class number")
                    label = key, int(text)
                elif picture is not None:
                    raise UserError(f"{path}: {picture[1]} has no .cls beside it")
                else:
                    picture = key, member.name, member.offset_data, member.size
                if picture is not None and label is not None:
                    if picture[0] != label[0]:
                        raise UserError(f"{path}: {picture[1]} has no .cls beside it")
                    found.append((*picture[1:], label[1]))
                    picture = label = None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path} cannot be read as an uncompressed tar file ({error})") from None
    if picture is not None:
        raise UserError(f"{path}: {picture[1]} has no .cls beside it")
    return found


def _class_names(path, count):
    if not path.is_file():
        return tuple(str(number) for number in range(count))
    names = tuple(path.read_text(encoding="utf-8").split("\n"))
    names = tuple(name.strip() for name in names if name.strip())
    if len(names) < count:
        raise UserError(f"{path} names {len(names)} classes; the tar files have class {count - 1}")
    return names
