"""Learning rates as pure functions of the step."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Callable


def scaled(rate: float, images_per_step: int, reference: int | None = 512) -> float:
    """Scale a rate given for `reference` images per step to another number; None: as it is."""
    return rate if reference is None else rate * images_per_step / reference


def cosine(clock: int, *, base: float, warmup: float, floor: float, warmup_steps: int, steps: int) -> float:
    """Linear from `warmup` to `base`, then half a cosine to `floor`, then `floor`.

    The cosine's clock includes the warm-up: timm's CosineLRScheduler with one cycle and
    warmup_prefix=False.
    """
    if clock < warmup_steps:
        return _warm(clock, base, warmup, warmup_steps)
    if clock >= steps:
        return floor
    return floor + 0.5 * (base - floor) * (1 + math.cos(math.pi * clock / steps))


def linear(clock: int, *, base: float, warmup: float, floor: float, warmup_steps: int, steps: int) -> float:
    """Linear from `warmup` to `base`, then linear to `floor`, then `floor`."""
    if clock < warmup_steps:
        return _warm(clock, base, warmup, warmup_steps)
    if clock >= steps:
        return floor
    return base - (base - floor) * (clock - warmup_steps) / (steps - warmup_steps)


def step_decay(
    clock: int, *, base: float, warmup: float, warmup_steps: int, decay_steps: int, decay_rate: float
) -> float:
    """Linear from `warmup` to `base`, then `base` times `decay_rate` every `decay_steps`.

    timm's StepLRScheduler with warmup_prefix=False.
    """
    if clock < warmup_steps:
        return _warm(clock, base, warmup, warmup_steps)
    return base * decay_rate ** (clock // decay_steps)


def make_schedule(
    name: str,
    *,
    base: float,
    warmup: float,
    floor: float,
    epochs: int,
    warmup_epochs: int,
    steps_per_epoch: int,
    decay_epochs: int = 30,
    decay_rate: float = 0.1,
    per: str = "step",
) -> Callable[[int], float]:
    """Return the function from step 0, 1, 2, ... to its learning rate.

    Where the rate changes with the steps, step 0 uses the rate of clock 0 and step k + 1 that of clock k: timm's
    schedulers set a rate after the step it belongs to. Where it changes with the epochs, all steps of epoch
    0, 1, ... use the rate of that epoch.

    Args:
        name: `cosine`, `linear` or `step`.
        base, warmup, floor: rates, already scaled to the batch.
        epochs: length of the schedule, warm-up included; afterwards the rate stays at `floor`. A longer warm-up
            is not finished.
        per: `step` or `epoch`, when the rate changes.
    """
    length, steps_per_epoch = steps_per_epoch, steps_per_epoch if per == "step" else 1
    shared: dict[str, Any] = dict(base=base, warmup=warmup, warmup_steps=warmup_epochs * steps_per_epoch)
    if name == "step":
        shape: Callable[..., float] = step_decay
        shared.update(decay_steps=decay_epochs * steps_per_epoch, decay_rate=decay_rate)
    else:
        shape = {"cosine": cosine, "linear": linear}[name]
        shared.update(floor=floor, steps=epochs * steps_per_epoch)
    rate = partial(shape, **shared)
    if per == "epoch":
        return lambda step: rate(step // length)
    return lambda step: rate(max(step - 1, 0))


def _warm(clock, base, warmup, warmup_steps):
    return warmup + clock * ((base - warmup) / warmup_steps)
