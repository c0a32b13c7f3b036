"""The command that proves the twins equal: verify."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from .run import compare


def add_commands(subparsers):
    """Add verify to the parser of `python -m convert`."""
    parser = subparsers.add_parser("verify", help="compare a model in both frameworks, layer by layer")
    parser.add_argument("--model", required=True, metavar="NAME", help="a name of list_models()")
    parser.add_argument("--weights", metavar="FILE", help=".pdparams; test weights if not given")
    parser.add_argument("--dtype", default="float64", help="float64, float32 or bfloat16")
    parser.add_argument("--backward", action="store_true", help="compare gradients too")
    parser.set_defaults(run=verify)


def verify(arguments):
    """Compare, print the rows, return 1 if one failed."""
    report = compare(arguments.model, arguments.weights, arguments.dtype, backward=arguments.backward)
    table = Table("sublayer", "kind", "shape", "max abs", "max rel", "allowed", "")
    for row in report.rows:
        mark = "ok" if row.passed else "[red]DIFFERS"
        shape = "x".join(map(str, row.shape))
        table.add_row(
            row.name,
            row.kind,
            shape,
            f"{row.max_abs:.1e}",
            f"{row.max_rel:.1e}",
            f"{row.tolerance:.0e}",
            mark,
        )
    console = Console()
    console.print(table)
    verdict = "equal" if report.passed else f"DIFFERENT, first at {report.first_divergence}"
    console.print(f"{report.model} {report.dtype}: {verdict} ({report.versions})")
    return 0 if report.passed else 1
