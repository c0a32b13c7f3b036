"""The page, the table and the picture of a comparison: files that need nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import MissingPackageError
from ..utils.html import render_page
from ..weights.atomic import atomic_write
from . import charts, figure
from .inside import map_url
from .summary import COLUMNS, KINDS, shown, to_csv

TEMPLATE = Path(__file__).with_name("templates") / "compare.html"
MOST_BEST = 3  # a value that more forms have is no distinction
ALWAYS = ("softmax", "inline")  # named in every chart


def write_page(results: Mapping[str, Any], output: Path, picture: str) -> list[Path]:
    """Write index.html, results.csv and results.png.

    Args:
        results: of `summary.summarise`.
        output: the folder.
        picture: URL of the picture whose maps are shown.

    Returns:
        The files. There is no results.png without matplotlib.
    """
    written = [output / "index.html", output / "results.csv"]
    for path, text in zip(written, (page(results, picture), to_csv(results))):
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")
    try:
        figure.draw(results, output / "results.png")
        written.append(output / "results.png")
    except MissingPackageError:
        pass
    return written


def page(results: Mapping[str, Any], picture: str) -> str:
    """Return the page as HTML text; arguments as for `write_page`."""
    rows = sorted(results["rows"], key=lambda row: (-(row["top1"] or 0), row["name"]))
    return render_page(
        TEMPLATE,
        title=f"{len(rows)} forms of attention in one network" if len(rows) != 1 else "One form of attention",
        results=results,
        settings=results["settings"],
        data=results["data"],
        timed=results["timed"],
        trained=results["trained"],
        columns=[column._asdict() for column in COLUMNS],
        rows=[_table_row(row, rows) for row in rows],
        kinds=KINDS,
        facts=_facts(rows),
        scatter=_scatter(rows),
        charts=[chart for chart in _charts(rows) if chart["marks"]],
        picture=picture,
        maps=[
            {"name": row["name"], "urls": [map_url(np.array(row["maps"][key])) for key in ("middle", "all")]}
            for row in rows
            if row.get("maps")
        ],
        notes=[
            (row["name"], [*row["notes"], *_reasons(row)]) for row in rows if row["notes"] or row["reasons"]
        ],
    )


def _table_row(row: Mapping[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    cells = []
    for column in COLUMNS:
        value = row[column.key]
        known = [other[column.key] for other in rows if other[column.key] is not None]
        best = column.better and value is not None and len(known) > 1
        best = best and value == (max if column.better == "high" else min)(known)
        best = best and known.count(value) <= MOST_BEST
        cells.append(
            {
                "text": shown(row, column),
                "sort": "" if value is None or value != value else value,
                "why": row["reasons"].get(column.key, ""),
                "best": bool(best),
                "bar": _share(value, known) if column.key == "top1" and value is not None else None,
            }
        )
    return {"name": row["name"], "kind": row["kind"], "source": row["source"], "cells": cells}


def _share(value: float, known: list[float]) -> float:
    low, high = min(known), max(known)
    return 100 * (0.08 + 0.92 * (value - low) / (high - low)) if high > low else 100


def _reasons(row: Mapping[str, Any]) -> list[str]:
    """Return why cells are empty, each reason once."""
    titles = {column.key: column.title for column in COLUMNS}
    why: dict[str, list[str]] = {}
    for key, reason in row["reasons"].items():
        why.setdefault(reason, []).append(titles[key])
    return [f"{', '.join(keys)}: {reason}" for reason, keys in why.items()]


def _facts(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return what the page says first: the most accurate, the fastest, the least confused."""
    facts = []
    for key, what, text in (
        ("top1", "most accurate", "{:.2f} %"),
        ("speed", "fastest", "{:,.0f} images/s"),
        ("speed4", "fastest with 16 times the tokens", "{:,.1f} images/s"),
    ):
        known = [row for row in rows if row[key] is not None]
        if known:
            best = max(known, key=lambda row: row[key])
            facts.append({"what": what, "name": best["name"], "value": text.format(best[key])})
    ranked = [row for row in rows if row["rank"] is not None and row.get("head_width")]
    if ranked:
        full = sum(row["rank"] == row["head_width"] for row in ranked)
        facts.append(
            {"what": "locally one to one", "name": f"{full} of {len(ranked)}", "value": "forms with rows"}
        )
    return facts


def _scatter(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    points = [
        charts.Series(row["name"], row["kind"], [(row["speed"], row["top1"])])
        for row in rows
        if row["speed"] is not None and row["top1"] is not None
    ]
    if not points:
        return None
    return charts.chart(
        points,
        title="Accuracy against speed",
        x="images/s in inference, at the network's own size",
        y="held-out top-1, %",
        log="x",
        width=900,
        height=460,
    )


def _charts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def lines(values: Any) -> list[charts.Series]:
        return [charts.Series(row["name"], row["kind"], [p for p in values(row) if p[1]]) for row in rows]

    def growth(key: str) -> Any:
        return lambda row: [(found["tokens"], found[key]) for found in row.get("growth", ())]

    return [
        charts.chart(
            lines(lambda row: list(enumerate(row.get("curve", ()), 1))),
            title="Held-out accuracy",
            x="epoch",
            y="%",
            labelled=ALWAYS,
        ),
        charts.chart(
            lines(lambda row: [(tokens, 1e3 * s) for tokens, s in growth("seconds")(row)]),
            title="Time of a layer",
            x="tokens",
            y="ms",
            log="xy",
            labelled=ALWAYS,
        ),
        charts.chart(
            lines(growth("memory")), title="Memory of a layer", x="tokens", y="MiB", log="xy", labelled=ALWAYS
        ),
        charts.chart(
            lines(lambda row: [(i, 100 * share) for i, share in enumerate(row.get("local_by_block", ()), 1)]),
            title="Weight on the 3x3 neighbourhood",
            x="layer",
            y="% of |weight|",
            labelled=ALWAYS,
        ),
    ]
