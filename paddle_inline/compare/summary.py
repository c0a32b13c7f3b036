"""From what was measured to the rows that are shown: one for each form, plain values, and lines of text."""

from __future__ import annotations

import csv
import io
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .. import __version__
from ..layers.attention import list_attentions
from ..utils.errors import counted
from .plan import Plan
from .timing import slopes

Found = Mapping[tuple[str, int], "dict[str, Any] | None"]
REMARKS = {
    "enhanced": "EfficientViT's published module, not the Enhanced Linear Attention row of published tables",
    "hydra": "its numbers were compared with an unofficial code",
}


# how a row is coloured: by its form's cost, and by the rank of its rows' derivative
KINDS = {
    "injective": "linear, rows locally one to one",
    "confused": "linear, rows not one to one",
    "quadratic": "quadratic",
    "none": "linear, without rows",
}


class Column(NamedTuple):
    """A column of the table.

    Attributes:
        key: of a row; title: over it; format: of `%`, for the page; better: "high", "low" or "" for neither.
        help: what it is.
    """

    key: str
    title: str
    format: str
    better: str
    help: str


COLUMNS = (
    Column("top1", "top-1 %", "%.2f", "high", "held-out accuracy after the last epoch, mean over the seeds"),
    Column("spread", "±", "%.2f", "low", "standard deviation over the seeds"),
    Column("params", "params", "%d", "low", "trainable numbers of the whole network"),
    Column(
        "macs", "M MACs", "%.2f", "low", "millions of multiply-adds of one image: products and convolutions"
    ),
    Column("speed", "images/s", "%.0f", "high", "inference at the network's own size"),
    Column("speed2", "at 2x", "%.0f", "high", "images/s at twice the side, four times the tokens"),
    Column("speed4", "at 4x", "%.1f", "high", "images/s at four times the side, sixteen times the tokens"),
    Column("training_speed", "training", "%.0f", "high", "images/s forward and backward"),
    Column(
        "memory",
        "MiB",
        "%.0f",
        "low",
        "peak of a training step beside the weights, as Paddle's allocator counts",
    ),
    Column("time_slope", "time ~N^", "%.2f", "low", "exponent of a layer's time in its tokens, 784 to 3,136"),
    Column("memory_slope", "memory ~N^", "%.2f", "low", "exponent of a layer's peak memory in its tokens"),
    Column(
        "confused",
        "confused %",
        "%.2f",
        "low",
        "pairs of different queries of the trained network whose rows agree",
    ),
    Column("rank", "rank", "%d", "high", "of the derivative of a row by its query, at most the heads' width"),
    Column("local", "local %", "%.1f", "", "weight on the 3x3 neighbourhood, mean over the blocks"),
    Column("without_local", "no 3x3", "%.1f", "", "accuracy with the weights of the 3x3 neighbours set to 0"),
    Column("without_random", "no random", "%.1f", "", "accuracy with as many random weights set to 0"),
)


def summarise(
    plan: Plan, results: Found, insides: Found, costs: Mapping[str, Any], speed: dict[str, Any] | None
) -> dict[str, Any]:
    """Put what was measured together.

    Args:
        plan: the comparison.
        results, insides: {(form, seed): what `train` and `inspect` wrote, or None}.
        costs: {form: what `timing.costs` returned}.
        speed: what `timing.measure` returned, or None.

    Returns:
        {"plan", "version", "date", "machine", "rows": one of `form_row` for each form, "columns"}.
    """
    rows = []
    for form in plan.forms:
        rows.append(
            form_row(
                form.name,
                form.attention,
                [found for seed in range(plan.seeds) if (found := results.get((form.name, seed)))],
                [found for seed in range(plan.seeds) if (found := insides.get((form.name, seed)))],
                costs.get(form.name),
                speed,
            )
        )
    some = next((found for found in results.values() if found), None)
    facts = {key: some[key] for key in ("images", "held_out_images", "classes")} if some else {}
    timed = (
        {key: speed[key] for key in ("machine", "rounds", "threads", "load_after", "paddle")}
        if speed
        else None
    )
    return {
        "version": __version__,
        "date": time.strftime("%Y-%m-%d"),
        "settings": plan.settings(),
        "data": facts,
        "timed": timed,
        "trained": {
            "done": sum(found is not None for found in results.values()),
            "of": len(results),
            "seconds": sum(found["seconds"] for found in results.values() if found),
        },
        "rows": rows,
    }


def form_row(
    name: str,
    attention: str,
    results: Sequence[dict[str, Any]],
    insides: Sequence[dict[str, Any]],
    costs: Mapping[str, Any] | None,
    speed: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return one form's row: its name, the keys of COLUMNS (None: not known), its curves, maps and notes."""
    row: dict[str, Any] = {column.key: None for column in COLUMNS}
    known = list_attentions()[attention]
    row.update(name=name, attention=attention, seeds=len(results), notes=[], reasons={})
    row.update(source=known.source, complexity=known.complexity, kind=kind_of(known))
    if attention in REMARKS:
        row["notes"].append(REMARKS[attention])
    diverged = [found["diverged"] for found in results if found.get("diverged")]
    if diverged:
        row["notes"].append(f"{len(diverged)} of {counted(len(results), 'training')} diverged: {diverged[0]}")
        row["reasons"].update(top1="every training diverged", spread="every training diverged")
    results = [found for found in results if not found.get("diverged")]
    if results:
        values = [found["top1"] for found in results]
        row["top1"] = statistics.fmean(values)
        row["spread"] = statistics.stdev(values) if len(values) > 1 else None
        row["values"] = values
        row["curve"] = _mean_curve([found["curve"] for found in results])
        row["loss_curve"] = _mean_curve([found["losses"] for found in results])
        row["training_seconds"] = statistics.fmean(found["seconds"] for found in results)
    _add_inside(row, insides)
    if costs is not None:
        _add_costs(row, costs)
    if speed is not None and name in speed["forms"]:
        _add_speed(row, name, speed)
    return row


def kind_of(known: Any, rank: int | None = None, head_width: int | None = None) -> str:
    """Return a key of KINDS for a form: by its row of `list_attentions`, and by the measured rank if there is one."""
    if not known.linear:
        return "quadratic"
    if not known.rows:
        return "none"
    injective = known.injective if rank is None else rank == head_width
    return "injective" if injective else "confused"


def _mean_curve(curves: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.fmean(values) for values in zip(*curves)]


def _add_inside(row: dict[str, Any], insides: Sequence[dict[str, Any]]) -> None:
    reasons = [found["reason"] for found in insides if "reason" in found]
    if reasons:
        row["reasons"].update(
            dict.fromkeys(("confused", "local", "without_local", "without_random"), reasons[0])
        )
        return
    if not insides:
        return
    row["confused_by_block"] = _mean_curve([found["confused"] for found in insides])
    row["local_by_block"] = _mean_curve([found["local"] for found in insides])
    row["confused"] = 100 * statistics.fmean(row["confused_by_block"])
    row["local"] = 100 * statistics.fmean(row["local_by_block"])
    row["even"] = insides[0]["even"]
    row["maps"] = insides[0]["maps"]
    facts = {key: max(found["rows"][key] for found in insides) for key in ("negative", "high")}
    low = min(found["rows"]["low"] for found in insides)
    row["rows"] = {**facts, "low": low}
    if facts["negative"] > 0:
        row["notes"].append(
            f"up to {100 * facts['negative']:.0f} % of its weights are below 0: shares are of |weights|"
        )
    if abs(low - 1) > 0.01 or abs(facts["high"] - 1) > 0.01:
        row["notes"].append(
            f"its rows sum to {low:.3g} to {facts['high']:.3g}, not to 1: shares are of |weights|"
        )
    masked = [found["masked"] for found in insides if "masked" in found]
    if masked:
        row["without_local"] = statistics.fmean(found["local"] for found in masked)
        row["without_random"] = statistics.fmean(found["random"] for found in masked)
    else:
        reason = next(found["masked_reason"] for found in insides)
        row["reasons"].update(without_local=reason, without_random=reason)


def _add_costs(row: dict[str, Any], costs: Mapping[str, Any]) -> None:
    row.update(params=costs["params"], macs=costs["macs"] / 1e6, head_width=costs.get("head_width"))
    row["rank"] = costs.get("rank")
    row["kind"] = kind_of(list_attentions()[row["attention"]], row["rank"], row["head_width"])
    if row["rank"] is None:
        row["reasons"]["rank"] = row["reasons"].get("confused", "its layer shows no rows")


def _add_speed(row: dict[str, Any], name: str, speed: dict[str, Any]) -> None:
    mine = [found for found in speed["networks"] if found["form"] == name]
    sizes = sorted({tuple(found["size"]) for found in mine})
    keys = dict(zip(sizes, ("speed", "speed2", "speed4")))
    for found in mine:
        training = found["phase"] == "training"
        key = "training_speed" if training else keys[tuple(found["size"])]
        if "reason" in found:
            row["reasons"][key] = found["reason"]
            continue
        row[key] = found["images_per_s"]
        if training:
            row["memory"] = found["memory"]
    layers = [found for found in speed["layers"] if found["form"] == name]
    row["growth"] = [
        {"tokens": found["tokens"], "seconds": found["seconds"]["median"], "memory": found["memory"]}
        for found in layers
    ]
    exponents = slopes(layers)
    row.update(time_slope=exponents["time"], memory_slope=exponents["memory"])


def shown(row: Mapping[str, Any], column: Column) -> str:
    """Return a row's value as text; "-" where there is none."""
    value = row[column.key]
    if value is None or value != value:
        return "-"
    if column.key == "rank" and row.get("head_width"):
        return f"{value} of {row['head_width']}"
    return f"{value:,}" if column.format == "%d" else column.format % value


def lines(results: Mapping[str, Any]) -> list[str]:
    """Return one line of text for each form, the most accurate first, under a line of titles."""
    chosen = [
        c for c in COLUMNS if c.key not in ("speed2", "without_random", "training_speed", "memory_slope")
    ]
    rows = sorted(results["rows"], key=lambda row: -(row["top1"] or 0))
    table = [["form", *(column.title for column in chosen)]]
    table += [[row["name"], *(shown(row, column) for column in chosen)] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*table)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths))
        )
        for cells in table
    ]


def to_csv(results: Mapping[str, Any]) -> str:
    """Return the rows as comma-separated values, with full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = [column.key for column in COLUMNS]
    writer.writerow(["form", "seeds", *keys, "notes"])
    for row in results["rows"]:
        values = ["" if row[key] is None else row[key] for key in keys]
        writer.writerow([row["name"], row["seeds"], *values, "; ".join(row["notes"])])
    return text.getvalue()
