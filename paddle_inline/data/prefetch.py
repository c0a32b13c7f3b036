"""Batches that are on their way to the device before they are asked for."""

from __future__ import annotations

import numbers
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import paddle

from ..utils.errors import UserError
from .loaders import Loader

UNFINISHED = 16  # batches whose copies the device has not come to; then the host waits for the oldest

Batch = tuple[paddle.Tensor, ...]


class Prefetch:
    """A loader whose batches a thread moves to a device ahead of time, in their order.

    To a GPU they go through pinned memory, from which the device copies them by itself, in 8 bits; it normalises them
    there. On a CPU the same iterator hands them on. What a batch raises is raised when it is its turn.

    Args:
        loader: of batches on the host (`Loader(..., host=True)`).
        ahead: batches that are moved before they are asked for, at least 1.
        device: `gpu:0`, ...; `cpu`.

    Raises:
        UserError: `ahead` is no whole number from 1.

    Attributes:
        bad: how many images could not be read, in the batches handed out so far.
    """

    def __init__(self, loader: Loader, ahead: int = 2, device: str = "cpu") -> None:
        if not isinstance(ahead, (int, numbers.Integral)) or ahead < 1:
            raise UserError(
                f"ahead is {ahead!r}; give a whole number from 1, or take the loader without Prefetch"
            )
        self.loader, self.ahead, self.device = loader, ahead, device
        self.samples, self.batches = loader.samples, loader.batches
        self.handed_out = 0
        self.unfinished: deque[tuple[Any, Batch]] = deque()  # (event behind a copy, what it copies from)

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def bad(self) -> int:
        return self.loader.bad_of(self.handed_out)

    def __iter__(self) -> Iterator[tuple[paddle.Tensor, paddle.Tensor]]:
        self.handed_out = 0
        batches, ready, done = self.loader.unfinished(), deque[Future](), False
        with ThreadPoolExecutor(1, "prefetch") as thread:
            try:
                while True:
                    while not done and len(ready) <= self.ahead:
                        try:
                            ready.append(thread.submit(self._move, next(batches)))
                        except StopIteration:
                            done = True
                        except Exception as error:
                            failed: Future = Future()
                            failed.set_exception(error)
                            ready.append(failed)
                            done = True
                    if not ready:
                        return
                    batch = ready.popleft().result()
                    self.handed_out += 1
                    yield self.loader.finish(batch)
            finally:
                batches.close()

    def _move(self, batch):
        if self.device == "cpu":
            return batch
        while self.unfinished and (self.unfinished[0][0].query() or len(self.unfinished) >= UNFINISHED):
            event, _ = self.unfinished.popleft()
            event.synchronize()
        place = paddle.CUDAPlace(int(self.device.partition(":")[2] or 0))
        pinned = tuple(each.pin_memory() for each in batch)
        moved = tuple(each._copy_to(place, False) for each in pinned)
        event = paddle.device.cuda.Event()
        event.record(paddle.device.cuda.current_stream(place))
        self.unfinished.append(
            (event, pinned)
        )  # pinned memory may not be used again before it has been copied
        return moved
