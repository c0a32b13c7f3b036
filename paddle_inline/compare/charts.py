"""Coordinates of charts: what a template draws as SVG. Nothing here knows of attention."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

Point = tuple[float, float]


class Series(NamedTuple):
    """A line, or a point alone, with the name by which a page finds it and a kind that gives its colour."""

    name: str
    kind: str
    points: Sequence[Point]


class Axis:
    """From values to positions, straight or by their logarithms, with round ticks.

    Args:
        values: that it must hold, finite ones; above 0 if it is logarithmic.
        start, end: positions of the least and the largest.
        log: whether it is logarithmic.
        margin: share of its length left free at either end.
    """

    def __init__(
        self, values: Iterable[float], start: float, end: float, log: bool = False, margin: float = 0.05
    ) -> None:
        self.log, self.start, self.end = log, start, end
        values = [math.log10(value) if log else value for value in values] or [0.0, 1.0]
        self.low, self.high = min(values), max(values)
        if self.high - self.low < 1e-9:
            self.low, self.high = self.low - 0.5, self.high + 0.5
        free = (self.high - self.low) * margin
        self.low, self.high = self.low - free, self.high + free

    def position(self, value: float) -> float:
        """Return where a value stands."""
        value = math.log10(value) if self.log else value
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Return (position, text) of a few round values."""
        if not self.log:
            values = _round_values(self.low, self.high)
        else:
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            factors = (1, 2, 5) if self.high - self.low < 2.5 else (1,)
            values = [10.0**d * f for d in decades for f in factors]
            values = [value for value in values if self.low <= math.log10(value) <= self.high]
            if len(values) < 2:  # as between 260 and 370
                values = _round_values(10.0**self.low, 10.0**self.high)
        gap = min((after - before for before, after in zip(values, values[1:])), default=1.0)
        return [(self.position(value), _short_number(value, gap / 1000)) for value in values]


def _round_values(low: float, high: float) -> list[float]:
    step = _round_step((high - low) / 5)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * 0.999)


def _short_number(value: float, error: float) -> str:
    """A number with as many digits as keep it within an error, so that no two ticks read alike."""
    kind = "e" if value != 0 and (abs(value) >= 1e5 or abs(value) < 1e-3) else "f"
    for digits in range(16):
        text = f"{value:,.{digits}{kind}}"
        if abs(float(text.replace(",", "")) - value) <= error:
            break
    return text.replace("e+0", "e").replace("e-0", "e-")


def chart(
    series: Sequence[Series],
    *,
    title: str,
    x: str,
    y: str,
    log: str = "",
    width: int = 460,
    height: int = 320,
    labelled: Iterable[str] | None = None,
) -> dict[str, Any]:
    """Lay out a chart.

    Args:
        series: lines, or single points.
        title, x, y: over it and along its axes.
        log: which axes are logarithmic: "", "x", "y" or "xy".
        width, height: of the drawing.
        labelled: names that are written beside their last points where there is room; None: all.

    Returns:
        What templates/charts.html draws.
    """
    series = [line for line in series if line.points]
    left, right, top, bottom = 52, 14, 14, 44
    across = Axis([p[0] for line in series for p in line.points], left, width - right, "x" in log)
    up = Axis([p[1] for line in series for p in line.points], height - bottom, top, "y" in log)
    marks: list[dict[str, Any]] = []
    for line in series:
        points = [(across.position(px), up.position(py)) for px, py in line.points]
        marks.append(
            {
                "name": line.name,
                "kind": line.kind,
                "points": points,
                "path": "M" + "L".join(f"{px:g} {py:g}" for px, py in points),
                "values": list(line.points),
            }
        )
    place_labels(
        marks, set(labelled) if labelled is not None else {mark["name"] for mark in marks}, width, top
    )
    return {
        **{"title": title, "x": x, "y": y, "width": width, "height": height},
        **{"left": left, "right": width - right, "top": top, "bottom": height - bottom},
        **{"x_ticks": across.ticks(), "y_ticks": up.ticks(), "marks": marks},
    }


def place_labels(marks: list[dict[str, Any]], wanted: set[str], width: int, top: int) -> None:
    """Put into each mark `label`, (x, y, anchor) of its name beside its last point, or None where none is free."""
    taken = [(x - 5, y - 5, x + 5, y + 5) for mark in marks for x, y in mark["points"][-1:]]
    for mark in marks:
        mark["label"] = None
        if mark["name"] not in wanted:
            continue
        (x, y), length = mark["points"][-1], 6.6 * len(mark["name"])
        for dx, dy, anchor in ((9, 4, "start"), (-9, 4, "end"), (0, -9, "middle"), (0, 17, "middle")):
            start = x + dx - {"start": 0, "middle": length / 2, "end": length}[anchor]
            box = (start, y + dy - 10, start + length, y + dy + 3)
            inside = box[0] > 0 and box[2] < width and box[1] > top - 12
            if inside and not any(_overlap(box, other) for other in taken):
                mark["label"] = (round(x + dx, 1), round(y + dy, 1), anchor)
                taken.append(box)
                break


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
