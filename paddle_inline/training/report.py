"""The first and last lines of a run's log, and its figures."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import paddle
from PIL import Image

from ..data.loaders import Loader, collate
from ..utils.errors import short
from . import plots
from .log import RunLog, duration
from .state import Progress

if TYPE_CHECKING:
    from .build import Run


def describe(log: RunLog, run: Run, *, dataset: str, amp_level: str, tuned: dict[str, str]) -> None:
    """Log what is trained, on what data and how.

    Args:
        dataset: its name.
        amp_level: as it was asked for.
        tuned: the environment variables that `tune_cpu` has set.
    """
    model, device = run.components.model, paddle.device.get_device()
    count = sum(p.size for p in model.parameters())
    log.info(f"{model.name}: {count / 1e6:.3f} M parameters, {run.options.world} x {device}")
    log.info(
        f"{dataset}: {len(run.train_source)} training and {len(run.eval_source)} held-out images, "
        f"{len(run.train_source.classes)} classes, {run.images_per_step} images per step"
    )
    for line in run.plan:
        log.info(line)
    for group in run.groups:
        log.info(f"weight decay {group.weight_decay:g}: {len(group.names)} tensors, {group.rule}:")
        log.info(f"  {', '.join(name_patterns(group.names))}")
    if amp_level != "O0" and device == "cpu":
        log.info(f"amp.level {amp_level} has no effect on a CPU: training in full precision")
    if tuned and device == "cpu":
        log.info("set for this CPU: " + " ".join(f"{k}={v}" for k, v in tuned.items()))


def name_patterns(names: Iterable[str]) -> list[str]:
    """Return names without their numbers, each pattern once: blocks.0.norm.bias -> blocks.*.norm.bias."""
    return list(dict.fromkeys(re.sub(r"\b\d+\b", "*", name) for name in names))


@contextlib.contextmanager
def never_ends_a_run(log: RunLog, what: str) -> Iterator[None]:
    """Make any exception of drawing inside a line of the log, `what` at its beginning."""
    try:
        yield
    except Exception as error:
        log.info(f"{what}: {short(f'{type(error).__name__}: {error}', 300)}")


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
    with never_ends_a_run(log, "no sample images"):
        pixels, labels, _ = collate([loader.samples.load(key) for key in loader.batches[0][:count]])
        titles = [plots.class_name(classes, label) for label in labels]
        plots.image_grid(plots.denormalise(pixels, mean, std), titles, path)
        log.image("augmented images", np.asarray(Image.open(path).convert("RGB")), 0)


def finish(
    log: RunLog,
    run: Run,
    progress: Progress,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seconds: float,
    count: int = 32,
) -> None:
    """Write a run's figures and its last lines.

    Args:
        mean, std: of the channels, with which images are normalised.
        seconds: that the run took.
        count: held-out images shown with the model's predictions.
    """
    with never_ends_a_run(log, "no curves.png"):
        plots.learning_curves(log.folder, log.folder / "curves.png")
    with never_ends_a_run(log, "no predictions.png"):
        images, labels = (part[:count] for part in next(iter(run.eval_loader)))
        path = log.folder / "predictions.png"
        classes = run.eval_source.classes
        plots.predictions(run.components.model, images, labels, classes, path, mean=mean, std=std)
    best = f"best top-1 {progress.best_top1:.2f}% (epoch {progress.best_epoch})"
    if progress.best_ema_top1 >= 0:
        best += f", averaged {progress.best_ema_top1:.2f}% (epoch {progress.best_ema_epoch})"
    log.info(f"{best}; {duration(seconds)}; everything is in {log.folder}")
