"""Timing several functions against each other on a machine that does other work; peak memory; the machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .cores import available_cores

REST = 0.3  # seconds after which the threads of an engine that was timed have stopped spinning


def benchmark_interleaved(
    runs: dict[str, Callable[[], Any]],
    rounds: int = 10,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
    rest: float = 0.0,
) -> dict[str, dict[str, float]]:
    """Time functions in turn, round after round, so that a disturbance meets them all alike.

    Args:
        runs: {name: function of no argument, which returns when its work is done}.
        rounds: how often each is timed.
        warmup: calls of each before that, which are not timed.
        clock: returns the time in seconds.
        rest: seconds before each turn, which then begins with a call that is not timed. The threads of one
            engine go on spinning after its call, Intel's OpenMP for 0.2 s, and take the next one's core.

    Returns:
        {name: {"median", "low", "high": seconds}}, low and high the quartiles.
    """
    for run in runs.values():
        for _ in range(warmup):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            if rest:
                time.sleep(rest)
                run()
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {name: spread(values) for name, values in seconds.items()}


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return the median and the quartiles, {"median", "low", "high"}, of at least one number."""
    ordered = sorted(values)
    low, _, high = statistics.quantiles(ordered, n=4) if len(ordered) > 1 else ordered * 3
    return {"median": statistics.median(ordered), "low": low, "high": high}


def peak_memory() -> float | None:
    """Return the most resident memory in MiB that this program has held; None where that is not known.

    It is Linux's `VmHWM`, since `ru_maxrss` includes what the process held that started this one.
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


def machine() -> dict[str, Any]:
    """Return what a figure depends on: processor, cores, load, Python, the date."""
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
