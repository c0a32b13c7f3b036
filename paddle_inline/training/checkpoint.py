"""Checkpoints: folders that are whole or not there, say what they are, and load in any process.

    update_00000350/
      model.pdparams          weights by name; loads alone, with `load_weights` or `paddle.load`
      ema.pdparams            the averaged weights, where an average is kept
      optimizer.safetensors   `parameter's name in the model/slot` -> array
      state.json              model, epoch, update, best results, schedule, scaler, seeds, settings
      SHA256SUMS              of the files above, in the form that `sha256sum -c` checks

A folder is written under another name, to disk, and then renamed: a run that is killed at any
moment leaves its last checkpoint or the new one, never half of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import paddle
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..utils.errors import UserError
from ..weights.load import DESCRIPTION, load_weights
from .optim import load_optimizer_state, optimizer_state

FORMAT = 1
SUMS = "SHA256SUMS"
PREFIX = "update_"
NOT_WRITTEN = (OSError, SafetensorError)  # a full disk is the latter where safetensors meets it


class CheckpointError(UserError):
    """A checkpoint that cannot be used or written: the message says which, why, and what to do."""


def save_weights(path, weights, description) -> None:
    """Writes {name: tensor} as a `.pdparams` file, whole or not at all.

    Args:
        path: of the file.
        weights: a state dict. Stored as arrays by name, so the same weights give the same bytes.
        description: {"model": name, "overrides": {...}}, put behind the pickle in a line of JSON.
    """
    save_whole(path, lambda partial: _write_weights(partial, weights, description))


def save_whole(path, write) -> None:
    """Lets `write(another path)` make a file and then gives it its name: it is there whole or not at all."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        _sync(partial)
        os.replace(partial, path)
    except NOT_WRITTEN as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise CheckpointError(_not_written(path, error)) from error
    _sync(path.parent)


def save_checkpoint(folder, *, model, optimizer, state, ema=None, keep_last=2) -> Path:
    """Writes `folder`/update_N, drops all but the newest `keep_last`, and returns its path.

    Checkpoints of later updates are dropped as well: the run has gone back behind them.

    Args:
        folder: of all checkpoints of a run.
        state: what `state.json` shall hold besides the format; has at least `update`, `model` (the
            model's name) and `overrides`.
        ema: an `Ema`, or None.

    Raises:
        CheckpointError: if it cannot be written; the checkpoints that were there still are.
    """
    folder = Path(folder)
    final = folder / f"{PREFIX}{state['update']:08d}"
    partial = folder / f".{final.name}.{os.getpid()}"
    description = {"model": state["model"], "overrides": state["overrides"]}
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write_weights(partial / "model.pdparams", model.state_dict(), description)
        if ema is not None:
            _write_weights(partial / "ema.pdparams", ema.average, description)
        slots = optimizer_state(model, optimizer)
        flat = {f"{name}/{slot}": value for name, of in slots.items() for slot, value in of.items()}
        save_file({k: np.ascontiguousarray(v) for k, v in flat.items()}, partial / "optimizer.safetensors")
        text = json.dumps({"format": FORMAT, **state}, indent=1, sort_keys=True)
        (partial / "state.json").write_text(text + "\n", encoding="utf-8")
        sums = [f"{_digest(file)}  {file.name}\n" for file in sorted(partial.iterdir())]
        (partial / SUMS).write_text("".join(sums), encoding="utf-8")
        for file in partial.iterdir():
            _sync(file)
        if final.exists():  # of an earlier try at the same update
            final.rename(folder / f".old.{final.name}.{os.getpid()}")
        partial.rename(final)
    except NOT_WRITTEN as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(_not_written(final, error)) from error
    _sync(folder)
    _point(folder / "last", final.name)
    kept = sorted(path for path in folder.glob(f"{PREFIX}*") if path.name <= final.name)[-keep_last:]
    for old in folder.glob(f"{PREFIX}*"):
        if old not in kept:
            shutil.rmtree(old, ignore_errors=True)
    for leftover in folder.glob(f".*{PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return final


def check_checkpoint(folder) -> dict:
    """The state of a checkpoint whose files all have the sums written down.

    Raises:
        CheckpointError: naming the file that is missing, cut short or changed.
    """
    folder = Path(folder)
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise CheckpointError(f"{folder} is no checkpoint: it has no readable {SUMS}") from None
    for line in lines:
        digest, _, name = line.partition("  ")
        file = folder / os.path.basename(name)
        if not file.is_file():
            raise CheckpointError(f"{folder} is damaged: {name} is missing; take another checkpoint")
        if _digest(file) != digest:
            raise CheckpointError(
                f"{folder} is damaged: {name} is cut short or changed (its SHA-256 differs); "
                "take another checkpoint"
            )
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CheckpointError(f"{folder} is damaged: state.json cannot be read") from None
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder} has format {state.get('format')}; this version reads format {FORMAT}"
        )
    return state


def newest_checkpoint(folder) -> tuple[Path | None, list[str]]:
    """The newest valid checkpoint of a run, and why each newer one was passed over.

    Args:
        folder: of a run's checkpoints; need not exist.

    Returns:
        (path or None, messages).
    """
    skipped = []
    for candidate in sorted(Path(folder).glob(f"{PREFIX}*"), reverse=True):
        try:
            check_checkpoint(candidate)
            return candidate, skipped
        except CheckpointError as error:
            skipped.append(str(error))
    return None, skipped


def find_checkpoint(path) -> Path:
    """The checkpoint that `path` names: one itself, or the newest valid one of a run's folder.

    Raises:
        CheckpointError: if there is none.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"no checkpoint {path}")
    if path.is_file():
        raise CheckpointError(
            f"{path} is a file; a run is resumed from its folder or one of its checkpoints' (such as "
            "OUTPUT/MODEL/TAG/checkpoints/last), weights alone are loaded with --pretrained"
        )
    if (path / SUMS).exists() or path.name.startswith(PREFIX):
        return path.resolve()
    for folder in (path / "checkpoints", path):
        found, skipped = newest_checkpoint(folder)
        if found is not None:
            return found
        if skipped:
            raise CheckpointError(f"no valid checkpoint in {path}: " + "; ".join(skipped))
    raise CheckpointError(f"{path} holds no checkpoint")


def load_checkpoint(folder, *, model, optimizer, ema=None) -> dict:
    """Puts a checkpoint back and returns its state; everything is checked before anything changes.

    Raises:
        CheckpointError: for a damaged checkpoint, another model's, or one without the average asked for.
        ValueError: if weights or optimizer state differ from the model's, with the difference.
    """
    folder = Path(folder)
    state = check_checkpoint(folder)
    name = getattr(model, "name", state["model"])
    if state["model"] != name:
        raise CheckpointError(f"{folder} is a checkpoint of {state['model']}, not of {name}")
    if ema is not None and not (folder / "ema.pdparams").exists():
        raise CheckpointError(f"{folder} holds no averaged weights; resume without ema.decay")
    if ema is not None:
        load_weights(model, folder / "ema.pdparams")
        ema.copy_from(model)
    load_weights(model, folder / "model.pdparams")
    slots: dict = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        parameter, slot = key.rsplit("/", 1)
        slots.setdefault(parameter, {})[slot] = value
    load_optimizer_state(model, optimizer, slots)
    return state


def _write_weights(path, weights, description):
    paddle.save({name: value.numpy() for name, value in weights.items()}, str(path))
    with open(path, "ab") as file:
        file.write(b"\n" + json.dumps({DESCRIPTION: description}, sort_keys=True).encode() + b"\n")
    _sync(path)


def _digest(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _sync(path):
    """Lets a file or folder reach the disk before anything that follows does."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system syncs folders
            os.fsync(handle)
    finally:
        os.close(handle)


def _point(link, target):
    """Makes `link` lead to `target`; a convenience, so systems without links do without."""
    partial = link.with_name(f".{link.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)
        os.symlink(target, partial)
        os.replace(partial, link)


def _not_written(path, error):
    why = getattr(error, "strerror", None) or error
    return f"{path} cannot be written: {why}; earlier checkpoints are untouched"
