"""The data sets by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .cifar import Cifar
from .embedded import Digits
from .folders import index_file
from .imagenet import open_imagenet
from .shards import Shards, find_shards

if TYPE_CHECKING:
    from PIL import Image


class Source(Protocol):
    """Labelled images, in any order. One may also have `order(seed, epoch)`, an order that is fast to read."""

    classes: tuple[str, ...]

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return (PIL image in RGB, class number); OSError for one that cannot be read."""

    def name(self, index: int) -> str:
        """Return where an image is, as messages name it."""


def open_source(dataset: str, path: str | Path = "", *, train: bool, zip_mode: bool = False) -> Source:
    """Return the images of a data set.

    Args:
        dataset: `imagenet`, `cifar10`, `cifar100` or `digits`.
        path: of the folder or archive; not used by `digits`.
        train: the training images, or the held-out ones.
        zip_mode: `imagenet` in zip files. (Tar files are recognised.)

    Raises:
        MissingFileError: naming what is missing.
        UserError: for files that are not what they should be.
        MissingPackageError: the digits' package is not installed.
    """
    if dataset == "digits":
        return Digits(train)
    if dataset == "imagenet":
        part = "train" if train else "val"
        shards = find_shards(path, part) if path and not zip_mode else []
        if shards:
            index = index_file(os.path.join(path, f"{part}.tar"))
            return Shards(shards, os.path.join(path, "classes.txt"), index)
        return open_imagenet(path, train=train, zip_mode=zip_mode)
    return Cifar(dataset, path, train)
