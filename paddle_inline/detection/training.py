"""Training by the toolkit's Trainer: every epoch's own draws, so that a resumed run is the run; its results kept."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import numpy as np
import paddle

from ..utils.errors import MissingFileError, UserError
from ..weights.atomic import atomic_write
from ..weights.load import fitting, open_pickle
from .imports import ppdet

METRICS = "metrics.jsonl"  # one row for each epoch that was evaluated
SUFFIXES = (".pdparams", ".pdopt", ".pdema")


def seed_everything(seed: int, epoch: int = 0, rank: int = 0) -> None:
    """Seed the generators that data and model draw from, by what is drawn: the same for each rank, epoch and seed."""
    own = int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])
    random.seed(own)
    np.random.seed(own)
    paddle.seed(own)


def run_folder(config: Any) -> str:
    """Return where a training run of these settings writes."""
    return os.path.join(config["save_dir"], config["filename"])


def callbacks(trainer: Any, seed: int, rank: int) -> list[Any]:
    """Return what the toolkit's training calls for us: `EpochDraws` and `KeepResults` (see there)."""
    base: Any = ppdet("engine.callbacks").Callback

    class EpochDraws(base):
        """Begin each epoch with an order of images and with draws that depend on seed, epoch and rank alone."""

        begun = -1

        def on_epoch_begin(self, status: dict[str, Any]) -> None:
            epoch, loader = status["epoch_id"], self.model.loader
            if epoch != self.begun:  # an evaluation says that it begins, too
                self.begun = epoch
                seed_everything(seed, epoch, rank)
                loader._batch_sampler.set_epoch(epoch)
                loader.loader = iter(loader.dataloader)  # the toolkit's was made before

    class KeepResults(base):
        """Write each evaluation's results down, in place of those that an earlier run has from this epoch on."""

        def on_epoch_end(self, status: dict[str, Any]) -> None:
            if status["mode"] == "eval" and rank == 0:
                path, epoch = os.path.join(run_folder(self.model.cfg), METRICS), status["epoch_id"] + 1
                rows = [row for row in read_rows(path) if row["epoch"] < epoch]
                rows.append({"epoch": epoch, **results(self.model._metrics)})
                with atomic_write(path) as partial:
                    partial.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")

    return [EpochDraws(trainer), KeepResults(trainer)]


def keep_in(trainer: Any, folder: str) -> None:
    """Let the toolkit's checkpoints be written into a run's folder: its wheel does so, its git tree does not."""
    for callback in trainer._callbacks:
        if hasattr(callback, "save_dir"):
            callback.save_dir = folder


def read_rows(path: str) -> list[dict[str, Any]]:
    """Return the rows of a file of results, or none if it is not there."""
    if not os.path.isfile(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(row) for row in file]


def results(metrics: list[Any]) -> dict[str, dict[str, float | None]]:
    """Return {"bbox": {"AP": ..., ...}, "mask": ...} of the toolkit's metrics, each a share of 1.

    None where there is no object of that size.
    """
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    found: dict[str, dict[str, float | None]] = {}
    for metric in metrics:
        for kind, values in metric.get_results().items():
            found[kind] = {name: float(value) if value >= 0 else None for name, value in zip(names, values)}
    return found


def load_detector(trainer: Any, weights: str) -> None:
    """Load a whole detector's weights, strictly.

    Raises:
        MissingFileError, UserError: as `load_weights`: no such file, or names or shapes differ.
    """
    from ..weights import load_weights

    load_weights(trainer.model, weights)
    trainer.is_loaded_weights = True


def resume(trainer: Any, path: str) -> None:
    """Go on from a checkpoint of the toolkit: weights, optimizer, schedule, epoch, the best result so far.

    Args:
        trainer: in train mode.
        path: FILE.pdparams, or the name without a suffix; FILE.pdopt lies beside it.

    Raises:
        MissingFileError: one of the two is not there.
        UserError: they are another detector's.
    """
    base, suffix = os.path.splitext(path)
    base = base if suffix in SUFFIXES else path
    for suffix in SUFFIXES[:2]:
        if not os.path.isfile(base + suffix):
            raise MissingFileError(
                f"--resume {path}: there is no {base}{suffix}; a checkpoint has FILE.pdparams and FILE.pdopt (to begin "
                "anew from weights: -o weights=FILE)"
            )
    fitting(trainer.model, f"{base}.pdparams")
    state, _ = open_pickle(f"{base}.pdopt")
    if not isinstance(state, dict) or "last_epoch" not in state:
        raise UserError(
            f"--resume {path}: {base}.pdopt is no optimizer's state with its epoch; take another checkpoint"
        )
    trainer.resume_weights(base)
    best = best_so_far(os.path.join(run_folder(trainer.cfg), METRICS), trainer.start_epoch)
    for callback in trainer._callbacks:
        if hasattr(callback, "best_ap"):
            callback.best_ap = max(callback.best_ap, best)


def best_so_far(path: str, epoch: int) -> float:
    """Return the best AP of boxes up to an epoch that a run has written down; -1000, the toolkit's, of none."""
    found = [row["bbox"]["AP"] or 0.0 for row in read_rows(path) if row["epoch"] <= epoch and "bbox" in row]
    return max(found, default=-1000.0)
