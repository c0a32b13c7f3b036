"""The data sets by name."""

from __future__ import annotations

from .cifar import Cifar
from .embedded import Digits
from .imagenet import open_imagenet


def open_source(dataset, path="", *, train, zip_mode=False):
    """The images of a data set.

    Args:
        dataset: `imagenet`, `cifar10`, `cifar100` or `digits`.
        path: of the folder or archive; not used by `digits`.
        train: the training images, or the held-out ones.
        zip_mode: `imagenet` in zip files.

    Returns:
        A source: `len(source)`, `source[i]` -> (PIL image in RGB, label), `source.name(i)`,
        `source.classes`.

    Raises:
        FileNotFoundError: naming what is missing; ValueError for files that are not what they
        should be; ImportError where the digits' package is missing.
    """
    if dataset == "digits":
        return Digits(train)
    if dataset == "imagenet":
        return open_imagenet(path, train=train, zip_mode=zip_mode)
    return Cifar(dataset, path, train)
