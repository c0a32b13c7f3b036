"""Which images a rank sees, and when: pure functions of (seed, epoch, rank)."""

from __future__ import annotations

import numpy as np

from ..utils.errors import UserError


def epoch_order(length: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch: a permutation of range(length) that `seed` and `epoch` decide."""
    return np.random.RandomState(np.random.SeedSequence((seed, epoch)).generate_state(4)).permutation(length)


def batches_per_epoch(length: int, batch_size: int, world: int = 1, accumulation: int = 1) -> int:
    """Return how many batches a rank takes from `length` images: whole steps only, the rest is left out.

    Raises:
        UserError: if there are fewer images than one step takes.
    """
    step = batch_size * world * accumulation
    if length < step:
        if length >= world * accumulation:
            way = f"data.batch_size to {length // (world * accumulation)} or less, or one of the others"
        elif length >= world:
            way = f"train.accumulation_steps to {length // world} or less, with data.batch_size 1"
        else:
            way = f"the number of ranks to {length} or less" if length else "nothing: there is no image"
        raise UserError(
            f"{length} training images are fewer than one step takes: batch_size {batch_size} "
            f"x {world} ranks x {accumulation} accumulation steps = {step}; lower {way}"
        )
    return length // step * accumulation


def train_batches(
    length: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    accumulation: int = 1,
    skip: int = 0,
    order: np.ndarray | None = None,
) -> list[list[tuple[int, int]]]:
    """Return a rank's training batches of an epoch, each a list of (epoch, image) pairs.

    Batch k of all ranks together is the next batch_size * world images of the epoch's order, so
    that n ranks of batch b see in one step what one rank of batch n * b sees.

    Args:
        skip: batches already done, when an epoch is resumed in its middle.
        order: of the epoch's images, in place of `epoch_order`'s.
    """
    count = batches_per_epoch(length, batch_size, world, accumulation)
    order = epoch_order(length, seed, epoch) if order is None else order
    mine = order[: count * world * batch_size].reshape(count, world, batch_size)[skip:, rank]
    return [[(epoch, int(index)) for index in batch] for batch in mine]


def eval_batches(
    length: int, batch_size: int, *, rank: int = 0, world: int = 1
) -> list[list[tuple[int, int]]]:
    """Return a rank's evaluation batches, each a list of (0, image) pairs; the last one may be short.

    Over all ranks every image occurs exactly once: nothing is repeated to make ranks equal, and
    so nothing has to be taken out again.
    """
    mine = range(rank, length, world)
    return [[(0, i) for i in mine[k : k + batch_size]] for k in range(0, len(mine), batch_size)]
