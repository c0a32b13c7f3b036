"""Timing several things against each other on a machine that does other work as well."""

from __future__ import annotations

import os
import platform
import statistics
import time

from .runtime import available_cores


def race(runs, rounds=10, warmup=2, clock=time.perf_counter):
    """Time functions in turn, round after round, so that a disturbance meets them all alike.

    Args:
        runs: {name: function of no argument, which returns when its work is done}.
        rounds: how often each is timed, after `warmup` calls that are not.
    Returns:
        {name: {"median", "low", "high": seconds}}, low and high the quartiles.
    """
    for run in runs.values():
        for _ in range(warmup):
            run()
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {name: spread(values) for name, values in seconds.items()}


def spread(values):
    """The median and the quartiles of some numbers."""
    values = sorted(values)
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": statistics.median(values), "low": low, "high": high}


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
