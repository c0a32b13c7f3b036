"""What a training run does besides training: `fit` tells callbacks what has happened, and they ask it to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import paddle

from ..utils.errors import counted
from ..utils.timing import peak_memory
from .log import RunLog, duration
from .state import Progress, when

if TYPE_CHECKING:
    from .evaluate import Accuracy
    from .loop import FitOptions


class StepResult:
    """One optimizer step, as callbacks receive it.

    Loss and norm are on the device until `fit` reads them, every `print_freq` steps: who asks earlier waits for it.

    Args:
        loss: mean over the step's batches of this rank; a number, or a tensor of one.
        grad_norm: global norm of the gradients before clipping; likewise.
        rate: learning rate.
        images: of all ranks.
        waited: seconds for the data loader.
    """

    def __init__(self, loss: Any, grad_norm: Any, rate: float, images: int, waited: float) -> None:
        self.unread, self.rate, self.images, self.waited = (loss, grad_norm), rate, images, waited

    def read(self, loss: float, grad_norm: float) -> None:
        """Know the numbers from now on."""
        self.unread = loss, grad_norm

    @property
    def loss(self) -> float:
        """The mean loss over the step's batches of this rank."""
        return self._number(0)

    @property
    def grad_norm(self) -> float:
        """The global norm of the gradients before clipping."""
        return self._number(1)

    def _number(self, which):
        value = self.unread[which]
        return value.item() if isinstance(value, paddle.Tensor) else value


class Callback:
    """What `fit` calls, in this order; a callback overrides what it needs.

    `fit` calls every rank's callbacks: one that writes files is given to rank 0 alone. `progress` is the run's
    own and not to be changed.
    """

    def on_epoch_start(self, progress: Progress) -> None:
        """An epoch begins, or is resumed where `progress.step` is."""

    def on_bad_step(self, progress: Progress, step: StepResult) -> None:
        """A loss or gradient is not finite; the weights were left as they are. `progress.step` is this step.

        Told when the device is read: every `print_freq` steps, and before a checkpoint or an evaluation.
        """

    def on_skipped_step(self, progress: Progress, step: StepResult) -> None:
        """A loss scaler has left out a step whose gradients were not finite; told as `on_bad_step` is."""

    def on_step_end(self, progress: Progress, step: StepResult) -> None:
        """A step is done, `progress.step` in all."""

    def on_evaluation(
        self, progress: Progress, accuracy: Accuracy, averaged: Accuracy | None, improved: tuple[str, ...]
    ) -> None:
        """An epoch has ended with these accuracies.

        Args:
            averaged: of the averaged weights, where an average is kept.
            improved: which are the best so far: "model", "ema".
        """

    def on_checkpoint(self, progress: Progress) -> None:
        """A checkpoint is due."""

    def should_stop(self) -> bool:
        """Whether the run is to end after the present step, with a checkpoint; asked after every step."""
        return False

    def on_stop(self, progress: Progress) -> None:
        """The run ends before its last epoch, as it was asked to; its checkpoint is saved."""

    def on_end(self) -> None:
        """`fit` ends, by an exception too."""


class StopOnRequest(Callback):
    """Ends a run on SIGTERM, SIGINT (Ctrl-C) or SIGHUP (the terminal is gone), or after so many epochs.

    Signals are heeded inside `with`, where this is the main thread; elsewhere a run has no handlers. A signal that the
    process ignores, as SIGHUP under nohup, stays ignored. A second SIGINT interrupts at once. The handlers that were
    there before are put back.

    Args:
        progress: the run's, as it begins or is resumed.
        after: epochs from there on after which the run is to end for now; None: none.

    Attributes:
        signal: the number of the signal that has come; None: none.
    """

    def __init__(self, progress: Progress, after: int | None = None) -> None:
        self.progress = progress
        self.signal: int | None = None
        self.last = None if after is None else progress.epoch + after
        self.before: dict[int, Any] = {}

    def __enter__(self) -> StopOnRequest:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGINT", "SIGHUP"):
                number = getattr(signal, name, None)  # Windows has no SIGHUP
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *error: object) -> None:
        for number in list(self.before):
            self._put_back(number)

    def _request(self, number, frame):
        self.signal = number
        if number == signal.SIGINT:
            self._put_back(number)

    def _put_back(self, number):
        before = self.before.pop(number, None)
        signal.signal(number, signal.SIG_DFL if before is None else before)  # None: not set from Python

    def should_stop(self) -> bool:
        return self.signal is not None or (self.last is not None and self.progress.epoch >= self.last)


@contextlib.contextmanager
def loader_handler_put_back() -> Iterator[None]:
    """Put back the handler of SIGCHLD that Paddle's loader of several processes sets once for a program."""
    from paddle.io import multiprocess_utils as theirs

    known = hasattr(theirs, "_SIGCHLD_handler_set") and hasattr(signal, "SIGCHLD")
    if not known or theirs._SIGCHLD_handler_set or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)
        theirs._SIGCHLD_handler_set = False  # so that the next loader sets it again


EVERY = 60.0  # seconds between the lines of a long epoch


class LogProgress(Callback):
    """Writes the progress bar, the log's lines, metrics.jsonl and VisualDL's curves.

    An epoch gets one line; where there is no bar, a long one gets another every minute.

    Args:
        options: of the run.
        model: whose weights' histograms are shown.
        print_freq: steps between two rows of metrics.jsonl.
        histogram_freq: epochs between histograms of all weights in VisualDL; 0: none.
    """

    def __init__(
        self,
        log: RunLog,
        options: FitOptions,
        model: paddle.nn.Layer,
        *,
        print_freq: int = 10,
        histogram_freq: int = 0,
    ) -> None:
        self.log, self.model = log, model
        self.epochs, self.steps_per_epoch = options.epochs, options.steps_per_epoch
        self.print_freq, self.histogram_freq = print_freq, histogram_freq
        self.bar, self.shown = ExitStack(), "-"  # the last loss that was read
        self.way = (
            ""  # the loss, speed, share of the time waited for data, and time left of the epoch's last step
        )

    def on_epoch_start(self, progress: Progress) -> None:
        self.first, self.started, self.images, self.waited = progress.step, time.perf_counter(), 0, 0.0
        self.said = self.started
        self.title = f"epoch {progress.epoch + 1}/{self.epochs}"
        self.advance = self.bar.enter_context(self.log.bar(self.title, self.steps_per_epoch))
        self.advance(progress.step - progress.epoch * self.steps_per_epoch)

    def on_bad_step(self, progress: Progress, step: StepResult) -> None:
        self.log.info(
            f"loss {step.loss}, gradient norm {step.grad_norm} at step {progress.step}: not finite; "
            "the step is skipped"
        )

    def on_skipped_step(self, progress: Progress, step: StepResult) -> None:
        self.log.info(
            f"gradient norm {step.grad_norm} at step {progress.step}: not finite; the loss scaler skips the step"
        )

    def on_step_end(self, progress: Progress, step: StepResult) -> None:
        self.images += step.images
        self.waited += step.waited
        seconds = time.perf_counter() - self.started
        speed, waiting = self.images / seconds, self.waited / seconds
        number = progress.step - progress.epoch * self.steps_per_epoch
        due = progress.step % self.print_freq == 0 or number == self.steps_per_epoch
        if due:  # only then is the loss read from the device
            self.shown = f"{step.loss:.4f}"
        shown = {"images/s": f"{speed:.0f}", "data": f"{waiting:.0%}"}
        self.advance(1, loss=self.shown, lr=f"{step.rate:.2e}", **shown)
        if not due:
            return
        done = progress.step - self.first
        self.log.scalars(
            progress.step,
            epoch=progress.epoch + 1,
            loss=step.loss,
            lr=step.rate,
            grad_norm=step.grad_norm,
            images_per_s=round(speed, 1),
            reader_s=round(self.waited / done, 4),
            reader_share=round(waiting, 4),
            memory_mb=memory_mb(),
        )
        left = (self.epochs * self.steps_per_epoch - progress.step) / done * seconds
        self.way = f"loss {step.loss:.4f}, {speed:.0f} images/s, data {waiting:.0%}, left {duration(left)}"
        if not self.log.live and number < self.steps_per_epoch and time.perf_counter() - self.said >= EVERY:
            self.said = time.perf_counter()
            self.log.info(f"{self.title}  {number}/{self.steps_per_epoch}  {self.way}, lr {step.rate:.3e}")

    def on_evaluation(
        self, progress: Progress, accuracy: Accuracy, averaged: Accuracy | None, improved: tuple[str, ...]
    ) -> None:
        self.bar.close()
        row: dict[str, Any] = dict(epoch=progress.epoch, top1=accuracy.top1, top5=accuracy.top5)
        row.update(held_out_loss=accuracy.loss, class_top1=accuracy.class_top1)
        row.update(bad_images=progress.bad_images, bad_held_out_images=accuracy.bad)
        text = f"epoch {progress.epoch}: {accuracy}; best {progress.best_top1:.2f}% ({when(progress.best_epoch)})"
        if averaged is not None:
            row.update(ema_top1=averaged.top1, ema_top5=averaged.top5)
            row.update(ema_held_out_loss=averaged.loss, ema_class_top1=averaged.class_top1)
            text += f"; averaged weights {averaged.top1:.2f}%, best {progress.best_ema_top1:.2f}%"
        if self.way:
            text += f"; {self.way}"
        if progress.bad_images:
            text += f"; replaced {counted(progress.bad_images, 'training image')} that could not be read"
        self.log.scalars(progress.step, **row)
        self.log.info(text)
        if self.histogram_freq and progress.epoch % self.histogram_freq == 0:
            self.log.histograms(progress.step, self.model)

    def on_stop(self, progress: Progress) -> None:
        self.bar.close()
        self.log.info(
            f"Stopping on request; checkpoint saved at step {progress.step}. Continue with --resume auto"
        )

    def on_end(self) -> None:
        self.bar.close()


def memory_mb() -> float:
    """Return the peak memory of this process in MiB: the GPU's where there is one, else its own."""
    if paddle.device.is_compiled_with_cuda() and paddle.device.get_device().startswith("gpu"):
        return round(paddle.device.cuda.max_memory_allocated() / 2**20, 1)
    return round(peak_memory() or 0, 1)
