"""Train every form of attention alike, measure what it costs and does, and make one page of it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..utils.cores import available_cores
from ..utils.errors import UserError, counted
from ..utils.html import require_jinja2

DEFAULT_OUTPUT = "output/compare"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `compare`."""
    add = parser.add_argument
    add(
        "--forms",
        nargs="+",
        metavar="F",
        help="NAME or NAME:OPTION=VALUE,...; default: all, and two controls",
    )
    add(
        "--backbone",
        default="inline_deit_digits",
        metavar="NAME",
        help="of `list`; default: inline_deit_digits",
    )
    add(
        "--data",
        default="digits",
        metavar="WHAT",
        help="digits, or a folder as training takes it; default: digits",
    )
    add(
        "--seeds",
        type=int,
        default=3,
        metavar="N",
        help="trainings of each form, seeds 0, 1, ...; default: 3",
    )
    add(
        "--epochs", type=int, metavar="N", help="of each training; default: 8 for the digits, 30 for a folder"
    )
    add(
        "--output",
        default=DEFAULT_OUTPUT,
        metavar="DIR",
        help=f"the comparison's folder; default: {DEFAULT_OUTPUT}",
    )
    add("--workers", type=int, metavar="N", help="trainings at a time, a process each; default: the cores")
    add("--rounds", type=int, default=10, metavar="N", help="how often each thing is timed; default: 10")
    add(
        "--only",
        choices=("train", "inspect", "time", "page"),
        metavar="STAGE",
        help="train, inspect, time or page; default: all in this order, timing when nothing else runs",
    )
    add("--dry-run", action="store_true", help="print what it would cost and take, and do nothing")
    parser.epilog = (
        "What DIR holds already is kept: the same command continues a comparison that was ended, with the forms and "
        "seeds that are missing. The forms are those of paddle_inline.list_attentions()."
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare, and print one line for each form."""
    from ..compare.comparison import STAGES, compare, estimate
    from ..compare.plan import make_plan
    from ..compare.summary import lines
    from ..layers.attention import list_attentions

    for name in ("workers", "rounds"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}; give 1 or more")
    require_jinja2()
    plan = make_plan(
        arguments.forms,
        arguments.backbone,
        arguments.data,
        arguments.seeds,
        arguments.epochs,
        list(list_attentions()),
    )
    workers = arguments.workers or available_cores()
    output = Path(arguments.output)
    if arguments.dry_run:
        print_estimate(estimate(plan, output, workers), workers)
        return 0
    stages = (
        STAGES
        if arguments.only is None
        else (arguments.only, *(["page"] if arguments.only != "page" else []))
    )
    results = compare(plan, output, workers=workers, rounds=arguments.rounds, stages=stages, report=say)
    for line in lines(results):
        print(line)
    print(f"the page: {output / 'index.html'}")
    return 0


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def print_estimate(found: Mapping[str, Any], workers: int) -> None:
    """Print what a comparison costs, form by form, and how long its trainings would take."""
    width = max(len(cost["form"]) for cost in found["cost"])
    for cost in found["cost"]:
        params, macs, seconds = cost["params"] / 1e6, cost["macs"] / 1e6, 1e3 * cost["seconds"]
        print(
            f"{cost['form']:{width}}{params:10.3f} M parameters{macs:11.2f} M multiply-adds{seconds:8.0f} ms a step"
        )
    print(
        f"{counted(found['trainings'], 'training')} of {counted(found['steps'], 'step')}: about "
        f"{counted(round(found['minutes']), 'minute')} on {counted(workers, 'process')}, each on a core of its own; "
        "then measuring"
    )
