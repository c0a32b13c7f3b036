"""make demo: learn digits in Paddle, carry the weights to PyTorch, and prove the two equal, layer by layer.

Everything goes to output/demo. Exit code 1: too little was learned, or a layer differs.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from paddle_inline.utils.streams import forgiving_streams

FOLDER = Path("output/demo")
RUN = FOLDER / "inline_deit_digits" / "default"  # where the trainer puts what it makes
WEIGHTS, TORCH_WEIGHTS = RUN / "best_model.pdparams", FOLDER / "inline_deit_digits.pth"
PAGE, FIGURES = FOLDER / "parity.html", FOLDER / "parity.json"
LEAST_ACCURACY = 97.0  # percent of the held-out digits

TRAIN = f"train_paddle.py --cfg configs/quickstart.yaml --output {FOLDER}"
CONVERT = f"-m convert to-torch {WEIGHTS} {TORCH_WEIGHTS}"
VERIFY = (
    f"-m convert verify --model inline_deit_digits --weights {TORCH_WEIGHTS} --dtype float32 float64"
    f" --backward --html {PAGE} --json {FIGURES}"
)


def main():
    """All steps; returns the exit code."""
    with forgiving_streams():
        return steps()


def steps():
    """Learn, carry over, prove; returns the exit code."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    say("1. An InLine-DeiT learns handwritten digits, in Paddle")
    if code := run(TRAIN):
        return code
    accuracy = best_accuracy(RUN / "metrics.jsonl")
    say("2. Its weights, carried over to PyTorch")
    if code := run(CONVERT):
        return code
    say("3. Both networks on the same images: every layer, forward and backward")
    code = run(VERIFY, quiet=True)
    if not FIGURES.exists():
        return code
    reports = json.loads(FIGURES.read_text(encoding="utf-8"))["reports"]
    Console().print(layer_table(reports))
    for report in reports:
        print(gradient_line(report))
    say("What you have now")
    print(SUMMARY)
    if code:
        print(f"FAILED: the two frameworks differ; {PAGE} says where.")
    if accuracy < LEAST_ACCURACY:
        print(f"FAILED: {accuracy:.2f}% of the held-out digits; at least {LEAST_ACCURACY:g}% were expected.")
    else:
        print(f"{accuracy:.2f}% of the held-out digits are recognised.")
    return code or int(accuracy < LEAST_ACCURACY)


SUMMARY = f"""\
  {PAGE}   open it in a browser: the parity report
  {RUN}/  curves.png, predictions.png, best_model.pdparams, checkpoints, logs
  {TORCH_WEIGHTS}   the same weights for PyTorch

To try next (. .venv/bin/activate first):
  python -m paddle_inline predict docs/figures/digit.png --weights {WEIGHTS}
  python -m paddle_inline list
  python -m convert verify --model inline_deit_tiny --backward
"""


def say(title):
    """A heading between two steps."""
    Console().rule(f"[bold]{title}", align="left")


def run(command, quiet=False):
    """Show a Python command line and run it; returns its exit code."""
    print(f"$ python {command}", flush=True)
    return subprocess.run(
        [sys.executable, *shlex.split(command)], stdout=subprocess.DEVNULL if quiet else None
    ).returncode


def best_accuracy(path):
    """The highest held-out accuracy, percent, in a run's metrics.jsonl."""
    lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return max(line["top1"] for line in lines if "top1" in line)


def layer_table(reports):
    """A row for each sublayer, in the order of computation: its largest error and the tolerance, by dtype."""
    table = Table("layer", title="Largest relative difference between Paddle and PyTorch")
    for report in reports:
        table.add_column(report["dtype"], justify="right")
        table.add_column("tolerance", justify="right")
    outputs = [[row for row in report["rows"] if row["kind"] == "output"] for report in reports]
    for rows in zip(*outputs):
        cells = []
        for row in rows:
            colour = "green" if row["passed"] else "bold red"
            cells += [f"[{colour}]{row['max_rel']:.1e}", f"{row['tolerance']:.0e}"]
        table.add_row(rows[0]["name"] or "(model)", *cells)
    return table


def gradient_line(report):
    """How many gradients were compared, and the worst of them, as a share of what is allowed."""
    rows = [row for row in report["rows"] if "gradient" in row["kind"]]
    worst = max(rows, key=lambda row: row["max_rel"] / row["tolerance"])
    failed = sum(not row["passed"] for row in rows)
    return (
        f"{report['dtype']}: {len(rows)} gradients, {failed} of them wrong; worst {worst['max_rel']:.1e} of "
        f"{worst['tolerance']:.0e} allowed ({worst['name']})"
    )


if __name__ == "__main__":
    sys.exit(main())
