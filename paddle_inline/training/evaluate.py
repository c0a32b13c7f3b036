"""Accuracy over a data set: every image counted once, whatever the number of ranks."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import paddle

from ..data.loaders import BAD
from ..utils.errors import UserError
from .distributed import all_reduce_sum, share_statistics


class Accuracy(NamedTuple):
    """Percentages of images whose label is among the model's 1 and 5 best predictions."""

    top1: float
    top5: float
    images: int  # counted
    bad: int = 0  # that could not be read, and are not counted
    classes: int = 0  # the model's outputs; 0: not known

    def __str__(self) -> str:
        top5 = "-" if 0 < self.classes < 6 else f"{self.top5:.2f}%"  # of five classes five are always all
        text = f"top-1 {self.top1:.2f}%, top-5 {top5} of {self.images} images"
        return text + (f" ({self.bad} more cannot be read)" if self.bad else "")


@paddle.no_grad()
def evaluate(
    model: paddle.nn.Layer,
    loader: Iterable[tuple[paddle.Tensor, paddle.Tensor]],
    *,
    world: int = 1,
    amp: dict[str, Any] | None = None,
) -> Accuracy:
    """Run a model over this rank's batches and add up the counts of all ranks.

    The running statistics of batch normalisation are rank 0's from here on.

    Args:
        model: images [B, C, H, W] -> logits [B, classes]; put in eval mode here, and back after.
        loader: yields (images, labels [B] int64); labels of -1 are not counted.
        amp: arguments of `paddle.amp.auto_cast`, or None for the weights' own precision.

    Raises:
        UserError: if no rank had an image to count.
    """
    training = model.training
    dtype = next(iter(model.parameters())).dtype
    model.eval()
    share_statistics(model, world)
    counts, classes = [0, 0, 0, 0], 0
    try:
        for images, labels in loader:
            with paddle.amp.auto_cast(**(amp or {"enable": False})):
                logits = model(images.astype(dtype))
            classes = logits.shape[1]
            for i, hits in enumerate(correct(logits, labels)):
                counts[i] += hits
            bad = (labels == BAD).sum().item()
            counts[2] += labels.shape[0] - bad
            counts[3] += bad
    finally:
        if training:
            model.train()
    top1, top5, images, bad = all_reduce_sum(counts, world).tolist()
    if images == 0:
        raise UserError("there is no image to evaluate on")
    return Accuracy(100 * top1 / images, 100 * top5 / images, images, bad, classes)


def correct(logits: paddle.Tensor, labels: paddle.Tensor) -> tuple[int, int]:
    """Count how many labels [B] are the first, and among the first five, of logits [B, classes]."""
    k = min(5, logits.shape[1])
    best = logits.astype("float32").topk(k, axis=1)[1]
    hits = (best == labels.unsqueeze(1)).astype("int64")
    return hits[:, 0].sum().item(), hits.sum().item()


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
