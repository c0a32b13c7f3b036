"""Figures of a run: learning curves, and images with their labels or predictions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle

from ..utils.errors import MissingPackageError
from .log import read_metrics

GOOD, BAD, INK = "#1b7f4b", "#c0392b", "#2c3e50"


def _pyplot():
    try:
        import matplotlib
    except ImportError:
        raise MissingPackageError("figures need matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def learning_curves(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Plot loss, accuracy and learning rate of a run's metrics.jsonl as one figure.

    Raises:
        MissingPackageError: without matplotlib.
    """
    plt = _pyplot()
    rows = read_metrics(folder)
    train = [row for row in rows if isinstance(row.get("loss"), float)]
    tests = [row for row in rows if "top1" in row]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.6), constrained_layout=True)
    left.plot([r["step"] for r in train], [r["loss"] for r in train], color=INK, lw=1)
    left.set(title="training loss", xlabel="step", yscale="log")
    for key, label, style in (("top1", "weights", "-"), ("ema_top1", "averaged weights", "--")):
        with_key = [r for r in tests if r.get(key) is not None]
        if with_key:
            values = [r[key] for r in with_key]
            middle.plot([r["epoch"] for r in with_key], values, style, color=GOOD, label=label)
            middle.annotate(f"{values[-1]:.2f}", (with_key[-1]["epoch"], values[-1]), ha="right", va="top")
    middle.set(title="held-out accuracy, %", xlabel="epoch")
    if middle.lines:
        middle.legend(frameon=False, loc="lower right")
    right.plot([r["step"] for r in train], [r["lr"] for r in train], color=INK, lw=1)
    right.set(title="learning rate", xlabel="step")
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def image_grid(
    images: np.ndarray,
    titles: Sequence[str],
    path: str | os.PathLike[str],
    *,
    correct: Sequence[bool] | None = None,
    columns: int = 8,
) -> None:
    """Plot images with a title over each as one figure.

    Args:
        images: [n, 3, H, W] in 0..1.
        titles: n strings.
        correct: n booleans that colour the titles, or None.

    Raises:
        MissingPackageError: without matplotlib.
    """
    plt = _pyplot()
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.35 * columns, 1.6 * rows), squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for i, (axis, image, title) in enumerate(zip(axes.ravel(), images, titles)):
        axis.imshow(np.clip(np.asarray(image).transpose(1, 2, 0), 0, 1))
        colour = INK if correct is None else GOOD if correct[i] else BAD
        axis.set_title(title, fontsize=8, color=colour)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


@paddle.no_grad()
def predictions(
    model: paddle.nn.Layer,
    images: paddle.Tensor,
    labels: paddle.Tensor,
    classes: Sequence[str],
    path: str | os.PathLike[str],
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    """Plot images with the model's predictions over them, wrong ones in red with the label beside.

    Args:
        images: [n, 3, H, W], normalised with `mean` and `std` of the channels.
        labels: [n] int64.
        classes: their names.

    Raises:
        MissingPackageError: without matplotlib.
    """
    model.eval()
    logits = model(images.astype(model.parameters()[0].dtype)).astype("float32")
    probabilities = paddle.nn.functional.softmax(logits, -1).numpy()
    best, labels = probabilities.argmax(1), labels.numpy()
    titles = [
        f"{classes[b]} {100 * p[b]:.0f}%" + ("" if b == t else f" ({classes[t]})")
        for b, p, t in zip(best, probabilities, labels)
    ]
    image_grid(denormalise(images, mean, std), titles, path, correct=best == labels)


def denormalise(images: Any, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return normalised images [n, 3, H, W] as an array of 0..1."""
    return np.asarray(images) * np.reshape(std, (1, 3, 1, 1)) + np.reshape(mean, (1, 3, 1, 1))
