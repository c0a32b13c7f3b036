"""The first and last lines of a run's log, and its figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import paddle
from PIL import Image

from ..data.loaders import Loader, collate
from . import plots
from .log import RunLog, duration
from .optim import Group
from .state import Progress


def describe(
    log: RunLog,
    model: paddle.nn.Layer,
    groups: Sequence[Group],
    *,
    dataset: str,
    source: Any,
    held_out: Any,
    world: int,
    images: int,
    amp_level: str,
    tuned: dict[str, str],
) -> None:
    """Log what is trained, on what data and how.

    Args:
        groups: of `decay_groups`.
        source, held_out: the training and held-out images.
        world: number of ranks.
        images: per step.
        amp_level: as it was asked for.
        tuned: the environment variables that `tune_cpu` has set.
    """
    count, device = sum(p.size for p in model.parameters()), paddle.device.get_device()
    log.info(f"{model.name}: {count / 1e6:.3f} M parameters, {world} x {device}")
    log.info(
        f"{dataset}: {len(source)} training and {len(held_out)} held-out images, "
        f"{len(source.classes)} classes, {images} images per step"
    )
    for group in groups:
        log.info(f"weight decay {group.weight_decay:g}: {len(group.names)} tensors, {group.rule}:")
        log.info(f"  {', '.join(name_patterns(group.names))}")
    if amp_level != "O0" and device == "cpu":
        log.info(f"amp.level {amp_level} has no effect on a CPU: training in full precision")
    if tuned and device == "cpu":
        log.info("set for this CPU: " + " ".join(f"{k}={v}" for k, v in tuned.items()))


def name_patterns(names: Iterable[str]) -> list[str]:
    """Return names without their numbers, each pattern once: blocks.0.norm.bias -> blocks.*.norm.bias."""
    return list(dict.fromkeys(re.sub(r"\b\d+\b", "*", name) for name in names))


def show_samples(
    log: RunLog,
    loader: Loader,
    classes: Sequence[str],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    count: int = 16,
) -> None:
    """Write samples.png, and the same to VisualDL: the first augmented training images with their labels.

    Args:
        loader: of images normalised with `mean` and `std` of the channels.
        classes: their names.
    """
    path = log.folder / "samples.png"
    pixels, labels, _ = collate([loader.samples.load(key) for key in loader.batches[0][:count]])
    try:
        titles = [str(classes[label]) for label in labels]
        plots.image_grid(plots.denormalise(pixels, mean, std), titles, path)
    except ImportError as error:
        log.info(f"no sample images: {error}")
    else:
        log.image("augmented images", np.asarray(Image.open(path).convert("RGB")), 0)


def finish(
    log: RunLog,
    model: paddle.nn.Layer,
    progress: Progress,
    loader: Loader,
    classes: Sequence[str],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seconds: float,
    count: int = 32,
) -> None:
    """Write a run's figures and its last lines.

    Args:
        loader: of held-out images, the first of which are shown with the model's predictions.
        classes: their names.
        seconds: that the run took.
    """
    try:
        plots.learning_curves(log.folder, log.folder / "curves.png")
        images, labels = (part[:count] for part in next(iter(loader)))
        path = log.folder / "predictions.png"
        plots.predictions(model, images, labels, classes, path, mean=mean, std=std)
    except ImportError as error:
        log.info(f"no figures: {error}")
    best = f"best top-1 {progress.best_top1:.2f}% (epoch {progress.best_epoch})"
    if progress.best_ema_top1 >= 0:
        best += f", averaged {progress.best_ema_top1:.2f}% (epoch {progress.best_ema_epoch})"
    log.info(f"{best}; {duration(seconds)}; everything is in {log.folder}")
