"""Whether work on a CPU goes through loops that Numba compiles, and on how many threads."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

from .cores import available_cores
from .environment import parse_version

SWITCH = "PADDLE_INLINE_NUMBA"  # "0" in the environment leaves all work to Paddle and Pillow
_switches = {"paused": False}  # of the whole process


def wanted() -> bool:
    """Return whether compiled loops are to be used where Numba is installed."""
    return not _switches["paused"] and _is_on()


@cache
def _is_on():
    return os.environ.get(SWITCH) != "0" and os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"


@contextmanager
def paused() -> Iterator[None]:
    """Leave all work to Paddle's operators and to Pillow inside the block, for whoever watches them."""
    before, _switches["paused"] = _switches["paused"], True
    try:
        yield
    finally:
        _switches["paused"] = before


def fits_paddle() -> bool:
    """Return whether Numba may be imported beside the Paddle that is loaded.

    Paddle 2.6 brings a zlib of its own, with which Numba crashes unless Python's was used before Paddle was imported.
    """
    paddle = sys.modules.get("paddle")
    return paddle is None or parse_version(paddle.__version__) >= (3,)


def load(name: str) -> ModuleType | None:
    """Import a module of compiled loops, on as many threads as OMP_NUM_THREADS or the cores.

    Where no folder can be written for what is compiled, it is kept in a new one for this process and its children.

    Returns:
        The module; None: no Numba, or one that does not know this NumPy, or a Paddle that it does not fit.
    """
    if not fits_paddle():
        return None
    threads = os.environ.get("OMP_NUM_THREADS", "")
    os.environ.setdefault("NUMBA_NUM_THREADS", threads if threads.isdigit() else str(available_cores()))
    try:
        try:
            return importlib.import_module(name)
        except RuntimeError:
            import numba

            # also in the environment, from which Numba reads it again
            os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = tempfile.mkdtemp(prefix="paddle_inline_")
            return importlib.import_module(name)
    except ImportError:
        return None
