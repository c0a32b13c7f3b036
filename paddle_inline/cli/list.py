"""Every model with its published figures beside those that its configuration builds."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..utils.errors import unknown
from .output import new_console, new_table, show

if TYPE_CHECKING:
    from ..models.spec import Published
    from ..utils.flops import Profile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `list`."""
    parser.add_argument(
        "pattern", nargs="?", default="*", help="only models of these names, as a shell's: 'inline_*_tiny'"
    )
    parser.add_argument(
        "--measure", action="store_true", help="also build and run each model, and count (minutes)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the table of all models."""
    from rich.progress import track

    from ..models.factory import create_model, list_models, model_spec
    from ..utils.flops import profile

    names = list_models(arguments.pattern)
    if not names:
        raise unknown("model", arguments.pattern, list_models())
    counted = {}
    if arguments.measure:
        progress = track(names, "counting", console=new_console(stderr=True))
        counted = {name: profile(create_model(name)) for name in progress}
    table = new_table("model", ">input", ">M params", ">built", ">GMACs", ">built", ">top-1 %")
    for column in ("counted M", "counted GMACs") if counted else ():
        table.add_column(column, justify="right")
    notes = []
    for name in names:
        spec, figures = model_spec(name), model_spec(name).published
        size = spec.img_size if isinstance(spec.img_size, int) else "x".join(map(str, spec.img_size))
        params = [format_number(figures.params), format_number(figures.built_params, 3)]
        gmacs = [format_number(figures.gmacs), format_number(figures.built_gmacs, 3)]
        row = [name, str(size), *params, *gmacs, format_number(figures.top1)]
        if name in counted:
            row += [format_number(counted[name].params / 1e6, 3), format_number(counted[name].total / 1e9, 3)]
        table.add_row(*row)
        notes += disagreements(name, figures, counted.get(name))
    show(table)
    print("Published: the papers'. Built: what the authors' configurations give. '-': not published.")
    print("Multiply-adds (GMACs) are those of matrix products and convolutions, of one image.")
    if notes:
        print("Where the figures disagree:")
        print(*(f"  {note}" for note in notes), sep="\n")


def disagreements(name: str, figures: Published, counted: Profile | None = None) -> list[str]:
    """Return a line for each figure of a model that another one contradicts.

    That is each published figure which its own configuration does not give, within one unit of its last
    digit, and each count that is not within 1% of the built figure.
    """
    lines = []
    for what, published, built, count in (
        ("M parameters", figures.params, figures.built_params, counted and counted.params / 1e6),
        ("GMACs", figures.gmacs, figures.built_gmacs, counted and counted.total / 1e9),
    ):
        found, how = (built, "its configuration builds") if built else (count, "counted")
        if published and found and abs(published - found) > 10 ** -_decimals(published):
            lines.append(f"{name}: published {published:g} {what}, {how} {found:.3f}")
        if count and built and abs(count - built) > 0.01 * built:
            why = "; the same result by fewer products" if count < built else ""
            lines.append(f"{name}: {count:.3f} {what} counted, {built:.3f} built{why}")
    return lines


def format_number(value: float | None, decimals: int | None = None) -> str:
    """Return a number as a cell of a table, "-" for None."""
    if value is None:
        return "-"
    return str(value) if decimals is None else f"{value:.{decimals}f}"


def _decimals(number: float) -> int:
    return len(f"{number:g}".partition(".")[2])
