"""Reports in a terminal: one line per model while they run, every row of one, and a verdict in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Optional

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from paddle_inline.utils.errors import counted

from ..result import NAMES, Report, Row
from .html import noise_in_words

NOTHING = "nothing was compared"
Job = tuple[Optional[str], str, Callable[[], Report]]  # model, dtype, what makes its report


def run_jobs(jobs: Sequence[Job], console: Console) -> list[Report]:
    """Return the reports of all jobs, and show meanwhile how far they are."""
    reports: list[Report] = []
    try:
        with Live(overview(reports, jobs, console), console=console, refresh_per_second=4) as live:
            try:
                for _, _, run in jobs:
                    reports.append(run())
                    live.update(overview(reports, jobs, console))
            except BaseException:
                live.update(overview(reports, jobs, console, failed=True))
                raise
    finally:
        if not console.is_terminal:
            console.print()  # there, Live ends in the middle of a line
    return reports


def overview(reports: Sequence[Report], jobs: Sequence[Job], console: Console, failed: bool = False) -> Table:
    """Return one line per model: done, running (or failed), waiting; fewer columns where there is little room."""
    names = ["model", "dtype", "tensors", "error", "allowed", "where it is worst", "seconds", ""]
    if console.width < 100:
        names = [name for name in names if name not in ("tensors", "seconds")]
    table = Table(box=box.SIMPLE)
    for name in names:
        wide = name.startswith("where")
        table.add_column(name, no_wrap=not wide, overflow="fold" if wide else "ellipsis")
    for i, (model, dtype, _) in enumerate(jobs):
        cells: dict[str, Any] = {"model": model or "", "dtype": dtype}
        if i < len(reports):
            report = reports[i]
            worst = report.worst()
            cells = {
                "model": report.model,
                "dtype": dtype,
                "tensors": str(len(report.rows)),
                "error": f"{worst.max_rel:.1e}" if worst else "",
                "allowed": f"{worst.tolerance:.0e}" if worst else "",
                "where it is worst": f"{worst.name} {worst.kind}".strip() if worst else NOTHING,
                "seconds": f"{report.seconds:.1f}",
                "": Text("equal", "green") if report.passed else Text("DIFFERS", "bold red"),
            }
        elif i == len(reports):
            cells[""] = Text("failed", "red") if failed else Text("running", "yellow")
        table.add_row(*(cells.get(name, "") for name in names))
    return table


def all_rows(report: Report) -> Table:
    """Return every row of a report."""
    table = Table(title=f"{report.model} {report.dtype}", title_justify="left")
    for name in ("layer", "shape"):
        table.add_column(name, no_wrap=name != "layer", overflow="fold")
    for name in ("max error", "tolerance"):
        table.add_column(name, justify="right", no_wrap=True, overflow="fold")
    table.add_column("")
    kind = report.rows[0].kind if report.rows else ""
    for row in report.rows:
        if row.kind != kind:
            table.add_section()
            kind = row.kind
        table.add_row(
            row.name if row.kind == "output" else f"{row.kind} {row.name}",
            "x".join(map(str, row.shape)),
            f"{row.max_rel:.1e}",
            f"{row.tolerance:.0e}",
            _verdict(row),
        )
    return table


def _verdict(row: Row) -> Text:
    if not row.passed:
        return Text("DIFFERS", "bold red")
    return Text("noise", "yellow") if row.noise else Text("ok", "green")


def explain(report: Report, console: Console) -> None:
    """Print a report in a few lines of words."""
    worst = report.worst()
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    if worst is None:
        text = f"{report.model} {report.dtype}: {NOTHING}; {versions}"
        console.print(text.removesuffix("; "), style="bold red", highlight=False)
        return
    against = "" if report.reference == NAMES["torch"] else f" with {report.reference}"
    verdict = (
        f"every layer agrees{against}"
        if report.passed
        else f"differs{against.replace('with', 'from')} in {counted(sum(not r.passed for r in report.rows), 'row')}"
    )
    line = (
        f"{report.model} {report.dtype}: {verdict}; worst error {worst.max_rel:.1e} of {worst.tolerance:.0e} "
        f"allowed ({f'{worst.kind} {worst.name}'.strip()}); {versions}"
    )
    console.print(line, style="green" if report.passed else "bold red", highlight=False)
    further = report.further_from_truth()
    if further:
        console.print(
            f"  from the float64 truth PyTorch is further on {counted(further[0], 'tensor')}, Paddle on {further[1]}",
            highlight=False,
        )
    if report.noise:
        console.print(f"  {noise_in_words(report)}", highlight=False)
    found = report.divergence
    if found:
        width = max(len(report.reference), len(report.candidate))
        console.print(
            f"  first divergence: {found.name} ({found.layer}), {found.kind}, shape {list(found.shape)}, "
            f"at {list(found.index)}",
            f"    {report.reference:{width}} {_values(found.reference)}",
            f"    {report.candidate:{width}} {_values(found.candidate)}",
            sep="\n",
            highlight=False,
        )


def _values(values: Iterable[float]) -> str:
    return " ".join(f"{value:.9g}" for value in values)
