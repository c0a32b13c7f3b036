"""Data sets of PaddleSeg with their folders checked, and the order of pictures in training."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.draws import Draws
from ..data.loaders import Samples
from ..data.sampler import epoch_order
from ..utils.errors import MissingFileError, UserError, counted
from .scores import IGNORED, check_labels
from .settings import Settings

LAYOUTS = {
    "ADE20K": ("images/training", "images/validation", "annotations/training", "annotations/validation"),
    "Cityscapes": ("leftImg8bit/train", "leftImg8bit/val", "gtFine/train", "gtFine/val"),
}
IMAGE, LABELS = "_leftImg8bit.png", "_gtFine_labelTrainIds.png"


def open_dataset(settings: Settings, key: str) -> Any:
    """Return the data set of `train_dataset` or `val_dataset`, its files in the order of their names.

    Raises:
        MissingFileError: its folder, a folder in it, a list, or a picture's labels are not there.
        UserError: there is no such section, or no picture.
    """
    section = settings.tree.get(key)
    if not section:
        raise UserError(f"the settings have no {key}")
    check_layout(section, key)
    dataset = settings.dataset(key)
    if not hasattr(dataset, "file_list"):
        return dataset  # of somebody else, with a way of its own
    dataset.file_list = sorted(
        pair for pair in dataset.file_list if not os.path.basename(pair[0]).startswith(".")
    )
    if not dataset.file_list:
        raise UserError(f"{key}: there is no picture in {section.get('dataset_root')}")
    for image, labels in dataset.file_list:
        pair = Path(image).name[: -len(IMAGE)], Path(labels or "").name[: -len(LABELS)]
        if section["type"] == "Cityscapes" and pair[0] != pair[1]:
            raise MissingFileError(f"{key}: {image} has no labels, or {labels} no picture")
        for path in filter(None, (image, labels)):
            if not os.path.isfile(path):
                raise MissingFileError(f"{key}: there is no {path}")
    return dataset


def check_layout(section: dict[str, Any], key: str) -> None:
    """Refuse a data set whose folders are not there, before the toolkit would download or misread it."""
    kind, root = section["type"], section.get("dataset_root")
    if root is None:
        raise UserError(f"{key}: give its folder, -o {key}.dataset_root=FOLDER")
    if not os.path.isdir(root):
        raise MissingFileError(f"{key}: there is no folder {root}; give it: -o {key}.dataset_root=FOLDER")
    train = section.get("mode", "train") == "train"
    for folder in LAYOUTS.get(kind, ())[0 if train else 1 :: 2]:
        if not os.path.isdir(os.path.join(root, folder)):
            raise MissingFileError(
                f"{key}: {root} has no {folder}: it is not {kind}'s folder, or not unpacked"
            )
    if kind == "Cityscapes":
        mode = section.get("mode", "train")
        images = sum(1 for _ in Path(root, "leftImg8bit", mode).glob(f"*/*{IMAGE}"))
        labels = sum(1 for _ in Path(root, "gtFine", mode).glob(f"*/*{LABELS}"))
        if images != labels:
            raise MissingFileError(
                f"{key}: {root} has {counted(images, 'picture')} and {counted(labels, 'file')} *{LABELS} for {mode}; "
                "make the latter with cityscapesscripts (pip install cityscapesscripts, csCreateTrainIdLabelImgs)"
            )
    for name in ("train_path", "val_path", "test_path"):
        if kind == "Dataset" and name.startswith(section.get("mode", "train")):
            path = section.get(name)
            if not path or not os.path.isfile(path):
                raise MissingFileError(f"{key}: there is no list {path}; give it: -o {key}.{name}=FILE")


def read_sample(dataset: Any, index: int) -> dict[str, Any]:
    """Return a sample of the toolkit: `img` [3, H, W], `label` [..., H, W] and what else its transforms add.

    Raises:
        UserError: the picture or its labels cannot be read, do not belong together, or a label is no class.
    """
    image, labels = dataset.file_list[index] if hasattr(dataset, "file_list") else (None, None)
    try:
        if image and labels:
            sizes = [_size(path) for path in (image, labels)]
            if sizes[0] != sizes[1]:
                raise UserError(
                    f"{labels} is {sizes[1]} pixels, its picture {image} {sizes[0]}: width x height"
                )
        sample = dataset[index]
    except UserError:
        raise
    except Exception as error:
        for path in filter(None, (image, labels)):
            _check_readable(path, error)
        raise
    if "label" in sample:
        sample["label"] = values = np.asarray(sample["label"])
        if values.size != np.prod(values.shape[-2:]):
            raise UserError(
                f"{labels or 'a label'} has shape {list(values.shape)}; labels are one number a pixel"
            )
        check_labels(
            values, dataset.num_classes, getattr(dataset, "ignore_index", IGNORED), labels or "a label"
        )
    return sample


def _size(path: str) -> str:
    try:
        with Image.open(path) as image:
            return "{} x {}".format(*image.size)
    except OSError as error:
        raise UserError(f"{path} is not a picture that can be read: {error}") from None


def _check_readable(path: str, error: Exception) -> None:
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as reason:
        raise UserError(f"{path} is damaged: {reason}") from error


class TrainingSamples(Samples):
    """(epoch, index) -> (image [3, H, W], labels [H, W]), a function of its arguments and the seed alone.

    Args:
        dataset: of the toolkit.
        seed: of the run.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self.normalize = None  # the toolkit's transforms have done it

    def __len__(self) -> int:
        return len(self.dataset)

    def load_pixels(self, key: tuple[int, int]) -> tuple[np.ndarray, Any, np.int64]:
        """Return (image, labels, 0: nothing was put in the place of another picture)."""
        epoch, index = key
        draws = Draws(self.seed, epoch, index)
        kept = random.getstate(), np.random.get_state()
        random.setstate(draws.py.getstate())  # the toolkit's transforms draw from the modules' generators
        np.random.set_state(draws.np.get_state())
        try:
            sample = read_sample(self.dataset, index)
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])
        return sample["img"], sample["label"].astype(np.int64), np.int64(0)


class Batches:
    """The batches of one rank from a step on: lists of (epoch, index).

    The pictures of all ranks together are one endless row of permutations, of which every step takes the next
    batch_size * world: n ranks of batch b see what one rank of batch n * b sees, and nothing is left out.
    """

    def __init__(
        self, length: int, batch_size: int, *, seed: int, start: int, stop: int, rank: int, world: int
    ) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.start, self.stop, self.rank, self.world = start, stop, rank, world

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        known, order = -1, np.empty(0, int)
        for step in range(self.start, self.stop):
            first = (step * self.world + self.rank) * self.batch_size
            batch = []
            for place in range(first, first + self.batch_size):
                epoch, index = divmod(place, self.length)
                if epoch != known:
                    known, order = epoch, epoch_order(self.length, self.seed, epoch)
                batch.append((epoch, int(order[index])))
            yield batch

    def __len__(self) -> int:
        return self.stop - self.start
