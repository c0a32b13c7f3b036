"""Measuring: several things timed against each other on a machine that does other work, peaks of memory."""

from __future__ import annotations

import os
import platform
import statistics
import time
from pathlib import Path

from .environment import available_cores

REST = 0.3  # seconds after which the threads of an engine that was timed have stopped spinning


def benchmark_interleaved(runs, rounds=10, warmup=2, clock=time.perf_counter, rest=0.0):
    """Time functions in turn, round after round, so that a disturbance meets them all alike.

    Args:
        runs: {name: function of no argument, which returns when its work is done}.
        rounds: how often each is timed, after `warmup` calls that are not.
        rest: seconds before each turn, which then begins with a call that is not timed. The threads of one
            engine go on spinning after its call, Intel's OpenMP for 0.2 s, and take the next one's core.
    Returns:
        {name: {"median", "low", "high": seconds}}, low and high the quartiles.
    """
    for run in runs.values():
        for _ in range(warmup):
            run()
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            if rest:
                time.sleep(rest)
                run()
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {name: spread(values) for name, values in seconds.items()}


def spread(values):
    """The median and the quartiles of some numbers."""
    values = sorted(values)
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": statistics.median(values), "low": low, "high": high}


def peak_memory():
    """MiB: the most resident memory that this program has held; None where the system does not tell.

    Linux's `VmHWM`, since `ru_maxrss` goes on counting what the process held that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 2**20 if platform.system() == "Darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def machine():
    """What a figure depends on: processor, cores, load, Python, the date."""
    name = platform.processor()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "processor": name,
        "cores": available_cores(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }
