"""Compare the ratios of the last results with a kept baseline, and name what fell.

    python benchmarks/check.py                 compare results/*.json with baseline.json
    python benchmarks/check.py --write         put them into the baseline; what was not measured stays
    python benchmarks/check.py --results docs/figures --write      put the kept records into it

Ratios between engines or forms of one run, not seconds: they last on a busy machine. On another processor they differ,
so the baseline has them by processor; a run on one that it does not have is compared with the lowest of all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common import atomic_write

HERE = Path(__file__).resolve().parent
SUBJECTS = {  # benchmark: the column of what is compared, and the one that others are compared with; else InLine
    "inference": ("engine", "openvino"),
    "training": ("framework", "paddle"),
    "loader": ("pipeline", "paddle_inline"),
    "attention_forms": ("form", "inline"),
    "predict": ("form", "overlapped"),
}
# What else is compared with what. Other pairs are of one precision: a faster bfloat16 is no loss of float32.
PAIRS = {
    ("openvino-bf16", "openvino"),
    ("openvino-bf16", "torch-openvino-bf16"),
    ("openvino-int8", "openvino-bf16"),
    ("paddle_inline, in full", "timm"),
}
PRECISIONS = ("bf16", "int8")
BENCHMARKS = (*SUBJECTS, "attention", "resolution", "dense", "scaling")
MEASURED = {"seconds", "peak_mib", "images_per_second", "images_per_second_and_core", "over_timm", "MiB"}
# Columns of a row that only say when, and with what.
OF_THE_RUN = {"date", "paddle", "torch", "onnxruntime", "openvino", "numpy"}
TOLERANCE = 0.15  # a ratio may fall by this share: quartiles of one run lie about 10% apart


def ratios(facts: dict) -> dict[str, float]:
    """Return {what: how many times as fast, or as small in memory, as the others that one is} of one report."""
    name = facts["benchmark"]
    if name == "scaling":  # what a ring would send, over what was sent
        rows = [row for row in facts["rows"] if row.get("bytes")]
        return {
            f"scaling: bytes of a ring over those sent, {row['model']}, {row['ranks']}": row["expected_bytes"]
            / row["bytes"]
            for row in rows
        }
    key, subject = SUBJECTS.get(name, ("form", "InLine"))
    skipped = {key} | MEASURED | OF_THE_RUN | ({"images"} if name == "predict" else set())
    groups: dict[str, dict[str, dict[str, float]]] = {}  # group, quantity, what is compared
    for row in facts["rows"]:
        group = ", ".join(f"{value}" for column, value in row.items() if column not in skipped)
        values = {"": row.get("seconds"), "memory, ": row.get("MiB")}
        for quantity, value in values.items():
            if value is not None:
                of_quantity = groups.setdefault(quantity + group, {})
                of_quantity[row[key]] = value["median"] if isinstance(value, dict) else value
    found = {}
    for group, measured in groups.items():
        others = {
            (subject, other)
            for other in measured
            if other != subject and precision(other) == precision(subject)
        }
        for one, other in sorted(others | PAIRS):
            if one in measured and other in measured:
                found[f"{name}: {one} over {other}, {group}"] = measured[other] / measured[one]
    return found


def precision(engine: str) -> str:
    """Return the precision that an engine's name ends in; "": float32, or no engine."""
    return next((each for each in PRECISIONS if engine.endswith(f"-{each}")), "")


def regressions(
    baseline: dict[str, float], now: dict[str, float], tolerance: float = TOLERANCE
) -> list[tuple[str, float, float]]:
    """Return [(what, before, now)] of the ratios that fell by more than the tolerance."""
    return [
        (what, before, now[what])
        for what, before in sorted(baseline.items())
        if what in now and now[what] < before * (1 - tolerance)
    ]


def read(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        SystemExit: it cannot be read, with one line and code 2.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"{path} cannot be read as JSON ({error}); mend it or move it away", file=sys.stderr)
        raise SystemExit(2) from None


def measured_by_processor(reports: Iterable[Any]) -> dict[str, dict[str, float]]:
    """Return {processor or GPU: ratios} of the reports that are a benchmark's."""
    now: dict[str, dict[str, float]] = {}
    for facts in reports:
        if isinstance(facts, dict) and facts.get("benchmark") in BENCHMARKS:
            machine = facts.get("machine", {})
            where = machine.get("gpu") or machine.get("processor") or "unknown"
            now.setdefault(where, {}).update(ratios(facts))
    return {where: found for where, found in now.items() if found}


def lowest(baseline: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the lowest ratio of all processors."""
    found: dict[str, float] = {}
    for kept in baseline.values():
        for what, value in kept.items():
            found[what] = min(value, found.get(what, value))
    return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--baseline", type=Path, default=HERE / "baseline.json")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args(argv)
    now = measured_by_processor(read(path) for path in sorted(arguments.results.glob("*.json")))
    if not now:
        print(f"no results in {arguments.results}: run a benchmark first", file=sys.stderr)
        return 2
    known = arguments.baseline.exists()
    baseline = read(arguments.baseline) if known else {}
    if not isinstance(baseline, dict) or not all(isinstance(kept, dict) for kept in baseline.values()):
        print(f"{arguments.baseline} is no {{processor: {{what: ratio}}}}; move it away", file=sys.stderr)
        return 2
    if arguments.write:
        return write(arguments.baseline, baseline, now)
    if not (known and baseline):
        print(f"no ratios in {arguments.baseline}: make it with --write", file=sys.stderr)
        return 2
    return max(compare(where, baseline, found) for where, found in sorted(now.items()))


def write(path: Path, baseline: dict[str, dict[str, float]], now: dict[str, dict[str, float]]) -> int:
    """Put ratios into the baseline; those that it has besides stay."""
    for where, found in now.items():
        kept = baseline.setdefault(where, {})
        stay = len(set(kept) - set(found))
        kept.update({what: round(value, 3) for what, value in found.items()})
        print(f"{where}: {len(found)} ratios -> {path}, {stay} others stay")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(baseline, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


def compare(where: str, baseline: dict[str, dict[str, float]], now: dict[str, float]) -> int:
    """Print what fell on a processor; return 1 where something did."""
    kept = baseline.get(where)
    if kept is None:
        kept = lowest(baseline)
        print(f"the baseline has no {where}: compared with the lowest of {', '.join(sorted(baseline))}")
    down = regressions(kept, now)
    for what, before, value in down:
        print(f"FELL from {before:.2f} to {value:.2f}: {what}")
    missing = set(kept) - set(now)
    print(
        f"{where}: {len(kept) - len(missing) - len(down)} of {len(kept)} ratios hold, {len(missing)} were not measured"
    )
    return 1 if down else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
