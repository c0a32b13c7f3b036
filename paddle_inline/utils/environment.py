"""What the process should know before Paddle is imported: threads and switches of the CPU.

Imports nothing but the standard library at first, so that it can be the first line of a program.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import sys
import warnings

from .errors import UserError


def tune_cpu(workers: int = 1) -> dict[str, str]:
    """Sets what makes Paddle fast on a CPU, wherever the user has not decided already.

    Call it before `import paddle`: Paddle and its BLAS read these variables once, as they load.

    - `OMP_NUM_THREADS`: the cores this process may use (its affinity mask, not the machine's
      count), divided by `workers`. Paddle sets it to 1 when it is unset under its launcher.
    - `MKL_DEBUG_CPU_TYPE=5`, on AMD only: older MKL builds take their slowest path there.
    - `FLAGS_use_stride_kernel=0`: a transposed view is copied once instead of being read through
      its strides by every kernel that follows, forward and backward.

    Args:
        workers: how many processes of this program share the machine.

    Returns:
        The variables that were set by this call, for the log.

    Raises:
        ValueError: if `workers` is below 1.
    """
    if workers < 1:
        raise UserError(f"workers is {workers}; it counts processes and starts at 1")
    bind_zlib()
    wanted = {
        "OMP_NUM_THREADS": str(max(1, available_cores() // workers)),
        "FLAGS_use_stride_kernel": "0",
    }
    if cpu_vendor() == "AuthenticAMD":
        wanted["MKL_DEBUG_CPU_TYPE"] = "5"
    done = {name: value for name, value in wanted.items() if name not in os.environ}
    for name, value in done.items():
        os.environ.setdefault(name, value)
    return done


def import_paddle():
    """Import Paddle without its remarks on the way: on a number of threads above 1, which `tune_cpu` has
    chosen, and on a missing cache for a compiler that is not used. What else it says is passed on.

    Returns:
        The module `paddle`.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No ccache found")
            import paddle
    finally:
        for line in said.getvalue().splitlines(keepends=True):
            if "OMP_NUM_THREADS" not in line:
                sys.stderr.write(line)
    return paddle


def bind_zlib() -> None:
    """Uses Python's zlib once.

    Paddle 2.6.2 brings an older zlib that offers the same symbols to all: a program that reads its first
    .gz file after loading Paddle crashes, unless Python's own are bound already.
    """
    gzip.decompress(gzip.compress(b"paddle"))


def available_cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_vendor(cpuinfo: str = "/proc/cpuinfo") -> str:
    """The processor's `vendor_id`, or an empty string where the system does not tell."""
    try:
        with open(cpuinfo, encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("vendor_id"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ""
