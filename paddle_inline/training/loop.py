"""The training loop."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Callable

import numpy as np
import paddle

from ..data.draws import seed_of
from ..utils.timing import peak_memory
from .diagnose import NotFinite, explain
from .distributed import all_reduce_sum, any_rank
from .evaluate import Accuracy
from .log import RunLog, duration
from .optim import clip_gradients

MIXING = 1  # the key of mixup's draws; those of dropout have none


@dataclass
class Progress:
    """How far a run is: with the weights, the optimizer and the settings, all that it goes on from.

    What is random in update u of rank r is drawn from generators seeded with (seed, r, u), so no
    generator's state has to be kept.
    """

    epoch: int = 0  # finished, evaluation included
    update: int = 0  # finished
    best_top1: float = -1.0  # percent; below 0: none yet
    best_epoch: int = 0
    best_ema_top1: float = -1.0
    best_ema_epoch: int = 0
    bad_images: int = 0  # of the epoch that has begun, on all ranks: they could not be read

    def as_dict(self) -> dict:
        return asdict(self)


def fit(
    model,
    net,
    optimizer,
    *,
    progress: Progress,
    epochs: int,
    updates_per_epoch: int,
    load: Callable[[int, int], Iterable],
    loss_fn: Callable,
    schedule: Callable[[int], float],
    validate: Callable[[], Accuracy],
    save: Callable[[Progress], None],
    save_best: Callable[[str], None],
    log: RunLog,
    mixup: Callable | None = None,
    ema=None,
    scaler=None,
    amp: dict | None = None,
    clip: float | None = None,
    accumulation: int = 1,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    print_freq: int = 10,
    save_freq: int = 1,
    save_steps: int = 0,
    histogram_freq: int = 0,
    max_bad_losses: int = 3,
    should_stop: Callable[[], bool] = lambda: False,
    run_folder: Any = None,
) -> bool:
    """Trains from `progress` to the end of `epochs`.

    Args:
        model: the layer whose weights are trained; `net` is the same, wrapped for several ranks.
        load: (epoch, batches to skip) -> batches (images [B, C, H, W], labels [B]); may count in
            `.bad` the images that could not be read.
        loss_fn: (logits, labels or targets) -> a scalar tensor.
        schedule: update -> learning rate.
        validate: accuracy over the held-out images with the model's present weights.
        save: writes a checkpoint; called on rank 0 alone, as is `save_best` ("model" or "ema").
        mixup: (images, labels, RandomState) -> images and targets, or None.
        scaler: a `paddle.amp.GradScaler` for float16, or None.
        amp: arguments of `paddle.amp.auto_cast`, or None.
        clip: largest global norm of the gradients, or None.
        accumulation: batches an update.
        histogram_freq: epochs between histograms of all weights in VisualDL; 0: none.
        should_stop: asked after every update, e.g. whether the machine is wanted elsewhere.

    Returns:
        Whether all epochs are done; False after `should_stop`, with a checkpoint of that moment.

    Raises:
        NotFinite: after `max_bad_losses` losses or gradients in a row that are not finite.
    """
    bad_losses, dtype = 0, next(iter(model.parameters())).dtype
    while progress.epoch < epochs:
        done = progress.update - progress.epoch * updates_per_epoch
        loader, bad_before = load(progress.epoch, done * accumulation), progress.bad_images
        batches = iter(loader)
        started, images_seen, waited = time.perf_counter(), 0, 0.0
        title = f"epoch {progress.epoch + 1}/{epochs}"
        model.train()
        with log.bar(title, updates_per_epoch) as advance:
            advance(done)
            for number in range(done, updates_per_epoch):
                update = progress.update
                paddle.seed(seed_of(seed, rank, update))
                draws = np.random.RandomState(seed_of(seed, rank, update, MIXING))
                asked = time.perf_counter()
                micro = [next(batches) for _ in range(accumulation)]
                waited += time.perf_counter() - asked
                micro = [(images.astype(dtype), labels) for images, labels in micro]
                if mixup is not None:
                    micro = [mixup(images, labels, draws) for images, labels in micro]

                rate = schedule(update)
                loss, norm = train_step(
                    net, optimizer, micro, loss_fn, rate, clip=clip, scaler=scaler, amp=amp
                )
                # (A loss scaler meets gradients that are not finite now and then, and lowers its scale.)
                if math.isfinite(loss) and (scaler is not None or math.isfinite(norm)):
                    bad_losses = 0
                else:
                    bad_losses += 1
                    log.say(f"loss {loss}, norm {norm} at update {update}: its gradients are not used")
                    if bad_losses >= max_bad_losses:
                        raise NotFinite(explain(model, micro[-1], loss, update, rank, run_folder, amp))
                if ema is not None:
                    ema.update(model)
                progress.update += 1

                images_seen += world * sum(images.shape[0] for images, _ in micro)
                speed = images_seen / (time.perf_counter() - started)
                advance(1, loss=f"{loss:.4f}", lr=f"{rate:.2e}", **{"images/s": f"{speed:.0f}"})
                if progress.update % print_freq == 0 or number + 1 == updates_per_epoch:
                    seen_here = number + 1 - done
                    left = (epochs * updates_per_epoch - progress.update) / seen_here
                    left *= time.perf_counter() - started
                    log.scalars(
                        progress.update,
                        epoch=progress.epoch + 1,
                        loss=loss,
                        lr=rate,
                        grad_norm=norm,
                        images_per_s=round(speed, 1),
                        reader_s=round(waited / seen_here, 4),
                        memory_mb=memory_mb(),
                    )
                    if not log.console.is_terminal:
                        log.say(
                            f"{title}  {number + 1}/{updates_per_epoch}  loss {loss:.4f}  lr {rate:.3e}"
                            f"  norm {norm:.3f}  {speed:.1f} images/s  left {duration(left)}"
                        )
                stop = any_rank(should_stop(), world)
                ends = number + 1 == updates_per_epoch
                saves = save_steps and progress.update % save_steps == 0
                if stop or ends or saves:  # on all ranks
                    bad_here = getattr(loader, "bad", 0)
                    progress.bad_images = bad_before + int(all_reduce_sum([bad_here], world)[0])
                if stop or (saves and not ends):
                    if rank == 0:
                        save(progress)
                    if stop:
                        log.say(f"asked to stop: saved after update {progress.update}; --resume auto goes on")
                        return False

        progress.epoch += 1
        _evaluate(model, ema, progress, validate, save_best, log, rank)
        if histogram_freq and progress.epoch % histogram_freq == 0:
            log.histograms(progress.update, model)
        stop = any_rank(should_stop(), world)
        if rank == 0 and (stop or progress.epoch % save_freq == 0 or progress.epoch == epochs):
            save(progress)
        if stop and progress.epoch < epochs:
            log.say(f"stopped after epoch {progress.epoch}; --resume auto goes on")
            return False
    return True


def train_step(net, optimizer, micro, loss_fn, rate, *, clip=None, scaler=None, amp=None):
    """One update from one or more batches [(images, targets), ...].

    Returns:
        The mean loss over the batches, and the global norm of the gradients before clipping.
        Where the norm is not finite the weights are left as they are.
    """
    total = 0.0
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
        total += loss.item()
    optimizer.set_lr(rate)
    if scaler is not None:
        scaler.unscale_(optimizer)
    norm = clip_gradients(net.parameters(), clip)
    if scaler is not None:
        scaler.step(optimizer)
        scaler.update()
    elif math.isfinite(norm):
        optimizer.step()
    optimizer.clear_grad()
    return total, norm


def _evaluate(model, ema, progress, validate, save_best, log, rank):
    accuracy = validate()
    row = dict(epoch=progress.epoch, top1=accuracy.top1, top5=accuracy.top5)
    row.update(bad_images=progress.bad_images, bad_held_out_images=accuracy.bad)
    text = f"epoch {progress.epoch}: {accuracy}"
    if accuracy.top1 > progress.best_top1:
        progress.best_top1, progress.best_epoch = accuracy.top1, progress.epoch
        if rank == 0:
            save_best("model")
    text += f"; best {progress.best_top1:.2f}% (epoch {progress.best_epoch})"
    if ema is not None:
        with ema.applied_to(model):
            averaged = validate()
        row.update(ema_top1=averaged.top1, ema_top5=averaged.top5)
        if averaged.top1 > progress.best_ema_top1:
            progress.best_ema_top1, progress.best_ema_epoch = averaged.top1, progress.epoch
            if rank == 0:
                save_best("ema")
        text += f"; averaged weights {averaged.top1:.2f}%, best {progress.best_ema_top1:.2f}%"
    if progress.bad_images:
        text += f"; {progress.bad_images} training images could not be read and were replaced"
    progress.bad_images = 0
    log.scalars(progress.update, **row)
    log.say(text)


def memory_mb() -> float:
    """The most memory that this process has held: the GPU's where there is one, else its own."""
    if paddle.device.is_compiled_with_cuda() and paddle.device.get_device().startswith("gpu"):
        return round(paddle.device.cuda.max_memory_allocated() / 2**20, 1)
    return round(peak_memory() or 0, 1)
