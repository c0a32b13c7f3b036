"""Compare the ratios of the last results with a kept baseline, and name what fell.

    python benchmarks/check.py                 compare results/*.json with baseline.json
    python benchmarks/check.py --write         put them into the baseline; what was not measured stays

Ratios between engines or forms of one run, not seconds: they last on another machine or a busy one.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUBJECTS = {  # benchmark: the column of what is compared, and the one that others are compared with; else InLine
    "inference": ("engine", "openvino"),
    "training": ("framework", "paddle"),
    "loader": ("pipeline", "paddle_inline"),
    "attention_forms": ("form", "inline"),
    "predict": ("form", "overlapped"),
}
# Of like precision: what else is compared with what.
PAIRS = {("openvino-bf16", "torch-openvino-bf16"), ("openvino-int8", "openvino-bf16")}
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
    skipped = {key} | MEASURED | OF_THE_RUN
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
        others = {(subject, other) for other in measured if other != subject}
        for one, other in sorted(others | PAIRS):
            if one in measured and other in measured:
                found[f"{name}: {one} over {other}, {group}"] = measured[other] / measured[one]
    return found


def regressions(
    baseline: dict[str, float], now: dict[str, float], tolerance: float = TOLERANCE
) -> list[tuple[str, float, float]]:
    """Return [(what, before, now)] of the ratios that fell by more than the tolerance."""
    return [
        (what, before, now[what])
        for what, before in sorted(baseline.items())
        if what in now and now[what] < before * (1 - tolerance)
    ]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--baseline", type=Path, default=HERE / "baseline.json")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args(argv)
    now = {}
    for path in sorted(arguments.results.glob("*.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts.get("benchmark") in BENCHMARKS:
            now.update(ratios(facts))
    if not now:
        print(f"no results in {arguments.results}: run a benchmark first", file=sys.stderr)
        return 2
    known = arguments.baseline.is_file()
    baseline = json.loads(arguments.baseline.read_text(encoding="utf-8")) if known else {}
    if arguments.write:
        kept = len(set(baseline) - set(now))
        baseline.update({what: round(value, 3) for what, value in now.items()})
        text = json.dumps(baseline, indent=1, sort_keys=True)
        arguments.baseline.write_text(text + "\n", encoding="utf-8")
        print(f"{len(now)} ratios -> {arguments.baseline}, {kept} others stay")
        return 0
    if not known:
        print(f"no {arguments.baseline}: make one with --write", file=sys.stderr)
        return 2
    down = regressions(baseline, now)
    for what, before, value in down:
        print(f"FELL from {before:.2f} to {value:.2f}: {what}")
    missing = sorted(set(baseline) - set(now))
    print(
        f"{len(baseline) - len(missing) - len(down)} of {len(baseline)} ratios hold, "
        f"{len(missing)} were not measured"
    )
    return 1 if down else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
