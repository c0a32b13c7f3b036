"""Checkpoints: folders that are whole or not there, describe themselves, and load in any process.

    step_00000350/
      model.pdparams          weights by name; loads alone, with `load_weights` or `paddle.load`
      ema.pdparams            the averaged weights, where an average is kept
      optimizer.safetensors   `parameter's name in the model/slot` -> array
      state.json              model, progress, best results, schedule, loss scaler, settings (state.py)
      SHA256SUMS              of the files above, in the form that `sha256sum -c` checks

A folder is written under another name, flushed to disk and then renamed: a run that is killed at any moment
leaves its last checkpoint or the new one, never a part of one. Version 0.1 named the folders `update_N`.

(A few lines above 300: the writer and the reader of one format stay together.)
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..utils.errors import UserError, short
from ..utils.paths import expand
from ..weights.atomic import atomic_write, flush_to_disk, sha256, sync_folder
from ..weights.description import DESCRIPTION, describe
from ..weights.foreign import TORCH, advice, kind_of
from ..weights.load import fitting, write_state
from .optim import check_optimizer_state, load_optimizer_state, optimizer_state
from .state import TrainingState

if TYPE_CHECKING:
    from .ema import Ema

SUMS = "SHA256SUMS"
PREFIX, OLD_PREFIX = "step_", "update_"


class CheckpointError(UserError):
    """A checkpoint that cannot be used or written: the message says which, why, and what to do."""


def save_weights(path: str | os.PathLike[str], weights: dict[str, Any], description: dict) -> None:
    """Write a state dict as a `.pdparams` file, whole or not at all; its folder is made if needed.

    Args:
        description: see `write_weights`.

    Raises:
        CheckpointError: if it cannot be written.
    """
    arrays = _arrays(weights)
    with _writing(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            write_weights(temporary, arrays, description)


def save_optimizer(path: str | os.PathLike[str], optimizer: paddle.optimizer.Optimizer) -> None:
    """Write an optimizer's own state, as `optimizer.set_state_dict` takes it, whole or not at all.

    Raises:
        CheckpointError: if it cannot be written.
    """
    with _writing(path), atomic_write(path) as temporary:
        paddle.save(optimizer.state_dict(), str(temporary))


def write_weights(path: Path, arrays: dict[str, np.ndarray], description: dict) -> None:
    """Write arrays by name as a `.pdparams` file that says which model they are of.

    Args:
        arrays: by the names of the model's state dict; the same weights give the same bytes.
        description: of `weights.description.describe`, a line of JSON behind the pickle, which `paddle.load`
            does not see.
    """
    paddle.save(arrays, str(path))
    with open(path, "ab") as file:
        file.write(b"\n" + json.dumps({DESCRIPTION: description}, sort_keys=True).encode() + b"\n")


def description_of(state: TrainingState) -> dict[str, Any]:
    """Return what a weights file of a run says of itself."""
    return describe(state.model, state.overrides, state.transform, state.classes)


def save_checkpoint(
    folder: str | os.PathLike[str],
    *,
    model: paddle.nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    state: TrainingState,
    ema: Ema | None = None,
    keep_last: int = 2,
) -> Path:
    """Write `folder`/step_N and delete all but the newest `keep_last`.

    Checkpoints of later steps are deleted as well: the run has gone back behind them.

    Args:
        folder: of all checkpoints of a run.

    Returns:
        The checkpoint's path.

    Raises:
        CheckpointError: if it cannot be written; the checkpoints that were there still are.
    """
    folder = Path(folder)
    final = folder / f"{PREFIX}{state.progress.step:08d}"
    partial = folder / f".{final.name}.{os.getpid()}"
    files = {"model.pdparams": _arrays(model.state_dict())}
    if ema is not None:
        files["ema.pdparams"] = _arrays(ema.average)
    slots = optimizer_state(model, optimizer)
    flat = {f"{name}/{slot}": value for name, of in slots.items() for slot, value in of.items()}
    with _writing(final):
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for name, arrays in files.items():
                write_weights(partial / name, arrays, description_of(state))
            save_file(
                {k: np.ascontiguousarray(v) for k, v in flat.items()}, partial / "optimizer.safetensors"
            )
            text = json.dumps(state.to_json(), indent=1, sort_keys=True)
            (partial / "state.json").write_text(text + "\n", encoding="utf-8")
            sums = [f"{sha256(file)}  {file.name}\n" for file in sorted(partial.iterdir())]
            (partial / SUMS).write_text("".join(sums), encoding="utf-8")
            for file in partial.iterdir():
                flush_to_disk(file)
            if final.exists():  # of an earlier try at the same step
                final.rename(folder / f".old.{final.name}.{os.getpid()}")
            partial.rename(final)
        except Exception:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    sync_folder(folder)
    _link(folder / "last", final.name)
    kept = [path for path in checkpoints_in(folder) if step_of(path) <= state.progress.step][-keep_last:]
    for old in checkpoints_in(folder):
        if old not in kept:
            shutil.rmtree(old, ignore_errors=True)
    for leftover in (*folder.glob(f".*{PREFIX}*"), *folder.glob(f".*{OLD_PREFIX}*")):
        shutil.rmtree(leftover, ignore_errors=True)
    return final


def checkpoints_in(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the checkpoints of a folder by their steps, whole ones and damaged ones; it need not exist."""
    found = (path for prefix in (OLD_PREFIX, PREFIX) for path in Path(folder).glob(f"{prefix}*"))
    return sorted((path for path in found if step_of(path) >= 0), key=lambda path: (step_of(path), path.name))


def step_of(path: Path) -> int:
    """Return the step in a checkpoint's name; -1 for another name."""
    number = path.name.partition("_")[2] if path.name.startswith((PREFIX, OLD_PREFIX)) else ""
    return int(number) if number.isdecimal() else -1


def check_checkpoint(folder: str | os.PathLike[str]) -> TrainingState:
    """Check every file of a checkpoint against its recorded SHA-256 and return the state.

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
        if sha256(file) != digest:
            raise CheckpointError(
                f"{folder} is damaged: {name} is cut short or changed (its SHA-256 differs); "
                "take another checkpoint"
            )
    try:
        contents = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CheckpointError(f"{folder} is damaged: state.json cannot be read") from None
    try:
        state = TrainingState.from_json(contents)
    except ValueError as error:
        raise CheckpointError(f"{folder} {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder} is no checkpoint of the training program: its state.json lacks what one has ({error})"
        ) from None
    listed = {line.partition("  ")[2] for line in lines}
    for name in ("model.pdparams", "optimizer.safetensors", "state.json"):
        if name not in listed:
            raise CheckpointError(f"{folder} is damaged: its {SUMS} lacks {name}; take another checkpoint")
    return state


def newest_checkpoint(folder: str | os.PathLike[str]) -> tuple[Path | None, list[str]]:
    """Find the newest valid checkpoint in a folder, which need not exist, and why newer ones were passed over.

    Returns:
        (path or None, messages).
    """
    skipped: list[str] = []
    for candidate in reversed(checkpoints_in(folder)):
        try:
            check_checkpoint(candidate)
            return candidate, skipped
        except CheckpointError as error:
            skipped.append(str(error))
    return None, skipped


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """Find the checkpoint that `path` names: one itself, or the newest valid one of a run's folder.

    Raises:
        CheckpointError: if there is none.
    """
    path = Path(expand(path))
    if not os.path.exists(path):
        raise CheckpointError(
            f"no checkpoint {short(str(path), 400)}: there is no such file or folder; give a run's folder, "
            "OUTPUT/MODEL/TAG, or one of its checkpoints/step_N"
        )
    if path.is_file():
        if foreign := advice(path):
            whole = f"; a whole run is converted by python -m convert to-paddle {path} FOLDER --training"
            raise CheckpointError(foreign + (whole if kind_of(path)[0] == TORCH else ""))
        raise CheckpointError(
            f"{path} is a file; a run is resumed from its folder or one of its checkpoints' (such as "
            "OUTPUT/MODEL/TAG/checkpoints/last), weights alone are loaded with --pretrained"
        )
    if (path / SUMS).exists() or step_of(path) >= 0:
        return path.resolve()
    for folder in (path / "checkpoints", path):
        found, skipped = newest_checkpoint(folder)
        if found is not None:
            return found
        if skipped:
            raise CheckpointError(f"no valid checkpoint in {path}: " + "; ".join(skipped))
    what, step = kind_of(path)
    if step and any(path.iterdir()):
        raise CheckpointError(f"{path} holds no checkpoint of the training program; it is {what}: {step}")
    raise CheckpointError(
        f"{path} holds no checkpoint: give a run's folder, OUTPUT/MODEL/TAG, or one of its checkpoints/step_N"
    )


def load_checkpoint(
    folder: str | os.PathLike[str],
    *,
    model: paddle.nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    ema: Ema | None = None,
    state: TrainingState | None = None,
) -> TrainingState:
    """Load weights, average and optimizer; every file's SHA-256, names and shapes are checked before anything changes.

    Args:
        folder: the checkpoint's.
        model, optimizer, ema: what is loaded into.
        state: what `check_checkpoint` returned, where the files have been checked already.

    Returns:
        The checkpoint's state.

    Raises:
        CheckpointError: for a damaged checkpoint, another model's, or one without the average asked for.
        UserError: if weights or optimizer state differ from the model's, with the difference.
    """
    folder = Path(folder)
    state = check_checkpoint(folder) if state is None else state
    name = getattr(model, "name", state.model)
    if state.model != name:
        raise CheckpointError(f"{folder} is a checkpoint of {state.model}, not of {name}")
    if ema is not None and not (folder / "ema.pdparams").exists():
        raise CheckpointError(f"{folder} holds no averaged weights: set ema.decay=null to continue without")
    weights = fitting(model, folder / "model.pdparams")
    averaged = fitting(model, folder / "ema.pdparams") if ema is not None else None
    slots: dict[str, dict[str, np.ndarray]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        parameter, slot = key.rsplit("/", 1)
        slots.setdefault(parameter, {})[slot] = value
    check_optimizer_state(
        model, optimizer, slots
    )  # the last of what can be refused: nothing is loaded by halves
    if ema is not None and averaged is not None:
        write_state(model, *averaged)
        ema.copy_from(model)
    write_state(model, *weights)
    load_optimizer_state(model, optimizer, slots)
    return state


def _arrays(tensors):
    """Copy {name: tensor} to the host, apart from writing: a fault of the device is no full disk."""
    return {name: value.numpy() for name, value in tensors.items()}


def _link(link, target):
    """Make `link` lead to `target`; a convenience, so systems without links do without."""
    partial = link.with_name(f".{link.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)
        os.symlink(target, partial)
        os.replace(partial, link)


@contextlib.contextmanager
def _writing(path: Any) -> Iterator[None]:
    """Turn what a full disk or a wrong folder raises inside into a CheckpointError."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # a full disk is the latter where safetensors meets it
        if isinstance(error, OSError) and error.errno is None:
            raise  # Paddle's own OSError
        why = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"{path} cannot be written: {why}; earlier checkpoints are untouched"
        ) from error
