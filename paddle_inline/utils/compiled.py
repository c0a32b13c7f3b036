"""Whether work on a CPU goes through loops that Numba compiles (ops/kernels.py), and on how many threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from .cores import available_cores

SWITCH = "PADDLE_INLINE_NUMBA"  # "0" in the environment leaves all work to Paddle
_switches = {"paused": False}  # of the whole process


def wanted() -> bool:
    """Return whether compiled loops are to be used where Numba is installed."""
    return not _switches["paused"] and _is_on()


@cache
def _is_on():
    return os.environ.get(SWITCH) != "0" and os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"


@contextmanager
def paused() -> Iterator[None]:
    """Leave all work to Paddle's operators inside the block, for whoever watches them."""
    before, _switches["paused"] = _switches["paused"], True
    try:
        yield
    finally:
        _switches["paused"] = before


def set_threads() -> None:
    """Tell Numba, before it is imported, to take as many threads as Paddle: OMP_NUM_THREADS, or the cores."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    os.environ.setdefault("NUMBA_NUM_THREADS", threads if threads.isdigit() else str(available_cores()))
