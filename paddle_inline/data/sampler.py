"""Which images a rank sees, and when: pure functions of (seed, epoch, rank)."""

from __future__ import annotations

import numpy as np

from ..utils.errors import UserError


def epoch_order(length: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch: a permutation of range(length) that `seed` and `epoch` decide."""
    return np.random.RandomState(np.random.SeedSequence((seed, epoch)).generate_state(4)).permutation(length)


def batches_per_epoch(length: int, batch_size: int, world: int = 1, accumulation: int = 1) -> int:
    """How many batches a rank takes from `length` images: whole updates only, the rest is left out.

    Raises:
        ValueError: if there are fewer images than one update takes.
    """
    update = batch_size * world * accumulation
    if length < update:
        raise UserError(
            f"{length} training images are fewer than one update takes: batch_size {batch_size} "
            f"x {world} ranks x {accumulation} accumulation steps = {update}; lower one of them"
        )
    return length // update * accumulation


def train_batches(
    length, batch_size, *, seed, epoch, rank=0, world=1, accumulation=1, skip=0, order=None
) -> list[list[tuple[int, int]]]:
    """A rank's training batches of an epoch, each a list of (epoch, image) pairs.

    Batch k of all ranks together is the next batch_size * world images of the epoch's order, so
    that n ranks of batch b see in one step what one rank of batch n * b sees.

    Args:
        skip: batches already done, when an epoch is taken up in its middle.
        order: of the epoch's images, in place of `epoch_order`'s.
    """
    count = batches_per_epoch(length, batch_size, world, accumulation)
    order = epoch_order(length, seed, epoch) if order is None else order
    mine = order[: count * world * batch_size].reshape(count, world, batch_size)[skip:, rank]
    return [[(epoch, int(index)) for index in batch] for batch in mine]


def eval_batches(length, batch_size, *, rank=0, world=1) -> list[list[tuple[int, int]]]:
    """A rank's evaluation batches, each a list of (0, image) pairs; the last one may be short.

    Over all ranks every image occurs exactly once: nothing is repeated to make ranks equal, and
    so nothing has to be taken out again.
    """
    mine = range(rank, length, world)
    return [[(0, i) for i in mine[k : k + batch_size]] for k in range(0, len(mine), batch_size)]
