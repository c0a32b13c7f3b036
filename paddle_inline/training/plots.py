"""Pictures of a run: learning curves, and images with what the model says of them."""

from __future__ import annotations

import numpy as np
import paddle

from ..utils.errors import MissingPackageError
from .log import read_metrics

GOOD, BAD, INK = "#1b7f4b", "#c0392b", "#2c3e50"


def _pyplot():
    try:
        import matplotlib
    except ImportError:
        raise MissingPackageError("pictures need matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def learning_curves(folder, path) -> None:
    """Loss, accuracy and learning rate of a run's metrics.jsonl, as one picture.

    Raises:
        ImportError: without matplotlib.
    """
    plt = _pyplot()
    rows = read_metrics(folder)
    train = [row for row in rows if isinstance(row.get("loss"), float)]
    tests = [row for row in rows if "top1" in row]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.6), constrained_layout=True)
    left.plot([r["update"] for r in train], [r["loss"] for r in train], color=INK, lw=1)
    left.set(title="training loss", xlabel="update", yscale="log")
    for key, label, style in (("top1", "weights", "-"), ("ema_top1", "averaged weights", "--")):
        with_key = [r for r in tests if r.get(key) is not None]
        if with_key:
            values = [r[key] for r in with_key]
            middle.plot([r["epoch"] for r in with_key], values, style, color=GOOD, label=label)
            middle.annotate(f"{values[-1]:.2f}", (with_key[-1]["epoch"], values[-1]), ha="right", va="top")
    middle.set(title="held-out accuracy, %", xlabel="epoch")
    if middle.lines:
        middle.legend(frameon=False, loc="lower right")
    right.plot([r["update"] for r in train], [r["lr"] for r in train], color=INK, lw=1)
    right.set(title="learning rate", xlabel="update")
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def image_grid(images, titles, path, *, correct=None, columns=8) -> None:
    """Images with a title over each, as one picture.

    Args:
        images: [n, 3, H, W] in 0..1.
        titles: n texts.
        correct: n booleans that colour the titles, or None.

    Raises:
        ImportError: without matplotlib.
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
def predictions(model, images, labels, classes, path, *, mean, std) -> None:
    """Images with the model's guesses over them, wrong ones in red with the truth beside.

    Args:
        images: [n, 3, H, W], normalised with `mean` and `std` of the channels.
        labels: [n] int64.
        classes: their names.

    Raises:
        ImportError: without matplotlib.
    """
    model.eval()
    logits = model(images.astype(model.parameters()[0].dtype)).astype("float32")
    shares = paddle.nn.functional.softmax(logits, -1).numpy()
    best, labels = shares.argmax(1), labels.numpy()
    titles = [
        f"{classes[b]} {100 * s[b]:.0f}%" + ("" if b == t else f" ({classes[t]})")
        for b, s, t in zip(best, shares, labels)
    ]
    image_grid(in_colour(images, mean, std), titles, path, correct=best == labels)


def in_colour(images, mean, std):
    """Normalised images [n, 3, H, W] as an array of 0..1."""
    mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in (mean, std))
    return np.asarray(images) * std + mean
