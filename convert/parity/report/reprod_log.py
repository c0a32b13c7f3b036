"""The arrays that reprod_log, the tool of Paddle's reproduction guide, compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from paddle_inline.utils.paths import expand

from ..result import Report


def write_reprod_log(reports: Sequence[Report], folder: str | Path) -> None:
    """Write {forward,loss,metric,losses}_{paddle,ref}.npy, each a pickled {name: array}.

    Several reports go to folders of their own, <model>_<dtype>.

    Raises:
        OSError: a file cannot be written.
    """
    folder = expand(folder)
    for report in reports:
        target = Path(folder) if len(reports) == 1 else Path(folder) / f"{report.model}_{report.dtype}"
        target.mkdir(parents=True, exist_ok=True)
        for framework, results in report.results.items():
            side = "paddle" if framework == "paddle" else "ref"
            for stage, arrays in results.items():
                with open(target / f"{stage}_{side}.npy", "wb") as file:
                    np.save(file, np.array(arrays, dtype=object), allow_pickle=True)
