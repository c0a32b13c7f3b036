"""How many cores this process may use: its affinity mask, and the share of its container or service.

A share is a limit of control groups on the time of processors, version 1 or 2, set on the process's own group or on
any group above it. Kubernetes, Docker's --cpus, systemd's CPUQuota and batch systems all set it there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path


def available_cores() -> int:
    """Return how many cores this process may use at a time: by its affinity mask and its share, at least one."""
    quota = cpu_quota()
    return affinity_cores() if quota is None else max(1, min(affinity_cores(), int(quota)))


def affinity_cores() -> int:
    """Return on how many cores this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: str | Path = "/") -> float | None:
    """Return the cores that control groups let this process use at a time; None: no known limit.

    Args:
        root: of the file system that holds proc/ and the mounted control groups.
    """
    root = Path(root)
    limits = [limit for folder in _groups(root) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's control groups for processors, and of all groups above them."""
    own = {}  # controllers -> path of the process's group
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", "/"][:3]
        if controllers == "" or "cpu" in controllers.split(","):
            own[controllers == ""] = path
    for unified, inside, mounted in _mounts(root):
        path = own.get(unified, "/")
        below = path[len(inside.rstrip("/")) :] if f"{path}/".startswith(f"{inside.rstrip('/')}/") else ""
        parts = [part for part in below.split("/") if part]
        if ".." in parts:  # of a group outside of what can be seen here
            parts = []
        for depth in range(len(parts) + 1):
            yield mounted.joinpath(*parts[:depth])


def _mounts(root: Path) -> Iterator[tuple[bool, str, Path]]:
    """Yield (whether version 2, path of the group that is mounted, where) of hierarchies that limit processors."""
    for line in _lines(root / "proc/self/mountinfo"):
        fields, _, source = (part.split() for part in line.partition(" - "))
        if len(fields) < 5 or len(source) < 3:
            continue
        unified = source[0] == "cgroup2"
        if unified or (source[0] == "cgroup" and "cpu" in source[2].split(",")):
            inside, mounted = (re.sub(r"\\(\d{3})", lambda c: chr(int(c[1], 8)), f) for f in fields[3:5])
            yield unified, inside, root / mounted.lstrip("/")


def _limit(folder: Path) -> float | None:
    """Return the limit of one group, in cores."""
    numbers = "".join(_lines(folder / "cpu.max")).split()
    if not numbers:
        numbers = [text for name in ("quota", "period") for text in _lines(folder / f"cpu.cfs_{name}_us")[:1]]
    try:
        quota, period = map(int, numbers)
    except ValueError:  # "max", or no limits here
        return None
    return quota / period if quota > 0 and period > 0 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
