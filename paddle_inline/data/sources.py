"""The data sets by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..utils.errors import UserError
from ..utils.paths import expand
from .cifar import Cifar
from .embedded import Digits
from .imagenet import open_imagenet
from .split import Split, open_folder

if TYPE_CHECKING:
    from PIL import Image


class Source(Protocol):
    """Labelled images, in any order. One may also have `order(seed, epoch)`, an order that is fast to read.

    Attributes:
        classes: the names of the classes, class 0 first.
        named: whether those are names; without any they are the numbers.
        notes: what is to be said about it once, such as what was left out.
    """

    classes: tuple[str, ...]
    named: bool
    notes: Sequence[str]

    @property
    def labels(self) -> Iterable[int]:
        """The class numbers of all images."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return (PIL image, class number); OSError for one that cannot be read."""

    def name(self, index: int) -> str:
        """Return where an image is, as messages name it."""


def open_source(
    dataset: str,
    path: str | Path = "",
    *,
    train: bool,
    zip_mode: bool = False,
    mode: str = "RGB",
    split: Split | None = None,
) -> Source:
    """Return the images of a data set.

    Args:
        dataset: `imagenet`, `folder`, `cifar10`, `cifar100` or `digits`.
        path: of the folder or archive; not used by `digits`.
        train: the training images, or the held-out ones.
        zip_mode: `imagenet` in zip files. (Tar files are recognised.)
        mode: of `pictures.MODES`, in which files are read; the arrays of the others are RGB, of which `transforms`
            make what a model takes.
        split: of `folder`: how its images are shared between training and evaluation; None: they lie apart.

    Raises:
        MissingFileError: naming what is missing.
        UserError: for files that are not what they should be; for a split of another data set.
        MissingPackageError: the digits' package is not installed.
    """
    path = expand(path)
    if dataset == "folder":
        return open_folder(path, train=train, split=split, zip_mode=zip_mode, mode=mode)
    if split is not None:
        raise UserError(
            f"data.val_split is {split.share:g} and data.dataset {dataset}, which has held-out images of its own: "
            "leave data.val_split (--val-split) out, or set data.dataset to folder (--dataset folder) for pictures of "
            "your own"
        )
    if dataset == "imagenet":
        pictures = open_imagenet(path, train=train, zip_mode=zip_mode)
        pictures.mode = mode
        return pictures
    source: Digits | Cifar = Digits(train) if dataset == "digits" else Cifar(dataset, path, train)
    unused = {"data.data_path": path if dataset == "digits" else "", "data.zip_mode": zip_mode}
    source.notes = [
        f"{name} ({value}) is not used: data.dataset is {dataset}; folders, lists, zip and tar files are imagenet "
        "or folder"
        for name, value in unused.items()
        if value
    ]
    return source
