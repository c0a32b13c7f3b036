"""python -m convert to-paddle | to-torch | verify.

Exit code 0: done; 1: a check failed; 2: a mistake in the call or in a file, with one message.
"""

from __future__ import annotations

import argparse
import sys

from . import command
from .parity import command as parity_command


def build_parser():
    """The argument parser; each subcommand sets `run`, a function from arguments to an exit code."""
    parser = argparse.ArgumentParser(prog="python -m convert", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    command.add_commands(subparsers)
    parity_command.add_commands(subparsers)
    return parser


def main(argv=None):
    """Run one command; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
