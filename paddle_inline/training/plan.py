"""What a run will do, in words, before it begins."""

from __future__ import annotations

from typing import Callable

from ..config.load import Config
from ..config.schema import AmpConfig
from ..utils.errors import counted
from .build_data import worker_count
from .ema import initial_share, total_decay
from .schedule import scaled


def plan(config: Config, schedule: Callable[[int], float], images: int, steps_per_epoch: int) -> list[str]:
    """Return lines on the length, the learning rates and the effects of a step.

    Args:
        config: the settings.
        schedule: step -> learning rate, as it is applied.
        images: per step, over all devices and accumulated batches.
        steps_per_epoch: optimizer steps.
    """
    train, ema = config.train, config.ema
    epochs = train.epochs + train.cooldown_epochs
    steps = steps_per_epoch * epochs
    length = counted(train.epochs, "epoch")
    if train.cooldown_epochs:
        length = (
            f"{epochs} epochs, {train.epochs} (train.epochs) and {train.cooldown_epochs} of cool-down at the last rate "
            "(train.cooldown_epochs)"
        )
    warm = steps_per_epoch * train.warmup_epochs + (train.lr_per == "step")  # the first step at the full rate
    text = f"learning rate: {schedule(0):.3g} at first"
    if train.warmup_epochs and warm < steps - 1:
        text += f", {schedule(warm):.3g} after the warm-up of {counted(train.warmup_epochs, 'epoch')}"
    text += (
        f", {schedule(steps - 1):.3g} in the end ({train.lr_scheduler.name}, changed every {train.lr_per})"
    )
    if train.lr_batch is not None:
        text += (
            f"; train.base_lr {train.base_lr:g} is for {counted(train.lr_batch, 'image')} a step (train.lr_batch), "
            f"here there are {images}"
        )
    decay = f"weight decay {train.weight_decay:g}" if train.weight_decay else "no weight decay"
    clip = f"gradients cut to a norm of {train.clip_grad:g}" if train.clip_grad else "gradients are not cut"
    average = "no average of the weights is kept"
    if ema.decay is not None:
        rate = total_decay(ema.decay, images, ema.lr_batch)
        average = (
            f"an average of the weights (EMA) keeps {rate:.6g} of itself a step{', at most' * ema.warmup}"
        )
    return [
        f"length: {length}, of {counted(steps_per_epoch, 'step')}: {counted(steps, 'step')}",
        text,
        f"every step: {clip}, {train.optimizer.name} with {decay}; {average}",
    ]


def notes_on_limits(config: Config, images: int, steps_per_epoch: int) -> list[str]:
    """Return lines on what a run of so many images a step and steps an epoch does not do as its settings say."""
    train, notes = config.train, []
    if worker_count(config) != config.data.num_workers:
        notes.append(
            f"data.num_workers is {config.data.num_workers}; a run in a thread, or on Windows or macOS, loads its "
            "images itself, for Paddle starts no workers there"
        )
    reached = steps_per_epoch * train.warmup_epochs + (
        train.lr_per == "step"
    )  # the first step at the full rate
    unfinished = train.warmup_epochs > 0 and reached >= steps_per_epoch * train.epochs
    if unfinished:
        finished = reached < steps_per_epoch * (train.epochs + train.cooldown_epochs)
        notes.append(
            f"the warm-up of {counted(train.warmup_epochs, 'epoch')} (train.warmup_epochs) is not finished in the "
            f"{train.epochs} of train.epochs: the learning rate "
            + ("reaches train.base_lr in the cool-down alone" if finished else "stays below train.base_lr")
        )
    base = scaled(train.base_lr, images, train.lr_batch)
    floor = scaled(train.min_lr, images, train.lr_batch if train.lr_scaled == "all" else None)
    if train.lr_scheduler.name == "cosine" and floor > base and not unfinished:
        notes.append(
            f"train.min_lr is {floor:g} and train.base_lr {base:g} at {counted(images, 'image')} a step: the learning "
            "rate rises to the end"
        )
    if train.lr_scheduler.name == "linear":
        notes.append(
            "the linear schedule ends at 1 % of the base rate, as in the authors' programs; train.min_lr is not used"
        )
    if config.amp.level == "O0" and config.amp.dtype != AmpConfig().dtype:
        notes.append(
            f"amp.dtype is {config.amp.dtype} and amp.level O0, so that the run is in float32; --amp turns mixed "
            "precision on"
        )
    if config.ema.decay is not None:
        decay = total_decay(config.ema.decay, images, config.ema.lr_batch)
        steps = steps_per_epoch * (train.epochs + train.cooldown_epochs)
        share = initial_share(decay, steps, warmup=config.ema.warmup)
        if share > 0.1:
            notes.append(
                f"ema.decay is {decay:g} a step: after this run's {counted(steps, 'step')} {100 * share:.0f} % of the "
                "averaged weights are still those of the beginning; ema.warmup=true lets the decay grow with the steps"
            )
    return notes
