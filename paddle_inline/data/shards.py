"""Images in tar files, read one file after another.

    IMAGENET/
      classes.txt                 one name a line, class 0 first; without it the names are the numbers
      train/*.tar, val/*.tar      uncompressed; or train*.tar and val*.tar beside classes.txt

Inside a tar file each image is two members in a row with one name and two endings, as WebDataset writes
them: the image (.jpg, .png or any of `pictures.SUFFIXES`) and .cls, its class number in digits, in either
order. Members with other endings, such as .json or .mask.png, are passed over and counted. A link is the image that
stands in the same tar file before it.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import UserError
from .classes import class_names, notes_on_labels
from .draws import Draws
from .folders import LeftOut, is_system_name, keep_index
from .pictures import PictureSource, UnreadableImage
from .tar_members import WAY_OUT, read_members

FORM = 2  # of the list that is kept
WINDOW = 4096  # images among which an epoch's order is mixed, about half a gigabyte of ImageNet


class Shards(PictureSource):
    """The images of some tar files, in the order of their names.

    The files are listed once: where every image begins is kept in `index`, so that any image can be
    read by one seek and no tar file is opened as such again.

    Args:
        files: paths of tar files.
        classes_file: of the class names, one a line; need not exist.
        index: a file that keeps the list, or None. It is made anew when a tar file has changed.

    Raises:
        UserError: naming the file that is no such tar file, and the member that is wrong.
    """

    def __init__(
        self, files: Sequence[str | Path], classes_file: str | Path, index: str | Path | None = None
    ) -> None:
        paths = sorted(map(str, files))
        self.folder = os.path.dirname(paths[0])
        stamp = [FORM, *([name, os.stat(name).st_size, os.stat(name).st_mtime_ns] for name in paths)]
        kept, self.items = keep_index(index, lambda kept: kept["files"] == stamp, lambda: _list(paths, stamp))
        left_out = LeftOut(Counter(kept["suffixes"]), Counter(kept["system"]))
        where = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        self.notes = left_out.notes(where)
        if not self.items:
            more = f", nor in {len(paths) - 1} more" if len(paths) > 1 else ""
            raise UserError("; ".join([f"{paths[0]}: no image in it{more}", *self.notes, WAY_OUT]))
        labels = {item[-1] for item in self.items}
        self.named = os.path.isfile(classes_file)
        self.classes = class_names(classes_file, labels, where)
        self.notes += notes_on_labels(self.classes, self.named, labels, where)
        starts = [i for i, item in enumerate(self.items) if not i or item[0] != self.items[i - 1][0]]
        self.ranges = list(zip(starts, [*starts[1:], len(self.items)]))

    def file(self, index: int) -> io.BytesIO:
        file, _, start, size, _ = self.items[index]
        with open(os.path.join(self.folder, file), "rb", buffering=0) as shard:
            shard.seek(start)
            data = shard.read(size)
        if len(data) != size:
            raise UnreadableImage("the tar file has become shorter since it was listed")
        return io.BytesIO(data)

    def name(self, index: int) -> str:
        file, member = self.items[index][:2]
        return f"{os.path.join(self.folder, file)}@/{member}"

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Return an epoch's order, decided by `seed` and `epoch`: the files in random order, one after another,
        and every WINDOW images that follow each other mixed."""
        shards = Draws(seed, epoch).np.permutation(len(self.ranges))
        order = np.concatenate([np.arange(*self.ranges[shard]) for shard in shards])
        for start in range(0, len(order), WINDOW):
            Draws(seed, epoch, start).np.shuffle(order[start : start + WINDOW])
        return order


def find_shards(root: str | Path, part: str) -> list[Path]:
    """Return the tar files of `train` or `val` in a data set's folder; empty where there are none."""
    for folder, pattern in ((Path(root) / part, "*.tar"), (Path(root), f"{part}*.tar")):
        found = [path for path in folder.glob(pattern) if not is_system_name(path.name) and path.is_file()]
        if found:
            return sorted(found)
    return []


def _list(paths: Sequence[str], stamp: list[Any]) -> tuple[Any, list[tuple]]:
    """Return (what the list was made of and what it lacks, list of images) of some tar files."""
    left_out, items = LeftOut(), []
    for path in paths:
        items += [(os.path.basename(path), *row) for row in read_members(path, left_out)]
    return {"files": stamp, "suffixes": left_out.suffixes, "system": left_out.system}, items
