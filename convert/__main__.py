"""Checkpoints between PyTorch and Paddle, and the proof that both frameworks compute the same."""

from __future__ import annotations

import argparse
import sys
import warnings

from . import cli as command
from .errors import EXIT_CODES, exit_code
from .parity import cli as parity_command


def build_parser():
    """The argument parser; each subcommand sets `run`, a function from arguments to an exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m convert",
        description=__doc__,
        epilog=f"Every command explains itself: python -m convert to-paddle --help\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    command.add_commands(subparsers)
    parity_command.add_commands(subparsers)
    return parser


def main(argv=None):
    """Run one command; returns the exit code (errors.py)."""
    arguments = build_parser().parse_args(argv)
    warnings.filterwarnings("ignore", "No ccache found")  # Paddle's, on a compiler that nothing here uses
    try:
        return arguments.run(arguments)
    except ModuleNotFoundError as error:
        if error.name not in ("paddle", "torch"):
            raise
        print(f"error: this needs {error.name}, which is not installed (README, Install)", file=sys.stderr)
        return 2
    except Exception as error:
        code = exit_code(error)
        print(f"error: {error}", file=sys.stderr)
        return code


if __name__ == "__main__":
    sys.exit(main())
