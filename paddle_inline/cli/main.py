"""python -m paddle_inline COMMAND: the models at work, and this machine looked at.

Exit code 0: done; 1: a check failed; 2: a mistake in the call, with one message.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys

from .. import __version__
from ..inference.export import export_command
from ..inference.predictor import predict_command
from ..utils.environment import import_paddle, tune_cpu
from ..utils.errors import UserError
from .bench import bench_command


def list_command(parser):
    """Every model with its published figures beside those that its configuration builds."""
    parser.add_argument(
        "--measure", action="store_true", help="also build and run each model, and count (minutes)"
    )

    def run(arguments):
        from rich.progress import track

        from ..models.factory import list_models, model_spec

        names = list_models()
        counted = {}
        if arguments.measure:
            counted = {name: _count(name) for name in track(names, "counting", console=_console(stderr=True))}
        table = _table("model", ">input", ">M params", ">built", ">GMACs", ">built", ">top-1 %")
        for column in (">counted M", ">counted GMACs") if counted else ():
            table.add_column(column[1:], justify="right")
        notes = []
        for name in names:
            spec, figures = model_spec(name), model_spec(name).published
            params = [_number(figures.params), _number(figures.built_params, 3)]
            gmacs = [_number(figures.gmacs), _number(figures.built_gmacs, 3)]
            row = [name, _size(spec.img_size), *params, *gmacs, _number(figures.top1)]
            if name in counted:
                row += [_number(counted[name].params / 1e6, 3), _number(counted[name].total / 1e9, 3)]
            table.add_row(*row)
            notes += disagreements(name, figures, counted.get(name))
        _show(table)
        print("Published: the papers'. Built: what the authors' configurations give. '-': not published.")
        print("Multiply-adds (GMACs) are those of matrix products and convolutions, of one image.")
        if notes:
            print("Where the figures disagree:")
            print(*(f"  {note}" for note in notes), sep="\n")

    return run


def info_command(parser):
    """One model: its settings, what it costs, its tensors and how training decays them."""
    parser.add_argument("name", metavar="NAME", help="a model of `list`")

    def run(arguments):
        from ..models.factory import create_model, model_spec
        from ..training.optim import decay_groups
        from ..utils.flops import profile

        spec = model_spec(arguments.name)
        model = create_model(arguments.name)
        counted = profile(model)
        table = _table("setting of create_model", "value")
        for field in dataclasses.fields(spec):
            if field.name != "published":
                table.add_row(field.name, str(getattr(spec, field.name)))
        _show(table)

        table = _table("cost", ">counted", ">built", ">published")
        figures = spec.published
        for what, value, built, published in (
            ("M parameters", counted.params / 1e6, figures.built_params, figures.params),
            ("GMACs of one image", counted.total / 1e9, figures.built_gmacs, figures.gmacs),
        ):
            table.add_row(what, _number(value, 3), _number(built, 3), _number(published))
        for kind, macs in counted.macs.items():
            table.add_row(f"  {KINDS[kind]}", _number(macs / 1e9, 3), "", "")
        table.add_row("ImageNet-1K top-1, %", "", "", _number(figures.top1))
        _show(table)

        table = _table("in training", ">tensors", ">numbers", "weight decay")
        own = dict(model.named_parameters())
        for group in decay_groups(model, 1.0):
            numbers = sum(own[name].size for name in group.names)
            table.add_row(
                group.rule, str(len(group.names)), f"{numbers:,}", "yes" if group.weight_decay else "no"
            )
        table.add_row("all tensors of the state dict", str(len(model.state_dict())), "", "")
        _show(table)
        print(*disagreements(arguments.name, figures, counted), sep="\n")

    return run


def doctor_command(parser):
    """Whether this machine is fit to run everything here, and the line that mends what is not."""

    def run(arguments):
        from . import doctor

        return doctor.report(doctor.examine())

    return run


# A new command is a function and its row here. The function adds its arguments to the parser that it is
# given and returns what runs them: arguments -> exit code, or None for 0. Its docstring is its help.
COMMANDS = {
    "list": list_command,
    "info": info_command,
    "predict": predict_command,
    "export": export_command,
    "bench": bench_command,
    "doctor": doctor_command,
}

KINDS = {
    "Linear": "in Linear layers",
    "convolution": "in convolution layers",
    "matmul": "in attention's own products",
    "conv2d": "in the predicted local filters",
}


def build_parser():
    """The parser of all COMMANDS; parsed arguments have `run`."""
    parser = argparse.ArgumentParser(
        prog="python -m paddle_inline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"paddle_inline {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        help = command.__doc__.splitlines()[0]
        own = commands.add_parser(name, help=help, description=command.__doc__, allow_abbrev=False)
        own.set_defaults(run=command(own))
    return parser


def main(argv=None):
    """Run one command; returns the exit code. A user's mistake is one message, without a traceback."""
    arguments = build_parser().parse_args(argv)
    try:
        if arguments.command != "doctor":  # which looks at what the user has set, from outside Paddle
            tune_cpu()
            import_paddle()
        code = arguments.run(arguments) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except UserError as error:
        if arguments.traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name != "paddle" or arguments.traceback:
            raise
        print(f"error: {error}; install PaddlePaddle for your device (README, Install)", file=sys.stderr)
        return 2


def disagreements(name, figures, counted=None):
    """A line for each published figure that its own configuration does not give, within one unit of its
    last digit, and for each count that is not within 1% of the built figure."""
    lines = []
    for what, published, built, count in (
        ("M parameters", figures.params, figures.built_params, counted and counted.params / 1e6),
        ("GMACs", figures.gmacs, figures.built_gmacs, counted and counted.total / 1e9),
    ):
        built_or_counted, how = (built, "its configuration builds") if built else (count, "counted")
        if published and built_or_counted and abs(published - built_or_counted) > 10 ** -_decimals(published):
            lines.append(f"{name}: published {published:g} {what}, {how} {built_or_counted:.3f}")
        if count and built and abs(count - built) > 0.01 * built:
            why = "; the same result by fewer products" if count < built else ""
            lines.append(f"{name}: {count:.3f} {what} counted, {built:.3f} built{why}")
    return lines


def _count(name):
    from ..models.factory import create_model
    from ..utils.flops import profile

    return profile(create_model(name))


def _decimals(number):
    return len(f"{number:g}".partition(".")[2])


def _number(value, decimals=None):
    if value is None:
        return "-"
    return str(value) if decimals is None else f"{value:.{decimals}f}"


def _size(img_size):
    return str(img_size) if isinstance(img_size, int) else "x".join(map(str, img_size))


def _table(*columns):
    """A table; a column whose name starts with > is right-aligned."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for name in columns:
        table.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left")
    return table


def _show(table):
    console = _console()
    with console.capture() as captured:  # rich would answer a closed pipe by ending the process
        console.print(table)
    print(captured.get(), end="")


def _console(stderr=False):
    from rich.console import Console

    console = Console(stderr=stderr)
    if not console.is_terminal:
        console.width = 120  # a file or a pipe is as wide as the table
    return console
