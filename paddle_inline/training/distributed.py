"""Ranks: one process for each device, started by `python -m paddle.distributed.launch`."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import paddle
import paddle.distributed as dist


def start() -> tuple[int, int]:
    """Join the other ranks, if there are any, and return (rank, number of ranks)."""
    if int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1 and not dist.is_initialized():
        dist.init_parallel_env()
    return dist.get_rank(), max(dist.get_world_size(), 1)


def all_reduce_sum(values: Sequence[int], world: int) -> np.ndarray:
    """Return the exact sum over all ranks of whole numbers [n]."""
    return _reduced(np.asarray(values, np.int64), world, dist.ReduceOp.SUM)


def all_reduce_largest(value: int, world: int) -> int:
    """Return the largest of all ranks' whole numbers."""
    return int(_reduced(np.asarray([value], np.int64), world, dist.ReduceOp.MAX)[0])


def all_reduce_real(value: float, world: int) -> float:
    """Return the sum over all ranks of one real number, in float64."""
    return float(_reduced(np.asarray([value], np.float64), world, dist.ReduceOp.SUM)[0])


def _reduced(array, world, operation):
    if world == 1:
        return array
    tensor = paddle.to_tensor(array)
    dist.all_reduce(tensor, op=operation)
    return tensor.numpy()


def any_rank(flag: bool, world: int) -> bool:
    """Whether any rank's flag is set; the same answer on all ranks."""
    return bool(all_reduce_sum([flag], world)[0]) if world > 1 else flag


def share_statistics(model: paddle.nn.Layer, world: int) -> None:
    """Give all ranks the running statistics of rank 0, which are the ones that are saved."""
    for layer in model.sublayers() if world > 1 else ():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            dist.broadcast(layer._mean, src=0)
            dist.broadcast(layer._variance, src=0)


def parallel(model: paddle.nn.Layer, world: int) -> paddle.nn.Layer:
    """Return a layer whose backward pass averages gradients over the ranks; the model itself for one."""
    return paddle.DataParallel(model) if world > 1 else model


def barrier(world: int) -> None:
    """Wait for all ranks."""
    if world > 1:
        dist.barrier()
