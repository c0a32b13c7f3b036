"""The images of a run and what is done with them, built from its settings; a part of build.py."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

from ..config.evaluation import evaluation_transform
from ..config.load import Config, model_name
from ..data import sampler
from ..data.classes import match_classes, numbered_classes
from ..data.loaders import Loader, Samples
from ..data.mixup import Mixup
from ..data.pictures import picture_mode
from ..data.sources import open_source
from ..data.split import Part, Split, kept_split
from ..data.transforms import eval_transform, train_transform
from ..utils.errors import UserError
from .checkpoint import checkpoints_in, find_checkpoint

WITHOUT_WORKERS = ("win32", "darwin")  # Windows and macOS


def build_eval(
    config: Config,
    rank: int,
    world: int,
    *,
    classes: Sequence[str] | None = None,
    named: bool | None = None,
    known: str = "train",
    split: Split | None = None,
) -> tuple[Any, Loader, list[str]]:
    """Build (source, loader of this rank's share, what is to be said) of the held-out images.

    Args:
        classes: names of the classes that the model learns or has learnt; the labels become their numbers.
        named: whether those are names; numbers 0, 1, 2 ... are taken to be none where this is not known (None).
        known: what has those classes, as messages call it.
        split: of a folder whose images are shared (`build_split`).

    Raises:
        UserError: for an image of another class.
    """
    data = config.data
    mode = picture_mode(config.model.in_chans)
    source = _open(config, mode, split, train=False)
    notes = list(source.notes)
    if classes is not None and not (isinstance(source, Part) and tuple(source.classes) == tuple(classes)):
        named = tuple(classes) != numbered_classes(len(classes)) if named is None else named
        source, more = match_classes(source, classes, named=named, known=known)
        notes += more
    values = evaluation_transform(config)
    transform = eval_transform(values.pop("img_size"), **values)
    samples = Samples(
        source,
        transform,
        on_bad_image=data.on_bad_image,
        replace=False,
        reduced_decoding=config.test.reduced_decoding,
    )
    batches = sampler.eval_batches(len(source), data.batch_size, rank=rank, world=world)
    return source, Loader(samples, batches, num_workers=worker_count(config)), notes


def _open(config, mode, split, *, train):
    data, shared = config.data, {} if split is None else {"split": split}
    return open_source(data.dataset, data.data_path, train=train, zip_mode=data.zip_mode, mode=mode, **shared)


def build_split(config: Config) -> Split | None:
    """Return how a run shares its images between training and evaluation; None where they lie apart.

    What the run keeps that is resumed holds, unless the settings ask for another split, which `--force` allows.
    """
    share, kept = config.data.val_split, None
    resumed = config.model.resume or ("auto" if config.train.auto_resume else "")
    if share and resumed == "auto":
        folder = run_folder(config)
        kept = kept_split(folder) if checkpoints_in(folder / "checkpoints") else None
    elif share and resumed:
        kept = kept_split(find_checkpoint(resumed).parent.parent)
    if kept is not None and (kept.share, kept.seed) == (share, config.seed):
        return kept
    return Split(share, config.seed) if share else None


def run_folder(config: Config) -> Path:
    """Return OUTPUT/MODEL/TAG, where a run writes everything."""
    return Path(config.output) / model_name(config.model.name) / config.tag


def dataset_name(config: Config) -> str:
    """Return what logs call the data set: a folder of one's own by the folder's name."""
    path = config.data.data_path
    if config.data.dataset != "folder" or not path:
        return config.data.dataset
    name = Path(os.path.abspath(path)).name
    return name if name == path else f"{name} ({path})"


def build_train(
    config: Config, rank: int, world: int, split: Split | None = None
) -> tuple[Any, Callable[[int, int], Loader]]:
    """Build (source, (epoch, batches to skip) -> loader) of this rank's share of the training images."""
    data, aug = config.data, config.aug
    mode = picture_mode(config.model.in_chans)
    source = _open(config, mode, split, train=True)
    transform = train_transform(
        data.img_size,
        mean=data.mean,
        std=data.std,
        interpolation=data.interpolation,
        scale=(aug.scale[0], aug.scale[1]),
        ratio=(aug.ratio[0], aug.ratio[1]),
        hflip=aug.hflip,
        rotation=aug.rotation,
        color_jitter=aug.color_jitter,
        auto_augment=aug.auto_augment,
        reprob=aug.reprob,
        remode=aug.remode,
        recount=aug.recount,
    )
    samples = Samples(
        source,
        transform,
        seed=config.seed,
        on_bad_image=data.on_bad_image,
        reduced_decoding=data.reduced_decoding,
    )

    workers = worker_count(config)

    def load(epoch, skip):
        batches = sampler.train_batches(
            len(source),
            data.batch_size,
            seed=config.seed,
            epoch=epoch,
            rank=rank,
            world=world,
            accumulation=config.train.accumulation_steps,
            skip=skip,
            order=source.order(config.seed, epoch) if hasattr(source, "order") else None,
        )
        return Loader(samples, batches, num_workers=workers)

    return source, load


def names_digest(source: Any) -> str:
    """Return a digest of the names of all images, without their folders, and of their classes, in their order.

    Which images a step sees follows from it and the seed. A data set may move, or be packed otherwise.
    """
    digest = hashlib.sha256()
    for index, label in enumerate(source.labels):
        name = source.name(index).replace(os.sep, "/").rsplit("/", 1)[-1]
        digest.update(f"{name}\0{label}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def worker_count(config: Config) -> int:
    """Return how many processes load images: none where Paddle starts none, in a thread and on some systems."""
    in_main = threading.current_thread() is threading.main_thread()
    return config.data.num_workers if in_main and sys.platform not in WITHOUT_WORKERS else 0


def build_mixup(config: Config, classes: int) -> Mixup | None:
    """Build the recipe's mixup, or None where the settings turn it off.

    Raises:
        UserError: for a batch that cannot be paired.
    """
    aug = config.aug
    if not (aug.mixup > 0 or aug.cutmix > 0 or aug.cutmix_minmax):
        return None
    if config.data.batch_size % 2:
        raise UserError(
            f"data.batch_size is {config.data.batch_size}; mixup pairs images, so it must be even (or "
            "set aug.mixup=0 aug.cutmix=0)"
        )
    return Mixup(
        classes,
        mixup=aug.mixup,
        cutmix=aug.cutmix,
        cutmix_minmax=aug.cutmix_minmax,
        boxes=aug.cutmix_boxes,
        prob=aug.mixup_prob,
        switch_prob=aug.mixup_switch_prob,
        mode=aug.mixup_mode,
        smoothing=config.model.label_smoothing,
    )
