"""Checkpoints between PyTorch and Paddle, and the proof that both frameworks compute the same."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from paddle_inline.utils.paths import expand_all
from paddle_inline.utils.streams import forgiving_streams, reader_may_leave

from . import cli as command
from .errors import EXIT_CODES, exit_code
from .parity import cli as parity_command

INTERRUPTED = 130  # the exit code of a program that Ctrl-C has ended
# Arguments that are paths, in which ~ is the home folder.
PATHS = (
    *("candidate", "file", "folder", "golden", "html", "into", "json", "junit", "out"),
    *("reference", "reprod_log", "truth", "weights"),
)


def build_parser() -> argparse.ArgumentParser:
    """Return the argument parser; each subcommand sets `run`, a function from arguments to an exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m convert",
        description=__doc__,
        epilog=f"Help for one command: python -m convert to-paddle --help\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    command.add_commands(subparsers)
    parity_command.add_commands(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code (errors.py)."""
    with forgiving_streams():
        return _run(build_parser().parse_args(argv))


def _run(arguments: argparse.Namespace) -> int:
    try:
        expand_all(arguments, PATHS, empty=False)
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "No ccache found"
            )  # Paddle's, on a compiler that nothing here uses
            with reader_may_leave():
                return arguments.run(arguments)
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except ModuleNotFoundError as error:
        if error.name not in ("paddle", "torch"):
            raise
        print(f"error: this needs {error.name}, which is not installed (README, Install)", file=sys.stderr)
        return 2
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise  # a fault of ours or of the machine keeps its traceback; Python's exit code is then 1
        print(f"error: {error}", file=sys.stderr)
        return code


if __name__ == "__main__":
    sys.exit(main())
