"""A run's checkpoints: written while it trains, found and loaded when it is resumed.

(A few lines above 300: every condition of resuming stands beside the manager that asks it.)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Callable

import paddle

from ..config.load import Config, differences, to_dict
from ..models.factory import model_spec
from ..utils.errors import counted, short
from .callbacks import Callback
from .checkpoint import (
    CheckpointError,
    check_checkpoint,
    checkpoints_in,
    description_of,
    find_checkpoint,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    save_optimizer,
    save_weights,
)
from .evaluate import Accuracy
from .log import RunLog
from .loop import Components
from .state import Progress, TrainingState, load_scaler_state, scaler_state

# Settings that may change between a run and its resumption: none of them changes the weights.
FREE = (
    *("output", "tag", "print_freq", "save_freq", "save_steps", "keep_last", "save_optimizer"),
    *("visualdl", "histogram_freq", "data.on_bad_image", "eval_mode", "throughput_mode"),
    *("data.data_path", "data.num_workers", "data.zip_mode", "model.resume", "model.pretrained"),
    *("train.auto_resume", "train.use_checkpoint"),
    *("gpu.prefetch", "gpu.fused_update", "gpu.fused_attention", "gpu.autotune"),
)
# What fixes where in an epoch a step is, and which images it sees: begun with others, an epoch begins anew.
POSITION = (
    *("training images", "steps an epoch", "classes", "ranks", "seed", "data.dataset"),
    *("data.batch_size", "train.accumulation_steps"),
)


class CheckpointManager(Callback):
    """Writes a run's checkpoints and its files for users, and resumes from a checkpoint.

    Args:
        folder: of the run; gets `checkpoints/`, `best_model.pdparams` and `best_model_ema.pdparams`.
        run: the model, optimizer, average, loss scaler and schedule.
        state: of the run; its progress is the one that `fit` counts forward.
        keep_last: checkpoints kept.
        with_optimizer: also write the optimizer's state in Paddle's own form, `optimizer.set_state_dict`'s,
            beside the best weights, and both once more at the end.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        run: Components,
        state: TrainingState,
        *,
        keep_last: int = 2,
        with_optimizer: bool = False,
    ) -> None:
        self.folder, self.run, self.state = Path(folder), run, state
        self.unmeasured = False  # whether the weights that a run goes on from have never been evaluated here
        self.best: Path | None = None  # this run's best weights, once its folder has them
        self.keep_last, self.with_optimizer = keep_last, with_optimizer

    def on_checkpoint(self, progress: Progress) -> None:
        """Write a checkpoint of this moment.

        Raises:
            CheckpointError: if it cannot be written; so do the other writers.
        """
        # (A run without a loss scaler hands on the state of an earlier one.)
        self.state = replace(
            self.state,
            progress=progress,
            rate=self.run.schedule(progress.step),
            scaler=scaler_state(self.run.scaler) or self.state.scaler,
            paddle=paddle.__version__,
        )
        save_checkpoint(
            self.folder / "checkpoints",
            model=self.run.model,
            optimizer=self.run.optimizer,
            ema=self.run.ema,
            state=self.state,
            keep_last=self.keep_last,
        )

    def on_evaluation(
        self, progress: Progress, accuracy: Accuracy, averaged: Accuracy | None, improved: tuple[str, ...]
    ) -> None:
        """Write the weights that are the best so far."""
        if "model" in improved:
            self._save("best")
            self.best = self.folder / "best_model.pdparams"
        if "ema" in improved and self.run.ema is not None:
            self._save_weights("best_model_ema", self.run.ema.average)

    def save_final(self) -> None:
        """Write final_model.pdparams and final_optimizer.pdopt, where they are wanted."""
        if self.with_optimizer:
            self._save("final")

    def _save(self, which):
        self._save_weights(f"{which}_model", self.run.model.state_dict())
        if self.with_optimizer:
            save_optimizer(self.folder / f"{which}_optimizer.pdopt", self.run.optimizer)

    def _save_weights(self, name, weights):
        save_weights(self.folder / f"{name}.pdparams", weights, description_of(self.state))

    def resume(
        self, requested: str, log: RunLog, *, rank_dependent: Sequence[str] = (), force: bool = False
    ) -> Progress:
        """Load the requested checkpoint, if there is one.

        Args:
            requested: see `requested_checkpoint`.
            log: of the run; what it holds of later steps is dropped.
            rank_dependent: see `check_same_run`.
            force: continue with other settings. Where they change which images a step sees, the epoch that has
                begun begins anew.

        Returns:
            The run's progress, which `fit` counts forward.

        Raises:
            CheckpointError: for a checkpoint that is not there, damaged, or of another run.
        """
        found = requested_checkpoint(requested, self.folder, log.info)
        if found is None:
            log.rewind(0, 0)  # of a run that was killed before its first checkpoint
            return self.state.progress
        earlier = check_checkpoint(found)
        run = self.run
        check_outputs(found, earlier, run.model)
        changed = check_same_run(earlier, self.state, rank_dependent=rank_dependent, force=force)
        load_checkpoint(found, model=run.model, optimizer=run.optimizer, ema=run.ema, state=earlier)
        load_scaler_state(self.run.scaler, earlier.scaler)
        progress, origin = earlier.progress, earlier.origin
        done = progress.step  # as the log's rows count
        moved = [line for line in changed if line.split(":")[0] in POSITION]
        if earlier.config is None or moved:
            done = progress.epoch * (earlier.steps_per_epoch or self.state.steps_per_epoch)
            progress.step, progress.bad_images = progress.epoch * self.state.steps_per_epoch, 0
            origin = origin and replace(origin, source_step=progress.step, step_is_exact=True)
        self.state = replace(self.state, progress=progress, origin=origin, scaler=earlier.scaler)
        log.rewind(done, progress.epoch - (earlier.config is None))  # whose weights are evaluated anew
        log.info(f"resumed from {found}: epoch {progress.epoch}, step {progress.step}")
        run_folder = Path(found).parent.parent
        if earlier.config is None:  # of a run elsewhere, whose best weights are not here
            theirs = progress.best_top1
            progress.best_top1 = progress.best_ema_top1 = -1.0
            progress.best_epoch = progress.best_ema_epoch = 0
            self.unmeasured = progress.epoch > 0
            if theirs >= 0:
                log.info(
                    f"the run that this one goes on from states a best top-1 of {theirs:.2f}%; those weights are not "
                    "here: the best of this run is of those that it evaluates, the ones it begins with first"
                )
        elif run_folder.resolve() == self.folder.resolve():
            best = self.folder / "best_model.pdparams"
            self.best = best if progress.best_epoch and best.is_file() else None
        elif progress.best_epoch:
            log.info(
                f"the best weights so far ({progress.best_top1:.2f}%, epoch {progress.best_epoch}) stay in "
                f"{run_folder}; this folder gets better ones only"
            )
        if self.run.ema is None and (Path(found) / "ema.pdparams").exists():
            log.info(
                "the checkpoint's averaged weights are left out, for the settings keep none: set ema.decay "
                "(--model-ema-decay) to continue them"
            )
        for line in changed:
            log.info(f"changed since the checkpoint: {line}")
        if moved:
            log.info(f"epoch {progress.epoch + 1} begins anew: its steps see other images than before")
        return progress


def check_outputs(found: str | os.PathLike[str], earlier: TrainingState, model: paddle.nn.Layer) -> None:
    """Refuse a checkpoint of another number of outputs with the setting that is missing.

    Raises:
        CheckpointError: with both numbers.
    """
    if earlier.model != getattr(model, "name", None):
        return  # refused by that
    theirs = model_spec(earlier.model, **earlier.overrides).num_classes
    if theirs != model.spec.num_classes:
        raise CheckpointError(
            f"{found} has {counted(theirs, 'class')}, this run {model.spec.num_classes}, as many as its data set "
            f"unless model.num_classes (MODEL.NUM_CLASSES) says otherwise: set model.num_classes={theirs} to continue "
            "it, or begin with its weights, --pretrained, and a head of the data's own"
        )


def archive_previous_run(folder: str | os.PathLike[str]) -> Path | None:
    """Rename a run's folder that holds checkpoints, TAG to TAG.1, .2, ...: a new run begins in its place.

    Returns:
        The folder's new name, or None where there was nothing to archive.
    """
    folder = Path(folder)
    if not checkpoints_in(folder / "checkpoints"):
        return None
    number = 1
    while (archive := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return folder.rename(archive)


def requested_checkpoint(
    requested: str, folder: str | os.PathLike[str], log: Callable[[str], None]
) -> Path | None:
    """Find the checkpoint to go on from.

    Args:
        requested: a checkpoint or a run's folder; `auto` for this run's newest valid one, if there is any;
            empty for none.
        folder: of this run.
        log: called with each line for the log.

    Raises:
        CheckpointError: for a checkpoint that is not there.
    """
    if requested != "auto":
        return find_checkpoint(requested) if requested else None
    found, skipped = newest_checkpoint(Path(folder) / "checkpoints")
    for message in skipped:
        log(f"skipped: {message}")
    if found is None and skipped:  # what is left of a run is not written over
        raise CheckpointError(
            f"no valid checkpoint in {folder}, but damaged ones: {'; '.join(skipped)}\n"
            "Begin anew without --resume, which sets that run aside (TAG.1), or with another --tag; its best "
            "weights may be whole (--pretrained)"
        )
    if found is None:
        log(f"no checkpoint in {folder}: training from the beginning")
    return found


def check_same_run(
    earlier: TrainingState, now: TrainingState, *, rank_dependent: Sequence[str] = (), force: bool = False
) -> list[str]:
    """Refuse to go on from a checkpoint of other settings or other data, unless forced.

    Another number of ranks is the same run where a step sees the same images and nothing in it is drawn by each
    rank for itself; it then differs by the order of sums alone.

    Args:
        earlier: the checkpoint's state.
        now: this run's.
        rank_dependent: what is drawn or computed by each rank for itself.

    Returns:
        `what: old -> new` of all that has changed and was forced.

    Raises:
        CheckpointError: with the differences and the way out.
    """
    changed = data_differences(earlier, now)
    if earlier.config is None:  # converted from PyTorch, without settings: the epochs must be as long
        if not force:
            check_position(earlier, now.steps_per_epoch)
    else:
        changed += setting_differences(earlier, now, rank_dependent)
    if changed and not force:
        raise CheckpointError(
            "the settings or the data differ from those of the checkpoint:\n  "
            + "\n  ".join(changed)
            + "\nContinue with the new ones with --force"
        )
    return changed


def data_differences(earlier: TrainingState, now: TrainingState) -> list[str]:
    """Return `what: old -> new` for the training data; what either state does not know is not compared."""
    changed = []
    if None not in (earlier.images, now.images) and earlier.images != now.images:
        changed.append(f"training images: {earlier.images} -> {now.images}")
    elif None not in (earlier.image_names, now.image_names) and earlier.image_names != now.image_names:
        changed.append(
            f"training images: {earlier.images} as before, but with other names, or of other classes"
        )
    steps = earlier.steps_per_epoch, now.steps_per_epoch
    if earlier.config is not None and None not in steps and steps[0] != steps[1]:
        changed.append(f"steps an epoch: {steps[0]} -> {steps[1]}")
    old, new = earlier.classes, now.classes
    if old is not None and new is not None and old != new:
        gone, come = [name for name in old if name not in new], [name for name in new if name not in old]
        texts = [f"{len(old)} -> {len(new)}"]
        texts += [f"no longer there: {short(', '.join(gone), 400)}"] if gone else []
        texts += [f"new: {short(', '.join(come), 400)}"] if come else []
        texts += [] if gone or come else ["the same names in another order"]
        changed.append(f"classes: {'; '.join(texts)}")
    return changed


def setting_differences(
    earlier: TrainingState, now: TrainingState, rank_dependent: Sequence[str] = ()
) -> list[str]:
    """Return `key: old -> new` for the settings and the number of ranks, where they make another run."""
    before_config = _with_defaults(earlier.config or {}, to_dict(Config()))  # a setting that is newer than it
    changed = [d for d in differences(before_config, now.config or {}) if d.split(":")[0] not in FREE]
    if earlier.world != now.world:
        before, after = _images_per_step(earlier), _images_per_step(now)
        share = ("data.batch_size", "train.accumulation_steps")
        ranks = f"ranks: {earlier.world} -> {now.world}"
        if after != before:
            changed.append(
                f"{ranks}, and with them the images per step: {before} -> {after} (choose data.batch_size and "
                f"train.accumulation_steps so that it is {before} again, or start {earlier.world} ranks)"
            )
        elif rank_dependent:
            own = ", ".join(rank_dependent)
            changed.append(f"{ranks}, and each rank has its own {own}: start {earlier.world}")
        else:
            changed = [line for line in changed if line.split(":")[0] not in share]
    return changed


def check_position(state: TrainingState, steps_per_epoch: int) -> int:
    """Return the number of steps that a run converted from PyTorch has done.

    Its state knows the epochs done. Of the steps it may know only those that AdamW counted, to which a loss
    scaler has added some that were skipped: 1 % of them at most, and a hundred at the run's beginning.

    Raises:
        CheckpointError: where epochs of `steps_per_epoch` do not give the steps done.
    """
    found, epoch = state.progress.step, state.progress.epoch
    expected = epoch * steps_per_epoch
    exact = state.origin is None or state.origin.step_is_exact
    if found == expected or (not exact and found <= expected <= 1.01 * found + 100):
        return expected
    raise CheckpointError(
        f"the checkpoint has done {counted(found, 'step')} in {counted(epoch, 'epoch')}; with this batch and data an "
        f"epoch has {steps_per_epoch}. Choose data.batch_size and train.accumulation_steps as it was trained with"
    )


def _with_defaults(config, defaults):
    merged = {**defaults, **config}
    for key, value in defaults.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            merged[key] = _with_defaults(config[key], value)
    return merged


def _images_per_step(state):
    config = state.config
    return state.world * config["data"]["batch_size"] * config["train"]["accumulation_steps"]
