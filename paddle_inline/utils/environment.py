"""The process's environment: what to set before Paddle is imported, the processor, versions.

It imports nothing but the standard library, so that it can be the first line of a program.
"""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import io
import os
import re
import sys
import warnings
from types import ModuleType

from .cores import available_cores
from .errors import UserError


def tune_cpu(workers: int = 1) -> dict[str, str]:
    """Set what makes Paddle fast on a CPU, wherever the user has not decided already.

    Call it before `import paddle`: Paddle and its BLAS read these variables once, as they load.

    - `OMP_NUM_THREADS`: the cores this process may use (its affinity mask and its container's share,
      not the machine's count), divided by `workers`. Paddle sets it to 1 when it is unset under its launcher.
    - `MKL_DEBUG_CPU_TYPE=5`, on AMD only: older MKL builds take their slowest path there.
    - `FLAGS_use_stride_kernel=0`: a transposed view is copied once instead of being read through
      its strides by every kernel that follows, forward and backward.

    Args:
        workers: how many processes of this program share the machine.

    Returns:
        The variables that were set by this call, for the log.

    Raises:
        UserError: `workers` is below 1.
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


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt, in malloc.h


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for what is allocated next, in place of returning it to the system.

    The system clears each page of memory that it hands out, as it is touched first: where every step of a training
    allocates the same tensors again, that took an eighth of InLine-PVT-Small's step on a CPU. For programs that
    repeat a step; a process then stays as large as it once was. Whoever has set one of glibc's variables for this
    (MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_MAX_, MALLOC_MMAP_THRESHOLD_, GLIBC_TUNABLES) has decided already.

    Returns:
        Whether it was set: on Linux with glibc alone.
    """
    decided = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    if any(name in os.environ for name in decided):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, -1)) and bool(mallopt(M_MMAP_MAX, 0))


def import_paddle() -> ModuleType:
    """Import Paddle without two of its messages, and return the module.

    Left out are those on a number of threads above 1, which `tune_cpu` has chosen, and on a missing cache for
    a compiler that is not used. All others are passed on.
    """
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No ccache found")
            import paddle
    finally:
        for line in messages.getvalue().splitlines(keepends=True):
            if "OMP_NUM_THREADS" not in line:
                sys.stderr.write(line)
    return paddle


def bind_zlib() -> None:
    """Use Python's zlib once.

    Paddle 2.6.2 brings an older zlib that offers the same symbols to all: a program that reads its first
    .gz file after loading Paddle crashes, unless Python's own are bound already.
    """
    gzip.decompress(gzip.compress(b"paddle"))


def cpu_vendor(cpuinfo: str = "/proc/cpuinfo") -> str:
    """Return the processor's `vendor_id`, or an empty string where the system does not report one."""
    try:
        with open(cpuinfo, encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("vendor_id"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ""


def parse_version(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with, to be compared: "3.3.1.post1" gives (3, 3, 1)."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, match[0].split("."))) if match else ()
