"""A run's state: kept while it goes on, found and put back when it is taken up again."""

from __future__ import annotations

from pathlib import Path

import paddle

from ..config.load import differences
from .checkpoint import (
    CheckpointError,
    check_checkpoint,
    find_checkpoint,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    save_weights,
    save_whole,
)
from .loop import Progress

# Settings that may change between a run and its resumption: none of them changes the weights.
FREE = (
    *("output", "tag", "print_freq", "save_freq", "save_steps", "keep_last", "save_optimizer"),
    *("visualdl", "histogram_freq", "data.on_bad_image"),
    *("data.data_path", "data.num_workers", "data.zip_mode", "model.resume", "model.pretrained"),
    *("train.auto_resume", "train.use_checkpoint"),
)


class CheckpointManager:
    """Writes a run's checkpoints and its files for users, and puts a checkpoint back.

    Args:
        folder: of the run; gets `checkpoints/` and `best_model.pdparams`.
        model: has `.name` and `.overrides`, which build it again.
        ema, scaler: or None.
        schedule: update -> learning rate.
        facts: what a checkpoint says besides: `config`, `world`, `updates_per_epoch`, `classes`.
        keep_last: checkpoints kept.
        with_optimizer: also write the optimizer's state in Paddle's own form, `optimizer.set_state_dict`'s,
            beside the best weights, and both once more at the end.
    """

    def __init__(
        self,
        folder,
        model,
        optimizer,
        *,
        ema,
        scaler,
        schedule,
        facts,
        keep_last=2,
        with_optimizer=False,
    ):
        self.folder, self.model, self.optimizer = Path(folder), model, optimizer
        self.ema, self.scaler, self.schedule = ema, scaler, schedule
        self.facts, self.keep_last, self.with_optimizer = facts, keep_last, with_optimizer

    def save(self, progress: Progress) -> None:
        """A checkpoint of this moment."""
        scaler = self.scaler.state_dict() if self.scaler is not None else None
        save_checkpoint(
            self.folder / "checkpoints",
            model=self.model,
            optimizer=self.optimizer,
            ema=self.ema,
            keep_last=self.keep_last,
            state={
                "model": self.model.name,
                "overrides": self.model.overrides,
                "update": progress.update,
                "progress": progress.as_dict(),
                "rate": self.schedule(progress.update),
                "scaler": scaler and {k: v.item() if hasattr(v, "item") else v for k, v in scaler.items()},
                "random": {"seed": self.facts["config"]["seed"], "update": progress.update},
                "paddle": paddle.__version__,
                **self.facts,
            },
        )

    def save_best(self, which: str) -> None:
        """best_model.pdparams of the present weights, or best_model_ema.pdparams of their average."""
        if which == "ema":
            self._save_weights("best_model_ema", self.ema.average)
        else:
            self._save_pair("best")

    def save_final(self) -> None:
        """final_model.pdparams and final_optimizer.pdopt, where they are wanted."""
        if self.with_optimizer:
            self._save_pair("final")

    def _save_pair(self, which):
        self._save_weights(f"{which}_model", self.model.state_dict())
        if self.with_optimizer:
            save_whole(
                self.folder / f"{which}_optimizer.pdopt",
                lambda partial: paddle.save(self.optimizer.state_dict(), str(partial)),
            )

    def _save_weights(self, name, weights):
        description = {"model": self.model.name, "overrides": self.model.overrides}
        save_weights(self.folder / f"{name}.pdparams", weights, description)

    def restore(self, found) -> Progress:
        """Puts a checkpoint back, and says how far it is."""
        state = load_checkpoint(found, model=self.model, optimizer=self.optimizer, ema=self.ema)
        if self.scaler is not None and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        return Progress(**state["progress"])

    def resume(self, wanted: str, log, *, by_rank=(), force=False) -> Progress:
        """Goes on from the wanted checkpoint, if there is one, and says how far the run is.

        Args:
            wanted: see `wanted_checkpoint`.
            log: a `RunLog`; what it holds of later updates is dropped.
            by_rank, force: see `check_same_run`.

        Raises:
            CheckpointError: for a checkpoint that is not there, damaged, or of another run.
        """
        found = wanted_checkpoint(wanted, self.folder, log.say)
        if found is None:
            log.rewind(0, 0)  # of a run that was killed before its first checkpoint
            return Progress()
        check_same_run(
            found,
            self.facts["config"],
            world=self.facts["world"],
            updates_per_epoch=self.facts["updates_per_epoch"],
            by_rank=by_rank,
            force=force,
        )
        progress = self.restore(found)
        if check_checkpoint(found)["config"] is None:
            progress.update = progress.epoch * self.facts["updates_per_epoch"]
        log.rewind(progress.update, progress.epoch)
        log.say(f"resumed from {found}: epoch {progress.epoch}, update {progress.update}")
        return progress


def archive_previous_run(folder) -> Path | None:
    """Renames a run's folder that holds checkpoints, TAG to TAG.1, .2, ...: a new run begins in its place.

    Returns:
        The folder's new name, or None where there was nothing to set aside.
    """
    folder = Path(folder)
    if not any((folder / "checkpoints").glob("update_*")):
        return None
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return folder.rename(aside)


def wanted_checkpoint(wanted: str, folder, say):
    """The checkpoint to go on from, or None.

    Args:
        wanted: a checkpoint, a run's folder; `auto` for this run's newest valid one, if there is any;
            empty for none.
        folder: of this run.
        say: called with each line for the log.

    Raises:
        CheckpointError: for a checkpoint that is not there.
    """
    if wanted != "auto":
        return find_checkpoint(wanted) if wanted else None
    found, skipped = newest_checkpoint(Path(folder) / "checkpoints")
    for message in skipped:
        say(f"skipped: {message}")
    if found is None:
        say(f"nothing to resume in {folder}: starting afresh")
    return found


def check_same_run(found, settings, *, world, updates_per_epoch, by_rank=(), force=False) -> None:
    """Refuses to go on from a checkpoint of other settings, unless forced.

    Another number of ranks is the same run where an update sees the same images and nothing in it
    is drawn by each rank for itself; it then differs by the order of sums alone.

    Args:
        found: the checkpoint.
        settings: of this run, as nested dicts.
        by_rank: what is drawn or computed by each rank for itself.

    Raises:
        CheckpointError: with the differences and the way out.
    """
    old = check_checkpoint(found)
    if old["config"] is None:  # converted from PyTorch, which tells none: the epochs must be as long
        check_position(old, updates_per_epoch)
        return
    changed = [d for d in differences(old["config"], settings) if d.split(":")[0] not in FREE]
    if old["world"] != world:
        before = _images_per_update(old["config"], old["world"])
        now = _images_per_update(settings, world)
        share = ("data.batch_size", "train.accumulation_steps")
        ranks = f"ranks: {old['world']} -> {world}"
        if now != before:
            changed.append(
                f"{ranks}, and with them the images of an update: {before} -> {now} (choose data.batch_size "
                f"and train.accumulation_steps so that it is {before} again, or start {old['world']} ranks)"
            )
        elif by_rank:
            changed.append(f"{ranks}, and each rank has its own {', '.join(by_rank)}: start {old['world']}")
        else:
            changed = [line for line in changed if line.split(":")[0] not in share]
    if changed and not force:
        raise CheckpointError(
            "the settings differ from those of the checkpoint:\n  "
            + "\n  ".join(changed)
            + "\n(--force goes on with the new ones)"
        )


def check_position(state, updates_per_epoch) -> int:
    """The number of updates that a run converted from PyTorch has done.

    Its state knows the epochs done. Of the updates it may know only those that AdamW counted, to which a
    loss scaler has added some that were skipped: 1 % of them at most, and a hundred at the run's beginning.

    Raises:
        CheckpointError: where epochs of `updates_per_epoch` do not give the updates done.
    """
    found, epoch = state["update"], state["progress"]["epoch"]
    expected = epoch * updates_per_epoch
    exact = (state.get("torch") or {}).get("update_is_exact", True)
    if found == expected or (not exact and found <= expected <= 1.01 * found + 100):
        return expected
    raise CheckpointError(
        f"the checkpoint has done {found} updates in {epoch} epochs; with this batch and data an epoch has "
        f"{updates_per_epoch}. Choose data.batch_size and train.accumulation_steps as it was trained with"
    )


def _images_per_update(settings, world):
    return world * settings["data"]["batch_size"] * settings["train"]["accumulation_steps"]
