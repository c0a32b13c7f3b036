"""Python code in a fresh interpreter, for what may end the process that runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_python(code: str, *arguments: object, timeout: float | None = None) -> subprocess.CompletedProcess:
    """Run Python code in a fresh interpreter that finds this package.

    Args:
        code: the statements; `sys.argv[1:]` holds the arguments as text.
        arguments: converted with `str`.
        timeout: seconds after which the process is ended; None: it may take forever.

    Returns:
        The finished process, its `stdout` and `stderr` as text.

    Raises:
        subprocess.TimeoutExpired: the process did not finish in time.
    """
    home = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": path},
        timeout=timeout,
        check=False,
    )
