"""Figures of a run: learning curves, and images with their labels or predictions."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import paddle

from ..utils.errors import MissingPackageError, counted
from .lettering import class_name, drawn, plain_text, verbatim
from .log import read_metrics
from .state import when

GOOD, BAD, INK = "#1b7f4b", "#c0392b", "#2c3e50"
MOST_CLASSES = 30  # of a confusion matrix that is drawn


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


def _save(figure, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a font that lacks a class name's letters shows boxes
        figure.savefig(path, dpi=120)


@plain_text()
def learning_curves(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Plot a run's metrics.jsonl as one figure: losses, held-out accuracy with the best marked, learning rate.

    Raises:
        MissingPackageError: without matplotlib.
    """
    figure = _figure(13, 4.4, constrained_layout=True)
    rows = read_metrics(folder)
    train = [row for row in rows if isinstance(row.get("loss"), float)]
    tests = [row for row in rows if "top1" in row]
    lengths = [row["step"] / row["epoch"] for row in tests if row.get("epoch")]
    per_epoch, unit = (lengths[-1], "epoch") if lengths else (1, "step")
    left, middle, right = figure.subplots(1, 3)
    steps = [row["step"] / per_epoch for row in train]
    losses = [row["loss"] for row in train]
    if losses:
        left.plot(steps, losses, color=INK, lw=0.8, alpha=0.35)
        left.plot(steps, _smoothed(losses), color=INK, lw=1.6, marker=_marker(steps), label="training")
    for key, label, style in (
        ("held_out_loss", "held-out", "-"),
        ("ema_held_out_loss", "averaged weights", "--"),
    ):
        found = [(row["epoch"], row[key]) for row in tests if isinstance(row.get(key), float)]
        if found:
            left.plot(*zip(*found), style, color=GOOD, lw=1.6, marker=_marker(found), label=label)
            losses = [*losses, *(value for _, value in found)]
    left.set(
        title="loss", yscale="log" if losses and 0 < 2 * min(losses) < max(losses) else "linear"
    )  # of one class in all it is 0
    for key, label, style in (("top1", "weights", "-"), ("ema_top1", "averaged weights", "--")):
        found = [(row["epoch"], row[key]) for row in tests if row.get(key) is not None]
        if found:
            epoch, best = max(found, key=lambda pair: (pair[1], -pair[0]))
            label = f"{label}: best {best:.2f} % ({when(epoch)})"
            middle.plot(*zip(*found), style, color=GOOD, lw=1.6, marker=_marker(found), label=label)
            middle.plot([epoch], [best], "*", color=BAD, ms=12, zorder=3)
    middle.set(title="held-out accuracy, %")
    right.plot(steps, [row["lr"] for row in train], color=INK, lw=1.6, marker=_marker(steps))
    right.set(title="learning rate")
    for axis in (left, middle, right):
        axis.set_xlabel(unit)
        axis.set_xlim(0, 1.03 * max([*steps, *(row["epoch"] for row in tests if lengths), 1]))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    for axis in (left, middle):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15), fontsize=9)
    _save(figure, path)


def _marker(points):
    return "." if len(points) < 40 else ""


def _smoothed(values, share=0.04):
    """Return running means over about `share` of the values, as long as they are."""
    width = max(1, round(share * len(values)) | 1)
    padded = np.pad(np.asarray(values, np.float64), width // 2, mode="edge")
    return np.convolve(padded, np.ones(width) / width, "valid")


@plain_text()
def image_grid(
    images: np.ndarray,
    titles: Sequence[str],
    path: str | os.PathLike[str],
    *,
    correct: Sequence[bool] | None = None,
    columns: int = 8,
    heading: str = "",
    legend: Sequence[tuple[str, str]] = (),
) -> None:
    """Plot images with a title over each as one figure.

    Args:
        images: [n, C, H, W] in 0..1; of one or two channels the first is shown, of more the first three.
        titles: n strings.
        correct: n booleans that colour the titles, or None.
        heading: of the figure.
        legend: (colour, meaning) pairs, shown below the heading.

    Raises:
        MissingPackageError: without matplotlib.
    """
    rows = -(-len(images) // columns)
    lines = max((title.count("\n") for title in titles), default=0)
    above = (
        0.25 * bool(heading) * (1 + heading.count("\n")) + 0.3 * bool(legend) + 0.1 * bool(heading or legend)
    )
    height = (1.6 + 0.18 * lines) * rows + above
    figure = _figure(max(1.35 * columns, 0.08 * max(map(len, heading.split("\n")))), height)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for i, (axis, image, title) in enumerate(zip(axes.ravel(), images, titles)):
        pixels = np.clip(np.asarray(image).transpose(1, 2, 0), 0, 1)
        axis.imshow(pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1)
        colour = INK if correct is None else GOOD if correct[i] else BAD
        axis.set_title(verbatim(title), fontsize=8, color=colour, parse_math=False, usetex=False)
    if heading:
        figure.text(
            0.5, 1 - 0.08 / height, heading, ha="center", va="top", fontsize=10, parse_math=False, color=INK
        )
    if legend:
        from matplotlib.patches import Patch

        patches = [Patch(color=colour, label=meaning) for colour, meaning in legend]
        place = (0.5, 1 - (above - 0.35) / height)
        figure.legend(
            handles=patches, loc="upper center", bbox_to_anchor=place, ncols=3, frameon=False, fontsize=9
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure.tight_layout(rect=(0, 0, 1, 1 - above / height))
    _save(figure, path)


@plain_text()
def confusion(
    matrix: np.ndarray,
    names: Sequence[str],
    numbers: Sequence[int],
    path: str | os.PathLike[str],
) -> None:
    """Plot who is taken for whom; of more than MOST_CLASSES classes those that are confused most often.

    Args:
        matrix: [labels, answers] counts.
        names: of the classes.
        numbers: theirs, for names whose letters no font has.

    Raises:
        MissingPackageError: without matplotlib.
    """
    total, right = len(matrix), np.diag(matrix)
    shown = np.arange(total)
    if total > MOST_CLASSES:
        pairs = np.argsort(-(matrix - np.diag(right)), axis=None, kind="stable")[: MOST_CLASSES**2]
        both = dict.fromkeys(place for pair in pairs.tolist() for place in divmod(pair, total))
        shown = np.sort(list(both)[:MOST_CLASSES])
    images = matrix.sum(1)[shown]
    part = matrix[np.ix_(shown, shown)]
    share = np.divide(part, images[:, None], out=np.zeros(part.shape), where=images[:, None] > 0)
    labels = [drawn(names[i], numbers[i]) for i in shown]
    side = max(2.4, 0.36 * len(shown)) + 0.09 * max(map(len, labels))
    figure = _figure(side + 2, side + 1, constrained_layout=True)
    axis = figure.subplots()
    shades = axis.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    ticks = range(len(shown))
    axis.set_xticks(ticks, labels, rotation=90 if max(map(len, labels)) > 3 else 0, parse_math=False)
    axis.set_yticks(ticks, labels, parse_math=False)
    axis.tick_params(length=0, labelsize=8)
    for row, column in np.argwhere(part > 0).tolist():
        colour = "white" if share[row, column] > 0.5 else INK if row == column else BAD
        axis.text(column, row, str(part[row, column]), ha="center", va="center", fontsize=7, color=colour)
    unknown = any(label == f"class {numbers[i]}" != names[i] for i, label in zip(shown, labels))
    note = "\n(class N: no font here has its name's letters; see classes.csv)" if unknown else ""
    axis.set(xlabel=f"answer of the model{note}", ylabel="true class")
    which = (
        "" if total <= MOST_CLASSES else f"\nthe {len(shown)} of {total} classes that are confused most often"
    )
    accuracy = 100 * right.sum() / max(matrix.sum(), 1)
    axis.set_title(
        f"{accuracy:.2f} % of {counted(matrix.sum(), 'image')} right{which}", fontsize=10, color=INK
    )
    bar = figure.colorbar(shades, ax=axis, fraction=0.04, pad=0.02)
    bar.set_label("% of the true class's images (numbers: images)", fontsize=8)
    bar.ax.tick_params(labelsize=8)
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
    heading: str = "Held-out images with the model's answers",
) -> None:
    """Plot images with the model's predictions over them, wrong ones in red with the label beside.

    Args:
        images: [n, C, H, W], normalised with `mean` and `std` of the channels.
        labels: [n] int64.
        classes: their names.
        heading: of the figure.

    Raises:
        MissingPackageError: without matplotlib.
    """
    model.eval()
    logits = model(images.astype(model.parameters()[0].dtype)).astype("float32")
    probabilities = paddle.nn.functional.softmax(logits, -1).numpy()
    best, labels = probabilities.argmax(1), labels.numpy()
    titles = [
        f"{drawn(class_name(classes, b), b)} {100 * p[b]:.0f}%"
        + ("" if b == t else f"\n({drawn(class_name(classes, t), t)})")
        for b, p, t in zip(best, probabilities, labels)
    ]
    legend = [(GOOD, "right"), (BAD, "wrong (true class in brackets)")]
    pixels = denormalise(images, mean, std)
    columns = min(8, len(titles))
    image_grid(pixels, titles, path, correct=best == labels, columns=columns, heading=heading, legend=legend)


def spread(labels: Iterable[int], count: int) -> list[int]:
    """Return the places of `count` images, by class: of all classes as many, or of classes at even distances."""
    of_class: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        of_class.setdefault(int(label), []).append(place)
    groups = [of_class[label] for label in sorted(of_class)]
    if len(groups) > count:
        groups = [groups[i * len(groups) // count] for i in range(count)]
    turns = sorted((turn, group) for group, places in enumerate(groups) for turn in range(len(places)))
    taken = sorted((group, turn) for turn, group in turns[:count])
    return [groups[group][turn] for group, turn in taken]


def denormalise(images: Any, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return normalised images [n, C, H, W] as an array of 0..1."""
    return np.asarray(images) * np.reshape(std, (1, -1, 1, 1)) + np.reshape(mean, (1, -1, 1, 1))
