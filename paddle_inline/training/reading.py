"""When the host reads what the device knows of its steps, and when ranks ask each other whether to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import paddle

from .callbacks import Callback, StepResult
from .distributed import all_reduce_largest

if TYPE_CHECKING:
    from .loop import FitOptions

STOP_SECONDS = 2.0  # in which all ranks know that one is asked to stop


class _Unread(NamedTuple):
    step: int
    result: StepResult
    numbers: paddle.Tensor  # [3]: loss, norm, whether the step was taken


class StepGuard:
    """Counts on the device the steps in a row that were not finite, and remembers what nobody has read yet.

    From the `most`-th bad step on no step is taken any more, whatever its gradients: until the host reads of it and
    ends the run, the weights stay those of which the bad losses are.

    Args:
        most: bad steps in a row that end a run.
        scaled: a loss scaler is at work, which meets gradients that are not finite now and then, and lowers its
            scale; the loss alone tells then.
    """

    def __init__(self, most: int, *, scaled: bool = False) -> None:
        self.most, self.scaled, self.bad_steps = most, scaled, 0
        self.row = paddle.zeros([1], "int32")  # bad steps in a row, as the device counts them
        self.unread: list[_Unread] = []

    @property
    def go(self) -> paddle.Tensor:
        """Whether steps are still taken, [1] bool."""
        return self.row < self.most

    @paddle.no_grad()
    def count(self, step: int, result: StepResult, taken: paddle.Tensor) -> None:
        """Count a step, and keep its numbers for the next reading."""
        loss, norm = on_device(result.unread[0]), on_device(result.unread[1])
        good = loss.isfinite() if self.scaled else loss.isfinite().logical_and(norm.isfinite())
        row = paddle.where(good, paddle.zeros([1], "int32"), self.row + 1)
        self.row = paddle.where(self.go, row, self.row)
        numbers = paddle.concat([loss, norm, on_device(taken)])
        self.unread.append(_Unread(step, result, numbers))

    def read(self) -> Iterator[tuple[int, StepResult, bool, bool]]:
        """Wait for the device; yield (step, result, whether it was good, whether it was taken) of unread steps."""
        unread, self.unread = self.unread, []
        if not unread:
            return
        for one, (loss, norm, taken) in zip(
            unread, paddle.stack([u.numbers for u in unread]).numpy().tolist()
        ):
            one.result.read(loss, norm)
            good = math.isfinite(loss) and (self.scaled or math.isfinite(norm))
            self.bad_steps = 0 if good else self.bad_steps + 1
            yield one.step, one.result, good, bool(taken)


def on_device(value: Any) -> paddle.Tensor:
    """Return a number or a tensor of one as a tensor [1] of float64."""
    if isinstance(value, paddle.Tensor):
        return value.astype("float64").reshape([1])
    return paddle.full([1], value, "float64")


class Stopping:
    """Whether a callback of any rank asks to stop: the same answer on all ranks, at the same step.

    One rank asks its callbacks at every step. Several ranks ask each other, which is a wait for the device, after so
    many steps as take `STOP_SECONDS`, but not between two readings where `print_freq` steps are that fast. How many
    that are they agree on when they ask.
    """

    def __init__(self, callbacks: Sequence[Callback], options: FitOptions) -> None:
        self.callbacks, self.world, self.print_freq = callbacks, options.world, options.print_freq
        self.asked, self.every, self.wanted = 0, 1, False
        self.since = time.perf_counter()

    def requested(self, step: int, *, surely: bool = False) -> bool:
        """Return whether to stop after this step.

        Args:
            step: finished steps of the run.
            surely: ask the other ranks now.
        """
        self.wanted = any([callback.should_stop() for callback in self.callbacks]) or self.wanted
        if self.world == 1:
            return self.wanted
        if not (surely or step % self.print_freq == 0 or step - self.asked >= self.every):
            return False
        seconds = (time.perf_counter() - self.since) / max(step - self.asked, 1)
        # both in one operation: the flag above all numbers of microseconds
        flag = 1 << 40
        largest = all_reduce_largest(flag * self.wanted + min(int(seconds * 1e6), flag - 1), self.world)
        slowest = largest % flag / 1e6
        self.every = max(int(STOP_SECONDS / slowest), 1) if slowest else self.print_freq
        if slowest * self.print_freq <= 2 * STOP_SECONDS:
            self.every = self.print_freq
        self.asked, self.since = step, time.perf_counter()
        self.wanted = largest >= flag
        return self.wanted
