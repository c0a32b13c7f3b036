"""Learning rates as pure functions of the update."""

from __future__ import annotations

import math
from functools import partial
from typing import Callable


def scaled(rate: float, images_per_update: int, reference: int | None = 512) -> float:
    """A rate given for `reference` images an update, for another number; None: as it is."""
    return rate if reference is None else rate * images_per_update / reference


def cosine(clock, *, base, warmup, floor, warmup_updates, updates):
    """Linear from `warmup` to `base`, then half a cosine to `floor`, then `floor`.

    The cosine's clock includes the warm-up: timm's CosineLRScheduler with one cycle and
    warmup_prefix=False.
    """
    if clock < warmup_updates:
        return _warm(clock, base, warmup, warmup_updates)
    if clock >= updates:
        return floor
    return floor + 0.5 * (base - floor) * (1 + math.cos(math.pi * clock / updates))


def linear(clock, *, base, warmup, floor, warmup_updates, updates):
    """Linear from `warmup` to `base`, then linear to `floor`, then `floor`."""
    if clock < warmup_updates:
        return _warm(clock, base, warmup, warmup_updates)
    if clock >= updates:
        return floor
    return base - (base - floor) * (clock - warmup_updates) / (updates - warmup_updates)


def step(clock, *, base, warmup, warmup_updates, decay_updates, decay_rate):
    """Linear from `warmup` to `base`, then `base` times `decay_rate` every `decay_updates`.

    timm's StepLRScheduler with warmup_prefix=False.
    """
    if clock < warmup_updates:
        return _warm(clock, base, warmup, warmup_updates)
    return base * decay_rate ** (clock // decay_updates)


def make_schedule(
    name: str,
    *,
    base: float,
    warmup: float,
    floor: float,
    epochs: int,
    warmup_epochs: int,
    updates_per_epoch: int,
    decay_epochs: int = 30,
    decay_rate: float = 0.1,
) -> Callable[[int], float]:
    """The rate of update 0, 1, 2, ... as the recipe has it.

    Update 0 uses the rate of clock 0 and update k + 1 that of clock k: the reference sets a rate
    after the update it belongs to.

    Args:
        name: `cosine`, `linear` or `step`.
        base, warmup, floor: rates, already scaled to the batch.
        epochs: length of the schedule, warm-up included; afterwards the rate stays at `floor`.
    """
    shared = dict(base=base, warmup=warmup, warmup_updates=warmup_epochs * updates_per_epoch)
    if name == "step":
        rate = partial(step, **shared, decay_updates=decay_epochs * updates_per_epoch, decay_rate=decay_rate)
    else:
        shape = {"cosine": cosine, "linear": linear}[name]
        rate = partial(shape, **shared, floor=floor, updates=epochs * updates_per_epoch)
    return lambda update: rate(max(update - 1, 0))


def _warm(clock, base, warmup, warmup_updates):
    return warmup + clock * ((base - warmup) / warmup_updates)
