"""python -m paddle_inline COMMAND: inspect and run the models, and check this machine.

Exit code 0: done; 1: a check failed; 2: a mistake in the call, with one message.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from .. import __version__
from ..utils.environment import import_paddle, tune_cpu
from ..utils.errors import MissingPackageError, UserError
from ..utils.paths import expand_all
from ..utils.streams import forgiving_streams, reader_may_leave, warnings_as_notes

# A command is a module of this folder and its name here. Its docstring is the help, `add_arguments` fills its parser,
# and `run` takes the parsed arguments and returns the exit code, None for 0.
COMMANDS = (
    "list",
    "info",
    "train",
    "configs",
    "settings",
    "predict",
    "export",
    "bench",
    "compare",
    "doctor",
)
# What needs no Paddle: files alone, and the machine as the user has set it, from outside Paddle.
WITHOUT_PADDLE = ("configs", "doctor")
# Arguments that are paths, in which ~ is the home folder.
PATHS = (
    *("calibrate", "cfg", "classes", "copy", "data", "data_path", "export", "html", "images", "json"),
    *("metrics", "output", "ovms", "pretrained", "report", "triton", "weights"),
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all COMMANDS; parsed arguments have `run`, or `missing`, a package that it would need."""
    parser = argparse.ArgumentParser(
        prog="python -m paddle_inline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"paddle_inline {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show the traceback of a user error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        try:
            module: Any = importlib.import_module(f".{name}", __package__)
        except ModuleNotFoundError as error:
            if str(error.name).startswith("paddle_inline"):
                raise
            text = f"needs {error.name}, which is not installed"
            command = commands.add_parser(
                name, help=text, prefix_chars="\0", add_help=False
            )  # takes anything
            command.add_argument("words", nargs="*")
            command.set_defaults(missing=error.name)
            continue
        text = str(module.__doc__)
        command = commands.add_parser(name, help=text.splitlines()[0], description=text, allow_abbrev=False)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    A user's mistake is one message and exit code 2. Any other error keeps its traceback, which Python ends
    with exit code 1.
    """
    with forgiving_streams():
        words = list(sys.argv[1:] if argv is None else argv)
        arguments = build_parser().parse_args(words)
        arguments.words = words[words.index(arguments.command) + 1 :]
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    try:
        if hasattr(arguments, "missing"):
            raise MissingPackageError(
                f"{arguments.command} needs {arguments.missing}, which is not installed: `python -m paddle_inline "
                "doctor` says what else is missing"
            )
        if arguments.command == "train":  # a program of its own, which a reader that leaves does not end
            return arguments.run(arguments)
        expand_all(arguments, PATHS, empty=False)
        if arguments.command not in WITHOUT_PADDLE:
            tune_cpu()
            import_paddle()
        with warnings_as_notes(), reader_may_leave():
            return arguments.run(arguments) or 0
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
