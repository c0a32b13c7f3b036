"""The report as one HTML page: nothing else is loaded, so it can be mailed, archived and opened anywhere.

A strip per model shows the error of every sublayer, from the image (left) to the logits (right), by how far
it stays below its tolerance. Unfolded, the same numbers stand as a curve against the tolerance, as a map of
blocks and their sublayers, and in full as a table. What is drawn where is computed here; templates/parity.html
is the page.

(A few lines above 300: what a drawing computes and what draws it are read together.)
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from paddle_inline.utils.errors import counted
from paddle_inline.utils.html import render_page

from .. import tolerance
from ..result import RECORDED, Report, Row
from . import write_file

TEMPLATE = Path(__file__).with_name("templates") / "parity.html"
# Colours of log10(error / tolerance), in between interpolated; equal bits and what is beyond have their own.
SCALE = (
    *((-7, "#e2f1ec"), (-5, "#a9d8d5"), (-3, "#4ba3b7"), (-2, "#2c78a0")),
    *((-1, "#3d4f86"), (-0.5, "#a9742f"), (0, "#e0a11b")),
)
EXACT, BEYOND = "#f0f2f0", "#d02b35"
LEVELS = tuple(-7 + 0.25 * i for i in range(29))  # a cell's colour is that of the next level above it
# Labels of levels in the legend.
LABELS: dict[float, str] = {-7: "1e-7", -5: "1e-5", -3: "1e-3", -2: "1e-2", -1: "1e-1", 0: "1"}
# Colours of log2(Paddle's distance from the truth / PyTorch's), likewise.
BALANCE = ((-2, "#2c78a0"), (0, "#f0f2f0"), (2, "#b8651b"))
BALANCES = tuple(-2 + 0.25 * i for i in range(17))

MAPS = {  # the kinds of rows that have a map, and its title
    "output": "Outputs, forward",
    "output gradient": "Gradients of outputs, backward",
    "parameter gradient": "Gradients of parameters",
    "step weight": "Weights after training steps",
}
DIVERGENCES = {  # what a sublayer did, by the kind of a Divergence
    "distance": "is further from the float64 truth than PyTorch's own distance allows",
    "output": "was given equal inputs and gave another output",
    "input gradient": "was given equal gradients of its output and gave another gradient of its input",
}
BFLOAT16 = (
    "bfloat16 means here: weights, images and what passes between sublayers, both ways, rounded to bfloat16; "
    "inside a sublayer float32 (Paddle has no bfloat16 kernels on a CPU)."
)


def write_html(reports: Sequence[Report], path: str | Path) -> None:
    """Write the page of one or more Reports; its folder is made.

    Raises:
        MissingPackageError: jinja2 is not installed.
        FileAccessError: the file cannot be written.
    """
    write_file(path, page(reports))


def page(reports: Sequence[Report]) -> str:
    """Make the page of one or more Reports, as text."""
    failed = sum(not report.passed for report in reports)
    subjects = counted(len(reports), "comparison")
    models, tensors = len({report.model for report in reports}), sum(len(report.rows) for report in reports)
    dtypes = tuple(dict.fromkeys(report.dtype for report in reports))
    return render_page(
        TEMPLATE,
        passed=not failed,
        verdict=f"{failed} of {subjects} differ" if failed else f"{subjects}: every layer agrees",
        cards=(
            (models, "model" + "s" * (models != 1)),
            (f"{tensors:,}", "tensors compared"),
            (", ".join(dtypes), "computed in"),
            (_duration(sum(report.seconds for report in reports)), "taken"),
        ),
        compared=_compared(reports),
        reports=reports,
        colours=_colours(),
        legend=[(f"h{i}", LABELS.get(level)) for i, level in enumerate(LEVELS)],
        balance_classes=[f"b{i}" for i in range(0, len(BALANCES), 2)],
        tolerances=[(d, tolerance.OUTPUT[d], tolerance.GRADIENT[d], tolerance.REASONS[d]) for d in dtypes],
        footer=_footer(reports),
        **{"MAPS": MAPS, "DIVERGENCES": DIVERGENCES, "BFLOAT16": BFLOAT16},
        number=_number,
        noise_in_words=noise_in_words,
        subject=_subject,
        tip=_tip,
        error_class=_error_class,
        strip_cells=_strip_cells,
        error_chart=_error_chart,
        error_map=lambda rows: _heat_map(rows, _error_class, _tip),
        balance_map=lambda rows: _heat_map(rows, _balance_class, _balance_tip),
    )


def noise_in_words(report: Report) -> str:
    """Return a sentence on the rows of a Report that are noise."""
    return (
        f"on {len(report.noise)} of {counted(len(report.rows), 'tensor')} PyTorch itself is further from the float64 "
        "truth than the tolerance, so that agreement with it would show nothing; there, what is judged is "
        "that Paddle is no more than twice as far"
    )


class _Cell(NamedTuple):
    """A coloured rectangle: its class, its tooltip, its place."""

    colour: str
    tip: str
    x: float
    y: float = 0
    width: int = 1
    height: int = 1


def _strip_cells(rows: Sequence[Row]) -> list[_Cell]:
    """Lay out one line of cells; neighbours of one colour are one rectangle."""
    cells, x = [], 0
    for colour, group in itertools.groupby(rows, _error_class):
        run = list(group)
        span = run[0].name if len(run) == 1 else f"{run[0].name} to {run[-1].name}"
        tip = f"{span}: {_number(max(run, key=_badness).max_rel)}"
        cells.append(_Cell(colour, tip, x, width=len(run)))
        x += len(run)
    return cells


def _error_chart(report: Report) -> dict[str, Any] | None:
    """Lay out the error against depth on a log scale, forward and backward, with the tolerances; None without rows."""
    rows = {kind: report.of_kind(kind) for kind in ("output", "output gradient") if report.of_kind(kind)}
    if not rows:
        return None
    places = {row.name: i for i, row in enumerate(next(iter(rows.values())))}
    limits = {kind: of_kind[0].tolerance for kind, of_kind in rows.items()}
    values = [row.max_rel for of_kind in rows.values() for row in of_kind if 0 < row.max_rel < math.inf]
    values += limits.values()
    top, bottom = math.ceil(math.log10(max(values))) + 0.4, math.floor(math.log10(min(values))) - 0.4
    width, height, left, right = 1000, 240, 46, 992

    def x(share: float) -> float:
        return round(left + (right - left) * share, 1)

    def y(value: float) -> float:
        value = 10**bottom if value == 0 else value if math.isfinite(value) else 10**top
        return round(8 + (height - 34) * (top - math.log10(value)) / (top - bottom), 1)

    powers = range(math.ceil(bottom), math.floor(top) + 1, max(1, round((top - bottom) / 9)))
    return {
        **{"width": width, "height": height, "left": left, "right": right},
        "grid": [(y(10.0**power), f"1e{power}") for power in powers],
        "lines": [
            {
                "kind": kind,
                "name": "forward" if kind == "output" else "backward",
                "tolerance": limits[kind],
                "y": y(limits[kind]),
                "shift": -5 if limits[kind] == max(limits.values()) else 14,  # of the label
                "points": [
                    (x((places.get(row.name, 0) + 0.5) / len(places)), y(row.max_rel), row) for row in of_kind
                ],
            }
            for kind, of_kind in rows.items()
        ],
        "depths": [(x(place), name) for name, place in _stage_starts(places)],
    }


def _stage_starts(places: Mapping[str, int]) -> list[tuple[str, float]]:
    """Return where the parts of the network begin, as shares of its depth; not more names than fit."""
    starts: dict[str, int] = {}
    for name, i in places.items():
        starts.setdefault(_block(name)[0], i)
    chosen, last = [], -1.0
    for name, i in starts.items():
        place = i / len(places)
        if place - last > 0.011 * (len(name) + 2) and place < 0.97:
            chosen.append((name, place))
            last = place + 0.004 * len(name)
    return chosen


def _heat_map(rows: Sequence[Row], colour: Callable[[Row], str], tip: Callable[[Row], str]) -> dict[str, Any]:
    """Lay out blocks from left to right, the sublayers of a block from top to bottom."""
    whole = "output" if rows[0].kind.startswith("output") else "itself"
    if rows[0].kind in ("output gradient", "parameter gradient"):
        rows = rows[::-1]  # they come from the loss
    blocks: dict[str, int] = {}
    lines: dict[str, int] = {}
    worst: dict[tuple[int, str], Row] = {}
    for row in rows:
        block, inside = _block(row.name)
        lines.setdefault(inside, len(lines))
        place = blocks.setdefault(block, len(blocks)), inside
        if place not in worst or _badness(worst[place]) < _badness(row):
            worst[place] = row
    order = {name: i for i, name in enumerate(sorted(lines, key=lambda name: (name == "", lines[name])))}
    width, height = max(7, min(22, 900 // len(blocks))), 13
    left = 16 + 6 * max(len(name) for name in (*lines, whole))
    bottom = 4 + len(lines) * height
    every = math.ceil(11 / width)  # so that names do not touch
    return {
        "width": left + len(blocks) * width + 4,
        "height": bottom + 14 + 6 * max(len(name) for name in blocks),
        "cells": [
            _Cell(colour(row), tip(row), left + x * width, 4 + order[line] * height, width - 1, height - 1)
            for (x, line), row in worst.items()
        ],
        "lines": [(left - 8, 14 + order[name] * height, name or whole) for name in lines],
        "columns": [
            (left + (x + 0.5) * width - 3, bottom + 6, name) for name, x in blocks.items() if x % every == 0
        ],
    }


def _block(name: str) -> tuple[str, str]:
    """Return ("blocks.3", "attn.qkv") of "blocks.3.attn.qkv"; what is no block is one by its first part."""
    match = re.match(r"((?:layers\.\d+\.blocks|\w+?)\.\d+)(?:\.(.*))?$", name)
    if match and (not match[1].startswith("layers.") or ".blocks." in match[1]):
        return match[1], match[2] or ""
    first, _, rest = name.partition(".")
    if first == "layers":  # a stage's own part, such as its downsampling
        stage, _, rest = rest.partition(".")
        first = f"layers.{stage}"
    return first, rest


def _subject(report: Report) -> str:
    """Return what was compared, in one line."""
    subject = {name: v for name, v in report.subject.items() if name != "labels" and v not in (None, {}, [])}
    return ", ".join(f"{name} {value}" for name, value in subject.items())


def _compared(reports: Sequence[Report]) -> str:
    """Return what was done, in one sentence."""
    what = "The same weights and the same images went through"
    pairs = dict.fromkeys((report.candidate, report.reference) for report in reports)
    alone = [candidate for candidate, reference in pairs if reference == RECORDED]
    if alone:
        return f"{what} {' and '.join(alone)}, and what came out was compared with {RECORDED}."
    names = dict.fromkeys(name for pair in pairs for name in pair)
    return f"{what} {' and '.join('PaddlePaddle' if name == 'Paddle' else name for name in names)}."


def _footer(reports: Sequence[Report]) -> str:
    versions = {name: version for report in reports for name, version in report.versions.items()}
    machine = "; ".join(dict.fromkeys(report.machine for report in reports))
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return f"{', '.join(f'{name} {version}' for name, version in versions.items())} · {machine} · {now}"


def _colours() -> dict[str, str]:
    """Return {class name: colour} of cells."""
    names = {f"h{i}": _between(SCALE, level) for i, level in enumerate(LEVELS)}
    names.update({f"b{i}": _between(BALANCE, level) for i, level in enumerate(BALANCES)})
    return {**names, "exact": EXACT, "beyond": BEYOND}


def _between(stops: Sequence[tuple[float, str]], value: float) -> str:
    """Return the colour at `value` between ((value, colour), ...)."""
    for (low, first), (high, second) in zip(stops, stops[1:]):
        if value <= high:
            share = (value - low) / (high - low)
            pairs = ((int(first[i : i + 2], 16), int(second[i : i + 2], 16)) for i in (1, 3, 5))
            return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)
    return stops[-1][1]


def _error_class(row: Row) -> str:
    """Return the class of a row's cell by its error."""
    if not row.passed or row.max_rel == 0:
        return "exact" if row.passed else "beyond"
    power = math.log10(row.ratio or 1e-300)
    return f"h{next(i for i, level in enumerate(LEVELS) if power <= level)}"


def _balance_class(row: Row) -> str:
    """Return the class of a row's cell by which framework is further from the truth."""
    paddle, torch = row.paddle_distance, row.torch_distance
    power = math.log2(paddle / torch) if paddle and torch else BALANCES[0]
    return f"b{min(range(len(BALANCES)), key=lambda i: abs(BALANCES[i] - power))}"


def _badness(row: Row) -> tuple[bool, float]:
    return (not row.passed, math.inf if math.isnan(row.ratio) else row.ratio)


def _tip(row: Row) -> str:
    shape = "x".join(map(str, row.shape)) or "scalar"
    return f"{row.name or row.kind} [{shape}]: {_number(row.max_rel)}, allowed {_number(row.tolerance)}"


def _balance_tip(row: Row) -> str:
    return (
        f"{row.name}: PyTorch {_number(row.torch_distance)}, Paddle {_number(row.paddle_distance)}, "
        f"allowed {_number(row.allowed_distance)}"
    )


def _number(value: float | None) -> str:
    return "0" if not value else f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
