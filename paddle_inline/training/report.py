"""What a run says of itself at its beginning and its end, in words and pictures."""

from __future__ import annotations

import re

import numpy as np
import paddle
from PIL import Image

from ..data.loaders import collate
from . import plots
from .log import duration


def describe(log, model, groups, *, dataset, source, held_out, world, images, amp_level, tuned):
    """The first lines of a run: what is trained, on what, how.

    Args:
        groups: of `decay_groups`.
        images: an update's.
        amp_level: as it was asked for.
        tuned: what `tune_cpu` has set.
    """
    count, device = sum(p.size for p in model.parameters()), paddle.device.get_device()
    log.say(f"{model.name}: {count / 1e6:.3f} M parameters, {world} x {device}")
    log.say(
        f"{dataset}: {len(source)} training and {len(held_out)} held-out images, "
        f"{len(source.classes)} classes, {images} images an update"
    )
    for group in groups:
        log.say(f"weight decay {group.weight_decay:g}: {len(group.names)} tensors, {group.rule}:")
        log.say(f"  {', '.join(patterns(group.names))}")
    if amp_level != "O0" and device == "cpu":
        log.say(f"amp.level {amp_level} has no effect on a CPU: training in full precision")
    if tuned and device == "cpu":
        log.say("set for this CPU: " + " ".join(f"{k}={v}" for k, v in tuned.items()))


def patterns(names):
    """Names with their numbers left open, each pattern once: blocks.0.norm.bias -> blocks.*.norm.bias."""
    return list(dict.fromkeys(re.sub(r"\b\d+\b", "*", name) for name in names))


def show_samples(log, loader, classes, *, mean, std, count=16) -> None:
    """samples.png, and the same in VisualDL: the first training images as the model gets them, with labels.

    Args:
        loader: a `Loader` of images normalised with `mean` and `std` of the channels.
        classes: their names.
    """
    path = log.folder / "samples.png"
    pixels, labels, _ = collate([loader.samples.load(key) for key in loader.batches[0][:count]])
    try:
        titles = [str(classes[label]) for label in labels]
        plots.image_grid(plots.in_colour(pixels, mean, std), titles, path)
    except ImportError as error:
        log.say(f"no sample images: {error}")
    else:
        log.picture("augmented images", np.asarray(Image.open(path).convert("RGB")), 0)


def finish(log, model, progress, loader, classes, *, mean, std, seconds, count=32):
    """The pictures and last lines of a run; on rank 0.

    Args:
        loader: of held-out images, the first of which are shown with the model's guesses.
        classes: their names.
    """
    try:
        plots.learning_curves(log.folder, log.folder / "curves.png")
        images, labels = (part[:count] for part in next(iter(loader)))
        path = log.folder / "predictions.png"
        plots.predictions(model, images, labels, classes, path, mean=mean, std=std)
    except ImportError as error:
        log.say(f"no pictures: {error}")
    best = f"best top-1 {progress.best_top1:.2f}% (epoch {progress.best_epoch})"
    if progress.best_ema_top1 >= 0:
        best += f", averaged {progress.best_ema_top1:.2f}% (epoch {progress.best_ema_epoch})"
    log.say(f"{best}; {duration(seconds)}; everything is in {log.folder}")
