"""What the benchmarks share: engines by name, one report as JSON, table and picture."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from paddle_inline.utils.environment import tune_cpu

STARTED_WITH = dict(os.environ)  # before anything is set for Paddle
os.environ.setdefault("GLOG_minloglevel", "2")  # Paddle's notes on its own passes
tune_cpu()

from paddle_inline.utils.timing import machine  # noqa: E402
from paddle_inline.weights.atomic import atomic_write  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "results"


def positive(kind: type) -> Callable[[str], Any]:
    """Return an argument's type: a number above 0 that is finite, as `kind` reads it."""

    def read(text: str) -> Any:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    read.__name__ = "whole number" if kind is int else "number"  # argparse's word for what it could not read
    return read


def could_not_run(what: str, error: Exception) -> str:
    """Print what a benchmark has to do without, so that it is seen; return the line for its report."""
    why = f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"
    print(f"\n!!! COULD NOT RUN {what}: {why}\n", file=sys.stderr, flush=True)
    return f"{what}: {why}"


def versions() -> dict[str, str]:
    """Return {package: version} of the frameworks that are loaded."""
    names = ("paddle", "torch", "onnxruntime", "openvino", "numpy")
    return {name: sys.modules[name].__version__ for name in names if name in sys.modules}


def report(
    name: str,
    arguments: list[str],
    rows: list[dict],
    missing: list[str],
    say: bool = True,
    small: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """Write results/NAME.json and return it: machine, versions, command, rows, what could not run.

    With `say`, its path is printed. `small`: NAME_small.json, beside what was really measured. `more` is added to it.
    """
    facts = {
        "benchmark": name,
        "command": " ".join(["python", f"benchmarks/{name}.py", *arguments]),
        "machine": {**machine(), **accelerator()},
        "versions": versions(),
        "could_not_run": missing,
        **more,
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}{'_small' if small else ''}.json"
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    if say:
        print(f"\n{path}")
    return facts


def accelerator() -> dict[str, str]:
    """Return {"gpu": its name} of the first GPU of a loaded framework; {} without."""
    torch, paddle = sys.modules.get("torch"), sys.modules.get("paddle")
    if torch is not None and torch.cuda.is_available():
        return {"gpu": torch.cuda.get_device_name()}
    if paddle is not None and paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count():
        return {"gpu": paddle.device.cuda.get_device_name()}
    return {}


def print_table(columns: list[str], rows: list[list]) -> None:
    """Print rows of text and numbers under their columns."""
    cells = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells)]
    for row in [columns, *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip(), flush=True)


def plotting() -> Any:
    """Return matplotlib's pyplot, drawing to files; None, with a message, where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError as error:
        could_not_run("the picture", error)
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def figure(
    name: str, title: str, xlabel: str, ylabel: str, lines: dict[str, tuple[list, list]], log: bool = True
) -> None:
    """results/NAME.png: {label: ([x], [y])} as lines, on logarithmic axes."""
    pyplot = plotting()
    if pyplot is None:
        return
    _, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for (label, (x, y)), colour in zip(lines.items(), pyplot.cm.turbo(np.linspace(0, 1, len(lines)))):
        style = "--" if "softmax" in label else "-"
        axes.plot(x, y, marker="o", label=label, linestyle=style, color=colour)
    if log:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    RESULTS.mkdir(exist_ok=True)
    pyplot.savefig(RESULTS / f"{name}.png", dpi=130)
    pyplot.close()
    print(RESULTS / f"{name}.png")
