"""Figures of a run: learning curves, and images with their labels or predictions."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle

from ..utils.errors import MissingPackageError
from .log import read_metrics

GOOD, BAD, INK = "#1b7f4b", "#c0392b", "#2c3e50"


def _figure(width, height, **options):
    """Make a figure of its own, which leaves matplotlib's backend and its list of open figures the user's."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError("figures need matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(width, height), dpi=100, **options)
    FigureCanvasAgg(figure)
    return figure


@contextlib.contextmanager
def _plain_text():
    """Draw text without LaTeX, whatever the user's style: the machine may lack it, and to it % begins a comment."""
    try:
        import matplotlib
    except ImportError:  # said where a figure is made
        yield
        return
    with matplotlib.rc_context({"text.usetex": False}):
        yield


def _save(figure, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a font that lacks a class name's letters shows boxes
        figure.savefig(path, dpi=120)


def _verbatim(text):
    """Return a name as it is drawn: bytes that are no UTF-8 are escaped, and nothing else is changed."""
    return text.encode("utf-8", "backslashreplace").decode()


@_plain_text()
def learning_curves(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Plot loss, accuracy and learning rate of a run's metrics.jsonl as one figure.

    Raises:
        MissingPackageError: without matplotlib.
    """
    figure = _figure(13, 3.6, constrained_layout=True)
    rows = read_metrics(folder)
    train = [row for row in rows if isinstance(row.get("loss"), float)]
    tests = [row for row in rows if "top1" in row]
    left, middle, right = figure.subplots(1, 3)
    left.plot([r["step"] for r in train], [r["loss"] for r in train], color=INK, lw=1)
    scale = "log" if any(r["loss"] > 0 for r in train) else "linear"  # of one class in all the loss is 0
    left.set(title="training loss", xlabel="step", yscale=scale)
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
    _save(figure, path)


@_plain_text()
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
        images: [n, C, H, W] in 0..1; of one or two channels the first is shown, of more the first three.
        titles: n strings.
        correct: n booleans that colour the titles, or None.

    Raises:
        MissingPackageError: without matplotlib.
    """
    rows = -(-len(images) // columns)
    figure = _figure(1.35 * columns, 1.6 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for i, (axis, image, title) in enumerate(zip(axes.ravel(), images, titles)):
        pixels = np.clip(np.asarray(image).transpose(1, 2, 0), 0, 1)
        axis.imshow(pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1)
        colour = INK if correct is None else GOOD if correct[i] else BAD
        axis.set_title(_verbatim(title), fontsize=8, color=colour, parse_math=False, usetex=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure.tight_layout()
    _save(figure, path)


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
        images: [n, C, H, W], normalised with `mean` and `std` of the channels.
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
        f"{class_name(classes, b)} {100 * p[b]:.0f}%" + ("" if b == t else f" ({class_name(classes, t)})")
        for b, p, t in zip(best, probabilities, labels)
    ]
    image_grid(denormalise(images, mean, std), titles, path, correct=best == labels)


def class_name(classes: Sequence[str], number: int) -> str:
    """Return a class's name; a model may have more classes than the data set, and an image no label."""
    return str(classes[number]) if 0 <= number < len(classes) else f"class {number}"


def denormalise(images: Any, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return normalised images [n, C, H, W] as an array of 0..1."""
    return np.asarray(images) * np.reshape(std, (1, -1, 1, 1)) + np.reshape(mean, (1, -1, 1, 1))
