"""Draw the parity map: how far Paddle and PyTorch are apart, for every model and kind of tensor.

    python docs/figures/parity.py [MODEL ...]

Each model is built at its published size with equal test weights in both frameworks, run on two images and
back, and compared sublayer by sublayer (`convert.parity.compare`). Gives docs/figures/parity.png and
parity.txt, the table that the picture is drawn from. Without names: the smallest model of each family.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from paddle_inline.utils.environment import tune_cpu  # noqa: E402

tune_cpu()

from convert.parity import compare  # noqa: E402
from convert.parity.comparison import Report  # noqa: E402

Reports = dict[tuple[str, str], Report]  # by model and dtype

MODELS = (
    "inline_deit_tiny",
    "inline_pvt_tiny",
    "inline_swin_tiny",
    "inline_cswin_tiny",
    "soft_tiny",
    "soft_norm_tiny",
)
DTYPES = ("float64", "float32")
KINDS = ("output", "output gradient", "parameter gradient")


def verdict(report: Report) -> str:
    """Equal; or within the tolerances, but further from the float64 truth than allowed; or different."""
    if report.passed:
        return "equal"
    if any(not row.max_rel <= row.tolerance for row in report.rows):
        return f"DIFFERENT at {report.first_divergence}"
    further = sum(not row.passed for row in report.rows)
    return f"within tolerance, {further} too far from float64"


def measure(names: Sequence[str]) -> Reports:
    """Compare every model in every precision."""
    reports = {}
    for name in names:
        for dtype in DTYPES:
            reports[name, dtype] = report = compare(name, dtype=dtype, batch=2)
            print(name, dtype, verdict(report), flush=True)
    return reports


def draw(reports: Reports, names: Sequence[str], path: Path) -> None:
    """Draw a panel for each precision: models down, kinds of tensors across, the worst relative error in each."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(DTYPES), figsize=(9.5, 0.9 + 0.45 * len(names)), sharey=True, layout="constrained"
    )
    for axis, dtype in zip(axes, DTYPES):
        worst = [[reports[name, dtype].worst(kind) for kind in KINDS] for name in names]
        errors = np.array([[row.max_rel for row in rows] for rows in worst])
        drawn = axis.imshow(np.log10(errors), vmin=-14, vmax=-3, aspect="auto", cmap="viridis")
        for y, rows in enumerate(worst):
            for x, row in enumerate(rows):
                text = f"{row.max_rel:.0e} of {row.tolerance:.0e}".replace("e-0", "e-")
                axis.text(
                    x,
                    y,
                    text,
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color="w" if row.max_rel < 1e-7 else "k",
                )
        axis.set(yticks=range(len(names)), yticklabels=names, xticks=range(len(KINDS)), title=dtype)
        axis.set_xticklabels([kind.replace(" ", "\n") for kind in KINDS])
    figure.colorbar(drawn, ax=axes, label="log10 of the worst relative error")
    figure.savefig(path, dpi=130)


def table(reports: Reports) -> str:
    """Return the figures as text, with the machine and the versions they are from."""
    report = next(iter(reports.values()))
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = [f"python docs/figures/parity.py, {datetime.date.today()}", report.machine, versions, ""]
    lines.append(
        f"{'model':20} {'dtype':8} {'tensors':>7} " + " ".join(f"{kind:>19}" for kind in KINDS) + "  verdict"
    )
    for (name, dtype), report in reports.items():
        worst = " ".join(f"{report.worst(kind).max_rel:19.1e}" for kind in KINDS)
        lines.append(f"{name:20} {dtype:8} {len(report.rows):7d} {worst}  {verdict(report)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    names = parser.parse_args().models
    reports = measure(names)
    draw(reports, names, HERE / "parity.png")
    (HERE / "parity.txt").write_text(table(reports), encoding="utf-8")
    print(table(reports))


if __name__ == "__main__":
    main()
