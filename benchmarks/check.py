"""Compare the ratios of the last results with a kept baseline, and name what fell.

    python benchmarks/check.py                 compare results/*.json with baseline.json
    python benchmarks/check.py --write         make them the new baseline

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
}
BENCHMARKS = (*SUBJECTS, "attention", "resolution")
TOLERANCE = 0.15  # a ratio may fall by this share: quartiles of one run lie about 10% apart


def ratios(facts: dict) -> dict[str, float]:
    """Return {what: how many times as fast as the others that one is} of one report."""
    found = {}
    key, subject = SUBJECTS.get(facts["benchmark"], ("form", "InLine"))
    skipped = {key, "seconds", "peak_mib", "images_per_second", "images_per_second_and_core", "over_timm"}
    groups = {}
    for row in facts["rows"]:
        if "seconds" in row:
            group = ", ".join(f"{value}" for name, value in row.items() if name not in skipped)
            groups.setdefault(group, {})[row[key]] = row["seconds"]["median"]
    for group, seconds in groups.items():
        for other, value in seconds.items():
            if other != subject and subject in seconds:
                found[f"{facts['benchmark']}: {subject} over {other}, {group}"] = value / seconds[subject]
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
    if arguments.write:
        text = json.dumps({what: round(value, 3) for what, value in sorted(now.items())}, indent=1)
        arguments.baseline.write_text(text + "\n", encoding="utf-8")
        print(f"{len(now)} ratios -> {arguments.baseline}")
        return 0
    if not arguments.baseline.is_file():
        print(f"no {arguments.baseline}: make one with --write", file=sys.stderr)
        return 2
    baseline = json.loads(arguments.baseline.read_text(encoding="utf-8"))
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
