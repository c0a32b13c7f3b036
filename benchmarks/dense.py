"""Time and peak memory of backbones at the sizes of segmenters and detectors, InLine against softmax twins.

    python benchmarks/dense.py --models inline_pvt_tiny --sizes 512x512
    python benchmarks/dense.py --models inline_swin_tiny --sizes 800x1344

One image, forward and backward, each measurement in a process of its own and one after the other. It runs in parts:
each measurement is written to results/dense.json when it is made, and a later call goes on with those that are not
there (--again: with all).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from common import RESULTS, could_not_run, print_table, report, versions

from paddle_inline.utils.timing import machine, peak_memory

# The spatial-reduction twin is PVT's own; without reduction every token attends to every token.
WHOLE = {"attn_type": "SSSS", "sr_ratios": (1, 1, 1, 1)}
FORMS: dict[str, dict[str, Any]] = {"InLine": {}, "softmax": {"attn_type": "SSSS"}, "unreduced": WHOLE}
MODELS = ["inline_pvt_tiny", "inline_swin_tiny", "inline_cswin_tiny", "soft_tiny", "soft_norm_tiny"]
SIZES = ["512x512", "800x1344"]
CELL = ("model", "size", "form", "backward")  # what makes a measurement the same


def measure(
    name: str, overrides: dict[str, Any], size: tuple[int, int], backward: bool
) -> tuple[float, float, dict[str, str]]:
    """Return (seconds of the second pass, mebibytes by which two passes raise the process's peak, versions)."""
    import paddle

    from paddle_inline import create_backbone

    backbone = create_backbone(name, **overrides)
    backbone.train() if backward else backbone.eval()
    images = paddle.randn([1, 3, *size])
    before, seconds = peak_memory(), 0.0
    for _ in range(2):
        started = time.perf_counter()
        if backward:
            sum(x.mean() for x in backbone(images)).backward()
            backbone.clear_gradients()
        else:
            with paddle.no_grad():
                backbone(images)
        seconds = time.perf_counter() - started
    return seconds, peak_memory() - before, versions()


def forms_of(name: str, asked: list[str]) -> list[str]:
    """Return the forms of a model among those that are asked for: SOFT has one, and PVT alone can be unreduced."""
    if name.startswith("soft"):
        return ["own"]
    return [form for form in asked if form != "unreduced" or "_pvt_" in name]


def cells(models: list[str], sizes: list[str], forms: list[str]) -> list[tuple[str, str, str, bool]]:
    """Return what is to be measured, CELL by CELL, in order."""
    return [
        (name, size, form, backward)
        for size in sizes
        for name in models
        for backward in (False, True)
        for form in forms_of(name, forms)
    ]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="HxW", help="pixels")
    parser.add_argument("--forms", nargs="+", default=["InLine", "softmax"], choices=FORMS)
    parser.add_argument("--again", action="store_true", help="measure again what is there already")
    arguments = parser.parse_args(argv)
    path, rows, missing = RESULTS / "dense.json", dict[Any, Any](), list[str]()
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if any(kept["machine"][key] != machine()[key] for key in ("processor", "cores")):
            print(f"error: {path} is of another machine; move it away", file=sys.stderr)
            return 2
        rows = {tuple(row[key] for key in CELL): row for row in kept["rows"]}
    fresh = multiprocessing.get_context("spawn")
    for cell in cells(arguments.models, arguments.sizes, arguments.forms):
        if cell in rows and not arguments.again:
            continue
        name, size, form, backward = cell
        height, width = map(int, size.split("x"))
        try:
            with ProcessPoolExecutor(1, fresh) as pool:
                what = (name, FORMS.get(form, {}), (height, width), backward)
                seconds, mebibytes, loaded = pool.submit(measure, *what).result()
        except Exception as error:
            missing.append(could_not_run(f"{name} {form} at {size}", error))
            continue
        numbers = {"seconds": round(seconds, 3), "MiB": round(mebibytes), "date": machine()["date"], **loaded}
        rows[cell] = {**dict(zip(CELL, cell)), **numbers}
        report("dense", argv, list(rows.values()), missing, say=False, batch=1)
    columns = [*CELL, "seconds", "MiB"]
    print_table(columns, [[row[column] for column in columns] for row in rows.values()])
    report("dense", argv, list(rows.values()), missing, batch=1)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
