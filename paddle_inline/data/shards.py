"""Images in tar files, read one file after another.

    IMAGENET/
      classes.txt                 one name a line, class 0 first; without it the names are the numbers
      train/*.tar, val/*.tar      uncompressed; or train*.tar and val*.tar beside classes.txt

Inside a tar file each image is two members in a row with one name and two endings, as WebDataset writes
them: the image (.jpg, .png or any of `pictures.SUFFIXES`) and .cls, its class number in digits, in either
order. Members with other endings are passed over.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..utils.errors import UserError
from .classes import class_names
from .draws import Draws
from .folders import is_system_name, keep_index
from .pictures import PictureSource, describe, is_picture

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
        stamp = [[name, os.stat(name).st_size, os.stat(name).st_mtime_ns] for name in paths]
        self.items = keep_index(
            index,
            lambda kept: kept == stamp,
            lambda: (
                stamp,
                [(os.path.basename(path), *row) for path in paths for row in _read_members(path)],
            ),
        )[1]
        if not self.items:
            raise UserError(f"{paths[0]}: no image in it, nor in {len(paths) - 1} more")
        self.named = os.path.isfile(classes_file)
        self.classes = class_names(classes_file, 1 + max(item[-1] for item in self.items))
        starts = [i for i, item in enumerate(self.items) if not i or item[0] != self.items[i - 1][0]]
        self.ranges = list(zip(starts, [*starts[1:], len(self.items)]))

    def file(self, index: int) -> io.BytesIO:
        file, _, start, size, _ = self.items[index]
        with open(os.path.join(self.folder, file), "rb", buffering=0) as shard:
            shard.seek(start)
            return io.BytesIO(shard.read(size))

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


def _read_members(path: str) -> list[tuple[str, int, int, int]]:
    """Return [(image's name, where its bytes begin, how many, class), ...] of a tar file."""
    found, image, label = [], None, None
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile() or any(map(is_system_name, member.name.removeprefix("./").split("/"))):
                    continue
                key, _, ending = member.name.rpartition(".")
                if ending.lower() == "cls":
                    text = (archive.extractfile(member) or io.BytesIO()).read(100)
                    if not text.strip().isdigit():
                        raise UserError(f"{path}: {member.name} holds {text!r}, not a class number")
                    label = key, int(text)
                elif not is_picture(member.name):
                    continue
                elif image is not None:
                    raise UserError(f"{path}: {image[1]} has no .cls beside it")
                else:
                    image = key, member.name, member.offset_data, member.size
                if image is not None and label is not None:
                    if image[0] != label[0]:
                        raise UserError(f"{path}: {image[1]} has no .cls beside it")
                    found.append((*image[1:], label[1]))
                    image = label = None
    except UserError:
        raise
    except Exception as error:  # a damaged archive can fail in any way
        raise UserError(f"{path} cannot be read as an uncompressed tar file ({describe(error)})") from None
    if image is not None:
        raise UserError(f"{path}: {image[1]} has no .cls beside it")
    return found
