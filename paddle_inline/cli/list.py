"""Every model with its published figures beside those of the model here."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..utils.errors import unknown
from .output import new_console, new_table, show

if TYPE_CHECKING:
    from ..models.spec import Published
    from ..utils.flops import Profile

# 1e9 multiply-adds of one image, counted by `list --measure`. SOFT's kernel takes one matrix product here instead of
# three, so that its models take fewer than the authors' configurations give.
COUNTED_GMACS = {
    "inline_deit_tiny": 1.109,
    "inline_deit_small": 4.965,
    "inline_deit_base": 17.166,
    "inline_pvt_tiny": 1.975,
    "inline_pvt_small": 3.913,
    "inline_pvt_medium": 6.860,
    "inline_pvt_large": 10.127,
    "inline_swin_tiny": 4.458,
    "inline_swin_small": 8.718,
    "inline_swin_base": 15.396,
    "inline_swin_base_384": 46.196,
    "inline_cswin_tiny": 4.311,
    "inline_cswin_small": 6.772,
    "inline_cswin_base": 14.883,
    "inline_cswin_base_384": 46.215,
    "soft_tiny": 2.116,
    "soft_small": 7.397,
    "soft_medium": 8.681,
    "soft_large": 13.180,
    "soft_huge": 18.655,
    "soft_norm_tiny": 2.121,
    "soft_norm_small": 7.422,
    "soft_norm_medium": 8.713,
    "soft_norm_large": 13.228,
    "soft_norm_huge": 18.721,
}


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
    table = new_table("model", ">input", ">M params", ">here", ">GMACs", ">here", ">top-1 %")
    for column in ("counted M", "counted GMACs") if counted else ():
        table.add_column(column, justify="right")
    notes = []
    for name in names:
        spec, figures = model_spec(name), model_spec(name).published
        size = spec.img_size if isinstance(spec.img_size, int) else "x".join(map(str, spec.img_size))
        params = [format_number(figures.params), format_number(figures.built_params, 3)]
        here = COUNTED_GMACS.get(name, figures.built_gmacs)
        gmacs = [format_number(figures.gmacs), format_number(here, 3)]
        row = [name, str(size), *params, *gmacs, format_number(figures.top1)]
        if name in counted:
            row += [format_number(counted[name].params / 1e6, 3), format_number(counted[name].total / 1e9, 3)]
        table.add_row(*row)
        notes += disagreements(name, figures, counted.get(name))
    show(table)
    print(
        "M params, GMACs and top-1 are the papers', '-' where there is none; `here` is what the models here have."
    )
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
        here = COUNTED_GMACS.get(name) if what == "GMACs" else None
        found, how = (built, "its configuration builds") if built else (count or here, "counted")
        if published and found and abs(published - found) > 10 ** -_decimals(published):
            fewer = f", {here:.3f} by fewer products here" if built and here and here < 0.99 * built else ""
            lines.append(f"{name}: published {published:g} {what}, {how} {found:.3f}{fewer}")
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
