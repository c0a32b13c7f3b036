"""The training loop.

The host queues steps and does not wait for the device: loss, norm and whether a step was taken stay there until they
are read, every `print_freq` steps and before whatever is kept (`reading.py`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np
import paddle

from ..data.draws import seed_of
from .callbacks import Callback, StepResult
from .diagnose import NotFinite, explain
from .distributed import all_reduce_sum
from .ema import Ema
from .evaluate import Accuracy
from .guarded import guarded_step
from .optim import clip_gradients
from .reading import StepGuard, Stopping, on_device
from .scaling import LossScaler
from .state import Progress

MIXING = 1  # the key of mixup's draws; those of dropout have none


@dataclass(frozen=True)
class Components:
    """The objects that a run is made of."""

    model: paddle.nn.Layer  # whose weights are trained
    net: paddle.nn.Layer  # the same, wrapped for several ranks
    optimizer: paddle.optimizer.Optimizer
    # (epoch, batches to skip) -> batches (images [B, C, H, W], labels [B]); may count in `.bad` the images that
    # could not be read
    load: Callable[[int, int], Any]
    loss_fn: Callable  # (logits, labels or targets) -> a scalar tensor
    schedule: Callable[[int], float]  # step -> learning rate
    validate: Callable[[], Accuracy]  # of the model's present weights over the held-out images
    mixup: Callable | None = None  # (images, labels, RandomState) -> images and targets
    ema: Ema | None = None
    scaler: LossScaler | paddle.amp.GradScaler | None = None  # for float16


@dataclass(frozen=True)
class FitOptions:
    """The options of a run."""

    epochs: int
    steps_per_epoch: int
    accumulation: int = 1  # batches per step
    clip: float | None = None  # largest global norm of the gradients
    amp: dict[str, Any] | None = None  # arguments of `paddle.amp.auto_cast`
    seed: int = 0
    rank: int = 0
    world: int = 1  # number of ranks
    save_freq: int = 1  # epochs between two checkpoints
    save_steps: int = 0  # steps between two checkpoints within an epoch; 0: none
    max_bad_losses: int = 3  # in a row, not finite
    print_freq: int = 10  # steps between two readings of losses and norms, each a wait for the device
    run_folder: Path | None = None  # where a batch whose loss is not finite is written


def fit(run: Components, progress: Progress, options: FitOptions, callbacks: Sequence[Callback] = ()) -> bool:
    """Train from `progress` to the end of `options.epochs`.

    Args:
        run: what is trained and on what.
        progress: counted forward in place.
        options: the values of the run.
        callbacks: called at every step, evaluation and checkpoint, in their order; see `Callback`.

    Returns:
        Whether all epochs are done; False where a callback asked to stop, after a checkpoint of that moment.

    Raises:
        NotFinite: after `max_bad_losses` losses or gradients in a row that are not finite.
    """
    per_epoch = options.steps_per_epoch
    modifiers: dict[str, Any] = dict(clip=options.clip, scaler=run.scaler, amp=options.amp)
    guard = StepGuard(options.max_bad_losses, scaled=run.scaler is not None)
    stopping = Stopping(callbacks, options)
    with _notifier(callbacks) as notify:
        while progress.epoch < options.epochs:
            begin, end = progress.epoch * per_epoch, (progress.epoch + 1) * per_epoch
            loader = run.load(progress.epoch, (progress.step - begin) * options.accumulation)
            batches, bad_before = iter(loader), progress.bad_images
            run.model.train()
            notify("on_epoch_start", progress)
            while progress.step < end:
                micro, waited = _next_batches(run, batches, progress.step, options)
                rate = run.schedule(progress.step)
                loss, norm, taken = train_step(
                    run.net, run.optimizer, micro, run.loss_fn, rate, wait=False, go=guard.go, **modifiers
                )
                images = options.world * sum(images.shape[0] for images, _ in micro)
                result = StepResult(loss, norm, rate, images, waited)
                guard.count(progress.step, result, taken)
                if run.ema is not None:
                    run.ema.go = taken
                    run.ema.update(run.model, progress.step + 1)
                progress.step += 1
                saves = bool(options.save_steps) and progress.step % options.save_steps == 0
                if saves or progress.step == end or progress.step % options.print_freq == 0:
                    _read(run, guard, progress, options, micro, notify)
                notify("on_step_end", progress, result)

                stop = stopping.requested(progress.step, surely=progress.step == end)
                if stop or saves or progress.step == end:  # on all ranks
                    _read(run, guard, progress, options, micro, notify)
                    bad_here = getattr(loader, "bad", 0)
                    progress.bad_images = bad_before + int(all_reduce_sum([bad_here], options.world)[0])
                if stop or (saves and progress.step < end):
                    notify("on_checkpoint", progress)
                if stop:
                    notify("on_stop", progress)
                    return False

            getattr(batches, "close", bool)()  # ends the loader's processes before the evaluation's begin
            progress.epoch += 1
            _evaluate(run, progress, notify)
            stop, last = stopping.requested(progress.step, surely=True), progress.epoch == options.epochs
            if stop or last or progress.epoch % options.save_freq == 0:
                notify("on_checkpoint", progress)
            if stop and not last:
                notify("on_stop", progress)
                return False
    return True


class Taken(NamedTuple):
    """What a step gives before anybody waits for it: tensors [1] on the device."""

    loss: paddle.Tensor  # float64
    norm: paddle.Tensor  # float64
    taken: paddle.Tensor  # bool: the weights have changed


def _read(run, guard, progress, options, micro, notify):
    """Read what the device knows of the steps since the last time; end the run where too many were bad."""
    for step, result, good, taken in guard.read():
        at = replace(progress, step=step)
        if not good:
            notify("on_bad_step", at, result)
        elif not taken:
            notify("on_skipped_step", at, result)
        if guard.bad_steps >= options.max_bad_losses:
            where = options.rank, options.run_folder, options.amp
            try:
                batch = micro[-1] if step == progress.step - 1 else _batch_of(run, at, options)
            except Exception as error:
                raise NotFinite(
                    f"loss {result.loss} at step {step}, rank {options.rank}; the last checkpoint is kept\n  its "
                    f"batch could not be loaded once more: {error}"
                ) from error
            raise NotFinite(explain(run.model, batch, result.loss, step, *where))


def _batch_of(run, progress, options):
    """Load the last batch of a step once more: it follows from the seed and the step."""
    begin = progress.epoch * options.steps_per_epoch
    batches = iter(run.load(progress.epoch, (progress.step - begin) * options.accumulation))
    try:
        return _next_batches(run, batches, progress.step, options)[0][-1]
    finally:
        getattr(batches, "close", bool)()


def measure(run: Components, progress: Progress, callbacks: Sequence[Callback] = ()) -> None:
    """Evaluate the weights that a run begins with, as after an epoch: they are the best so far if none are better."""
    with _notifier(callbacks) as notify:
        _evaluate(run, progress, notify)


@contextlib.contextmanager
def _notifier(callbacks: Sequence[Callback]) -> Iterator[Callable]:
    """Yield notify(method, *arguments), which calls a method of every callback; the last is `on_end`."""

    def notify(method, *arguments):
        for callback in callbacks:
            getattr(callback, method)(*arguments)

    try:
        yield notify
    finally:
        notify("on_end")


def _next_batches(run, batches, step, options):
    """Seed and load one step: ([(images, labels or targets), ...], seconds waited for the loader)."""
    paddle.seed(seed_of(options.seed, options.rank, step))
    draws = np.random.RandomState(seed_of(options.seed, options.rank, step, MIXING))
    asked = time.perf_counter()
    micro = [next(batches) for _ in range(options.accumulation)]
    waited = time.perf_counter() - asked
    dtype = next(iter(run.model.parameters())).dtype
    micro = [(images.astype(dtype), labels) for images, labels in micro]
    if run.mixup is not None:
        micro = [run.mixup(images, labels, draws) for images, labels in micro]
    return micro, waited


def _evaluate(run, progress, notify):
    """Evaluate the weights and their average, and record the best accuracies so far."""
    accuracy, averaged, improved = run.validate(), None, []
    if accuracy.top1 > progress.best_top1:
        progress.best_top1, progress.best_epoch = accuracy.top1, progress.epoch
        improved.append("model")
    if run.ema is not None:
        with run.ema.applied_to(run.model):
            averaged = run.validate()
        if averaged.top1 > progress.best_ema_top1:
            progress.best_ema_top1, progress.best_ema_epoch = averaged.top1, progress.epoch
            improved.append("ema")
    notify("on_evaluation", progress, accuracy, averaged, tuple(improved))
    progress.bad_images = 0


def train_step(
    net: paddle.nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    micro: Sequence[tuple[paddle.Tensor, paddle.Tensor]],
    loss_fn: Callable,
    rate: float,
    *,
    clip: float | None = None,
    scaler: LossScaler | paddle.amp.GradScaler | None = None,
    amp: dict[str, Any] | None = None,
    go: paddle.Tensor | None = None,
    wait: bool = True,
) -> Any:
    """Take one optimizer step from the gradients of one or more batches.

    Args:
        net: images [B, C, H, W] -> logits [B, classes].
        micro: batches [(images, labels or targets), ...] whose gradients are averaged.
        loss_fn: (logits, labels or targets) -> a scalar tensor.
        rate: learning rate.
        clip: largest global norm of the gradients, or None.
        scaler: for float16, or None.
        amp: arguments of `paddle.amp.auto_cast`, or None.
        go: [1] bool on the device: whether a step is to be taken at all; None: it is.
        wait: wait for the device and return numbers.

    Returns:
        The mean loss over the batches, and the global norm of the gradients before clipping, as numbers; without
        `wait`, `Taken`. Where the norm is not finite, weights and optimizer are left as they are.
    """
    total = paddle.zeros([1], "float64")
    for i, (images, targets) in enumerate(micro):
        # Gradients are averaged over the ranks once, with the last batch.
        silent = i + 1 < len(micro) and isinstance(net, paddle.DataParallel)
        with net.no_sync() if silent else contextlib.nullcontext():
            with paddle.amp.auto_cast(**(amp or {"enable": False})):
                logits = net(images)
            if amp:
                logits = logits.astype("float32")
            loss = loss_fn(logits, targets) / len(micro)
            (scaler.scale(loss) if scaler is not None else loss).backward()
        total = total + on_device(loss.detach())
    optimizer.set_lr(rate)
    if scaler is not None:
        scaler.unscale_(optimizer)
    norm = on_device(clip_gradients(net.parameters(), clip, False))
    if isinstance(scaler, LossScaler):
        taken = scaler.step(optimizer, go)
        scaler.update()
    elif scaler is not None:  # of Paddle's, which waits
        scaler.step(optimizer)
        scaler.update()
        taken = norm.isfinite()
    else:
        taken = norm.isfinite() if go is None else norm.isfinite().logical_and(go)
        guarded_step(optimizer, taken)
    optimizer.clear_grad()
    return (total.item(), norm.item()) if wait else Taken(total, norm, taken)
