"""Ranks: one process for each device, started by `python -m paddle.distributed.launch`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import paddle
import paddle.distributed as dist

from ..utils.errors import UserError


def start() -> tuple[int, int]:
    """Join the other ranks, if there are any, and return (rank, number of ranks)."""
    if int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1 and not dist.is_initialized():
        dist.init_parallel_env()
    return dist.get_rank(), max(dist.get_world_size(), 1)


def launch(gpus: str, program: Sequence[str], arguments: Sequence[str]) -> NoReturn:
    """Let Paddle's launcher take this process's place: one process of a program for each GPU.

    Args:
        gpus: their numbers, with commas between them.
        program: a Python file, or the words of another command that runs the program.
        arguments: its command line; `--gpus` is left out of it.

    Raises:
        UserError: this machine has no such GPUs. (The launcher alone ends in a traceback then.)
    """
    check_gpus(gpus)
    own = [
        text
        for before, text in zip(["", *arguments], arguments)
        if before != "--gpus" and text != "--gpus" and not text.startswith("--gpus=")
    ]
    command = [sys.executable, "-m", "paddle.distributed.launch", "--gpus", gpus, *program, *own]
    os.execv(sys.executable, command)


def check_gpus(gpus: str) -> None:
    """Refuse GPUs that this machine, or this build of Paddle, has not got.

    Raises:
        UserError: with how many there are, and the way out.
    """
    numbers = gpus.split(",")
    if not all(number.isascii() and number.isdecimal() for number in numbers):
        raise UserError(f"--gpus is {gpus!r}; give the numbers of GPUs, with commas between them: --gpus 0,1")
    if not paddle.device.is_compiled_with_cuda():
        raise UserError(
            f"--gpus {gpus}: this Paddle is built for CPUs alone. Install paddlepaddle-gpu, or leave --gpus out to "
            "train on the CPU (several processes: python -m paddle.distributed.launch --nproc_per_node 2)"
        )
    there = paddle.device.cuda.device_count()
    absent = [number for number in numbers if int(number) >= there]
    if absent:
        has = f"GPUs 0 to {there - 1}" if there > 1 else "GPU 0 alone" if there else "none"
        raise UserError(f"--gpus {gpus}: there is no GPU {', '.join(absent)} here; Paddle sees {has}")


def all_reduce_sum(values: Sequence[int], world: int) -> np.ndarray:
    """Return the exact sum over all ranks of whole numbers [n]."""
    return _reduced(np.asarray(values, np.int64), world, dist.ReduceOp.SUM)


def all_reduce_largest(value: int, world: int) -> int:
    """Return the largest of all ranks' whole numbers."""
    return int(_reduced(np.asarray([value], np.int64), world, dist.ReduceOp.MAX)[0])


def all_reduce_real(value: float, world: int) -> float:
    """Return the sum over all ranks of one real number, in float64."""
    return float(_reduced(np.asarray([value], np.float64), world, dist.ReduceOp.SUM)[0])


def all_reduce_array(values: np.ndarray, world: int, *, largest: bool = False) -> np.ndarray:
    """Return the sum over all ranks, or the largest, of each number of an array."""
    return _reduced(values, world, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM)


def share_weights(model: paddle.nn.Layer, world: int) -> None:
    """Give all ranks the weights and buffers of rank 0."""
    for tensor in model.state_dict().values() if world > 1 else ():
        dist.broadcast(tensor, src=0)


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
