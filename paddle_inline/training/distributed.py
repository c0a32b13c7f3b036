"""Ranks: one process for each device, started by `python -m paddle.distributed.launch`."""

from __future__ import annotations

import os

import numpy as np
import paddle
import paddle.distributed as dist


def start() -> tuple[int, int]:
    """Joins the other ranks, if there are any, and returns (rank, number of ranks)."""
    if int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1 and not dist.is_initialized():
        dist.init_parallel_env()
    return dist.get_rank(), max(dist.get_world_size(), 1)


def all_reduce_sum(values, world: int) -> np.ndarray:
    """The sum over all ranks of whole numbers [n], exact."""
    tensor = paddle.to_tensor(np.asarray(values, np.int64))
    if world > 1:
        dist.all_reduce(tensor)
    return tensor.numpy()


def any_rank(wish: bool, world: int) -> bool:
    """Whether any rank options it: all ranks do, or none."""
    return bool(all_reduce_sum([wish], world)[0]) if world > 1 else wish


def share_statistics(model, world: int) -> None:
    """Gives all ranks the running statistics of rank 0, which are the ones that are saved."""
    for layer in model.sublayers() if world > 1 else ():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            dist.broadcast(layer._mean, src=0)
            dist.broadcast(layer._variance, src=0)


def parallel(model, world: int):
    """A layer whose backward pass averages gradients over the ranks; the model itself for one."""
    return paddle.DataParallel(model) if world > 1 else model


def barrier(world: int) -> None:
    """Waits for all ranks."""
    if world > 1:
        dist.barrier()
