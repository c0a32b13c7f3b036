"""The picture of a comparison for documents: accuracy against speed, and what masking costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..utils.errors import MissingPackageError
from ..weights.atomic import atomic_write
from .summary import KINDS

COLOURS = {"injective": "#2166ac", "confused": "#d97706", "quadratic": "#475569", "none": "#9ca3af"}


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Write the picture as PNG.

    Raises:
        MissingPackageError: without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError("figures need matplotlib: pip install matplotlib") from None
    rows = sorted(results["rows"], key=lambda row: row["top1"] or 0)
    height = max(4.5, 0.26 * len(rows) + 1.2)
    figure = Figure(figsize=(13, height), dpi=110, constrained_layout=True)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    for kind, text in KINDS.items():
        known = [row for row in rows if row["kind"] == kind and None not in (row["speed"], row["top1"])]
        if known:
            spread = [row["spread"] or 0 for row in known]
            left.errorbar(
                [row["speed"] for row in known],
                [row["top1"] for row in known],
                yerr=spread,
                fmt="o",
                color=COLOURS[kind],
                elinewidth=0.8,
                alpha=0.9,
                label=text,
            )
            for row in known:
                left.annotate(
                    row["name"],
                    (row["speed"], row["top1"]),
                    xytext=(5, 3),
                    textcoords="offset points",
                    fontsize=7,
                )
    left.set(
        xscale="log",
        xlabel="images/s in inference",
        ylabel="held-out top-1, %",
        title="Accuracy against speed",
    )
    if not left.has_data():
        left.text(0.5, 0.5, "not timed yet", transform=left.transAxes, ha="center")
        left.set_xlim(1, 10)
    for axis in (left.xaxis.set_major_formatter, left.xaxis.set_minor_formatter):
        axis("{x:.0f}")
    if left.has_data():  # the legend beneath the axes, where no point is
        left.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.55 / height), ncols=2)
    _masking(right, rows)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png")


def _masking(axis: Any, rows: list[dict[str, Any]]) -> None:
    """Draw a line from the accuracy as it is to that without local and without random tokens."""
    for y, row in enumerate(rows):
        if row["top1"] is None:
            continue
        axis.plot(row["top1"], y, "o", color=COLOURS[row["kind"]], ms=5)
        for key, mark in (("without_local", "|"), ("without_random", "x")):
            if row[key] is not None:
                axis.plot(row[key], y, mark, color=COLOURS[row["kind"]], ms=7)
                if key == "without_local":
                    axis.plot([row[key], row["top1"]], [y, y], color=COLOURS[row["kind"]], lw=0.8, alpha=0.6)
    axis.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=7)
    axis.set(
        xlabel="held-out top-1, %",
        title="whole (o), without the 3x3 neighbours (|), without as many others (x)",
    )
    axis.title.set_fontsize(9)
