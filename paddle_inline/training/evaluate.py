"""Accuracy over a data set: every image counted once, whatever the number of ranks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple

import numpy as np
import paddle
import paddle.nn.functional as F

from ..data.loaders import BAD
from ..utils.errors import UserError, counted
from .distributed import all_reduce_largest, all_reduce_real, all_reduce_sum, share_statistics


class Accuracy(NamedTuple):
    """Percentages of images whose label is among the model's 1 and 5 best predictions."""

    top1: float
    top5: float
    images: int  # counted
    bad: int = 0  # that could not be read, and are not counted
    classes: int = 0  # the model's outputs; 0: not known
    loss: float = math.nan  # mean cross-entropy over the images, without smoothing
    per_class: tuple[tuple[int, int], ...] = ()  # (images, whose best prediction is right) of every output

    def __str__(self) -> str:
        top5 = "-" if 0 < self.classes < 6 else f"{self.top5:.2f}%"  # of five classes five are always all
        text = f"top-1 {self.top1:.2f}%, top-5 {top5} of {counted(self.images, 'image')}"
        return text + (f" ({self.bad} more cannot be read)" if self.bad else "")

    @property
    def class_top1(self) -> list[float | None]:
        """Percentages of each class's images whose best prediction is right; None for a class without images."""
        return [100 * right / images if images else None for images, right in self.per_class]


@paddle.no_grad()
def evaluate(
    model: paddle.nn.Layer,
    loader: Iterable[tuple[paddle.Tensor, paddle.Tensor]],
    *,
    world: int = 1,
    amp: dict[str, Any] | None = None,
    record: Callable[[paddle.Tensor, paddle.Tensor], None] | None = None,
) -> Accuracy:
    """Run a model over this rank's batches and add up the counts of all ranks.

    The running statistics of batch normalisation are rank 0's from here on.

    Args:
        model: images [B, C, H, W] -> logits [B, classes]; put in eval mode here, and back after.
        loader: yields (images, labels [B] int64); labels of -1 are not counted.
        amp: arguments of `paddle.amp.auto_cast`, or None for the weights' own precision.
        record: called with the logits and labels of every batch of this rank.

    Raises:
        UserError: if no rank had an image to count.
    """
    training = model.training
    dtype = next(iter(model.parameters())).dtype
    model.eval()
    share_statistics(model, world)
    kept: list[tuple[paddle.Tensor, ...]] = []  # of every batch, on the device, so that none is waited for
    try:
        for images, labels in loader:
            with paddle.amp.auto_cast(**(amp or {"enable": False})):
                logits = model(images.astype(dtype))
            logits = logits if logits.dtype == paddle.float64 else logits.astype("float32")
            if record is not None:
                record(logits, labels)
            loss = F.cross_entropy(logits, labels, reduction="sum", ignore_index=BAD)
            # the loader's own labels lie in memory of a process that ends with the last batch
            kept.append((_hits(logits, labels), labels.clone(), loss.reshape([1])))
    finally:
        if training:
            model.train()
    counts, losses, of_classes = _counts(kept, logits.shape[1] if kept else 0)
    classes = len(of_classes)
    top1, top5, images, bad = all_reduce_sum(counts, world).tolist()
    if images == 0:
        raise UserError("there is no image to evaluate on")
    classes = all_reduce_largest(classes, world)  # a rank may have had no image
    of_classes = np.concatenate([of_classes, np.zeros((classes - len(of_classes), 2), np.int64)])
    totals = all_reduce_sum(of_classes.reshape(-1).tolist(), world).reshape(-1, 2).tolist()
    return Accuracy(
        100 * top1 / images,
        100 * top5 / images,
        images,
        bad,
        classes,
        loss=all_reduce_real(losses, world) / images,
        per_class=tuple((count, right) for count, right in totals),
    )


def _counts(kept, classes):
    """Read (hits, labels, losses) of all batches: ([first, first five, images, bad], loss, of every class [C, 2])."""
    of_classes = np.zeros((classes, 2), np.int64)
    if not kept:
        return [0, 0, 0, 0], 0.0, of_classes
    hits, labels, losses = (paddle.concat(part).numpy() for part in zip(*kept))
    counted = labels != BAD
    np.add.at(of_classes, (labels[counted], 0), 1)
    np.add.at(of_classes, (labels[counted], 1), hits[counted, 0])
    images = counted.sum().item()
    counts = [hits[:, 0].sum().item(), hits.sum().item(), images, len(labels) - images]
    return counts, sum(losses.tolist()), of_classes


def correct(logits: paddle.Tensor, labels: paddle.Tensor) -> tuple[int, int]:
    """Count how many labels [B] are the first, and among the first five, of logits [B, classes]."""
    hits = _hits(logits.astype("float32"), labels)
    return hits[:, 0].sum().item(), hits.sum().item()


def _hits(logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    """Return [B, 5 or all classes]: 1 where a label is that of the best predictions, in their order."""
    best = logits.topk(min(5, logits.shape[1]), axis=1)[1]
    return (best == labels.unsqueeze(1)).astype("int64")


@paddle.no_grad()
def forward_speed(model: paddle.nn.Layer, images: paddle.Tensor, amp: dict[str, Any] | None = None) -> float:
    """Measure the images per second of the forward pass over one batch [B, C, H, W], in eval mode."""
    model.eval()
    on_gpu = paddle.device.get_device() != "cpu"
    warm, timed = (50, 30) if on_gpu else (2, 5)
    with paddle.amp.auto_cast(**(amp or {"enable": False})):
        for count in (warm, timed):
            started = time.perf_counter()
            for _ in range(count):
                model(images)
            if on_gpu:
                paddle.device.synchronize()
    return timed * images.shape[0] / (time.perf_counter() - started)
