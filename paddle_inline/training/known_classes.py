"""Which classes the outputs of trained weights mean, from what the weights or their run say."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from ..config.load import Config
from ..data.imagenet import training_classes
from ..weights.load import open_weights


def known_classes(weights: str | Path, config: Config) -> tuple[tuple[str, ...] | None, str, list[str]]:
    """Return (the names of the classes that weights know or None, what says so, what is to be said).

    Their description is asked first, then the state beside them in a run's folder (all that version 0.1 wrote),
    then the data set's training folder.

    Args:
        weights: a file of weights.
        config: the settings, for the data set.

    Raises:
        MissingFileError, WeightsFileError: as `open_weights`.
    """
    names: Any = (open_weights(weights)[1] or {}).get("classes")
    if _is_names(names):
        return tuple(names), str(weights), []
    folder = Path(weights).parent
    for state in (folder / "state.json", folder / "checkpoints" / "last" / "state.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            names = json.loads(state.read_text(encoding="utf-8")).get("classes")
            if _is_names(names):
                return tuple(names), f"the run of {weights}", []
    found = training_classes(config.data.data_path) if config.data.dataset == "imagenet" else None
    if found is None:
        return None, "", []
    path = Path(config.data.data_path) / "train"
    return found, str(path), [f"{weights} does not name its classes: taken to be those of {path}"]


def _is_names(names: Any) -> bool:
    return isinstance(names, (list, tuple)) and bool(names) and all(isinstance(name, str) for name in names)
