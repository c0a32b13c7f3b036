"""The data sets by name."""

from __future__ import annotations

import os

from .cifar import Cifar
from .embedded import Digits
from .imagenet import index_file, open_imagenet
from .shards import Shards, find_shards


def open_source(dataset, path="", *, train, zip_mode=False):
    """The images of a data set.

    Args:
        dataset: `imagenet`, `cifar10`, `cifar100` or `digits`.
        path: of the folder or archive; not used by `digits`.
        train: the training images, or the held-out ones.
        zip_mode: `imagenet` in zip files. (Tar files are recognised.)

    Returns:
        A source: `len(source)`, `source[i]` -> (PIL image in RGB, label), `source.name(i)`,
        `source.classes`; and, where some order of reading suits it, `source.order(seed, epoch)`.

    Raises:
        FileNotFoundError: naming what is missing; ValueError for files that are not what they
        should be; ImportError where the digits' package is missing.
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
