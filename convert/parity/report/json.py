"""The outcome of comparisons as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..result import Report, Row
from . import write_file


def write_json(reports: Sequence[Report], path: str | Path) -> None:
    """Write every row of every report; numbers that are not finite are written as strings.

    Raises:
        FileAccessError: the file cannot be written.
    """
    data = {"passed": all(report.passed for report in reports), "reports": [_plain(r) for r in reports]}
    write_file(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def _plain(item: Any) -> Any:
    """Return what `json` can write of dataclasses, containers and numbers."""
    if dataclasses.is_dataclass(item):
        names = [f.name for f in dataclasses.fields(item) if f.name != "results"]
        names += [name for name in ("passed", "first_divergence") if hasattr(item, name)]
        names += ["noise"] * isinstance(item, Row)
        return {name: _plain(getattr(item, name)) for name in names}
    if isinstance(item, dict):
        return {key: _plain(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_plain(value) for value in item]
    if isinstance(item, float) and not math.isfinite(item):
        return str(item)
    return item
