"""Train, evaluate or time a model, by a file of settings and flags."""

from __future__ import annotations

import argparse

from ..training.flags import add_arguments
from ..utils.environment import keep_freed_memory

__all__ = ["add_arguments", "run"]


def run(arguments: argparse.Namespace) -> int:
    """Run the training program, which prepares Paddle and reports its errors itself."""
    from ..training.program import run

    keep_freed_memory()
    return run(arguments, arguments.words)
