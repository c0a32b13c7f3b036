"""Which classes the outputs of trained weights mean, and which images they were not to learn, as their run says."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from ..config.load import Config
from ..data.imagenet import training_classes
from ..data.split import KEPT, Split, has_part, kept_split, run_of
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
    found = training_classes(config.data.data_path) if config.data.dataset in ("imagenet", "folder") else None
    if found is None:
        return None, "", []
    path = Path(config.data.data_path) / "train"
    return found, str(path), [f"{weights} does not name its classes: taken to be those of {path}"]


def split_of_weights(weights: str | Path, config: Config, *, named: bool) -> tuple[Split | None, list[str]]:
    """Return (how the images were shared that weights were trained on, None where they lie apart; what is to be said).

    What the weights' run keeps holds, whatever the settings say: what it has learnt would be taken for held out. Its
    data set is a folder then, which is put into the settings.

    Args:
        weights: a file of weights.
        config: the settings.
        named: whether they name the data set.

    Raises:
        UserError: what the run keeps is damaged.
    """
    data, in_run = config.data, run_of(weights)
    if data.dataset not in ("folder", "imagenet") or (data.dataset == "imagenet" and named):
        return (Split(data.val_split, config.seed) if data.val_split else None), []
    if Path(data.data_path).is_dir() and data.data_path and has_part(data.data_path, "val"):
        unused = (
            f"data.val_split {data.val_split:g} is not used: {data.data_path} has held-out images of its own"
        )
        return None, [unused] if data.val_split else []
    kept = kept_split(in_run)
    if kept is not None:
        data.dataset = "folder"
        if data.val_split in (0, kept.share):
            return kept, []
        return kept, [
            f"data.val_split {data.val_split:g} is not used: the run keeps which images it held out ({in_run / KEPT})"
        ]
    if not data.val_split:
        return None, []
    return Split(data.val_split, config.seed), [
        f"the images are shared anew, for there is no {KEPT} beside {weights}: those held out were not learnt only if "
        "the training had this folder, data.val_split and seed"
    ]


def _is_names(names: Any) -> bool:
    return isinstance(names, (list, tuple)) and bool(names) and all(isinstance(name, str) for name in names)
