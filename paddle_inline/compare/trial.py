"""One training of a comparison: a form and a seed, by the loop and the parts of `train_paddle.py`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import paddle
from rich.console import Console

from ..models.factory import create_model
from ..training import build
from ..training.build_data import names_digest
from ..training.callbacks import Callback, StepResult
from ..training.checkpoint import description_of, save_weights
from ..training.diagnose import NotFinite
from ..training.evaluate import Accuracy
from ..training.log import RunLog, read_metrics
from ..training.loop import fit
from ..training.resume import CheckpointManager
from ..training.state import Progress
from ..utils.errors import UserError
from ..weights.atomic import atomic_write
from .plan import Form, Plan

RESULT, WEIGHTS = "result.json", "model.pdparams"


class _Checkpoints(CheckpointManager):
    """Checkpoints to go on from; no best weights, since what is compared is the last epoch's."""

    def on_evaluation(
        self, progress: Progress, accuracy: Accuracy, averaged: Accuracy | None, improved: tuple[str, ...]
    ) -> None:
        pass


class _Curves(Callback):
    """Writes the curves, a row an epoch, to metrics.jsonl, where a resumed training finds its earlier ones."""

    def __init__(self, log: RunLog) -> None:
        self.log, self.losses = log, [float("nan")]

    def on_epoch_start(self, progress: Progress) -> None:
        self.losses = []

    def on_step_end(self, progress: Progress, step: StepResult) -> None:
        self.losses.append(step.loss)

    def on_evaluation(
        self, progress: Progress, accuracy: Accuracy, averaged: Accuracy | None, improved: tuple[str, ...]
    ) -> None:
        row = {"top1": accuracy.top1, "held_out_loss": accuracy.loss, "images": accuracy.images}
        self.log.scalars(progress.step, epoch=progress.epoch, loss=float(np.mean(self.losses)), **row)


@contextlib.contextmanager
def generators_put_back() -> Iterator[None]:
    """Put back the generators of random numbers that a training seeds for the whole process."""
    draws, numpys = paddle.get_rng_state(), np.random.get_state()
    try:
        yield
    finally:
        paddle.set_rng_state(draws)
        np.random.set_state(numpys)


def widen(model: paddle.nn.Layer, deviation: float = 0.02) -> None:
    """Give Linear weights that start with a deviation near 0.02 one that keeps a signal's length, fan_in ** -0.5.

    The papers' 0.02 suits widths of hundreds of channels; a narrow network stands still with it for many epochs.
    """
    for layer in model.sublayers():
        if isinstance(layer, paddle.nn.Linear):
            weight = layer.weight
            if 0.7 < np.std(weight.numpy()) / deviation < 1.3:
                weight.set_value(weight * (weight.shape[0] ** -0.5 / deviation))


def inputs_digest(run: build.Run) -> str:
    """Return a digest of what a run learns from and is judged by: all names and labels, the first batches' bytes."""
    digest = hashlib.sha256()
    for source in (run.train_source, run.eval_source):
        digest.update(names_digest(source).encode())
    for loader in (run.components.load(0, 0), run.eval_loader):
        for tensor in next(iter(loader)):
            digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()[:16]


def trial_folder(plan: Plan, form: Form, seed: int, output: Path) -> Path:
    """Return the folder of one training."""
    return build.run_folder(plan.config(form, seed, output / "trials" / form.folder))


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what a file of a comparison holds; None where it is not there.

    Raises:
        UserError: it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    except FileNotFoundError:
        return None
    except ValueError:
        pass
    raise UserError(f"{path} is damaged: remove it, and the comparison makes it again")


def write_json(path: Path, values: Any) -> None:
    """Write a file of a comparison, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def check_same_inputs(plan: Plan, form: Form, seed: int, output: Path, inputs: str) -> None:
    """Refuse data that is not, byte for byte, what the finished trainings with this seed had.

    Raises:
        UserError: with the first training that had other data.
    """
    for other in plan.forms:
        path = trial_folder(plan, other, seed, output) / RESULT
        before = (read_json(path) or {}).get("inputs", inputs)
        if before != inputs:
            raise UserError(
                f"the data has changed: {form.name} with seed {seed} has inputs {inputs}, {other.name} had {before} "
                f"({path}); bring the old data back, or begin again in another folder with --output"
            )


def console_to(file: IO[str]) -> Console:
    """Return a console that writes to a file in a notebook as well, where rich would display the lines."""
    return Console(file=file, force_jupyter=False)


def train(plan: Plan, form: Form, seed: int, output: Path) -> dict[str, Any]:
    """Train one network to its end, or from where an earlier process was cut off, and write its result.

    Args:
        plan: the comparison; form and seed: which training.
        output: the comparison's folder.

    Returns:
        {"form", "seed", "top1": percent after the last epoch, "loss": held-out, "diverged": None, or why both are
        None, "curve": percent after every epoch, "losses": of training, "inputs": `inputs_digest`, "seconds": of
        processor time, what was cut off not counted, "images", "held_out_images", "classes"}.

    Raises:
        UserError: the data cannot be read, or is not what other forms were trained on.
    """
    config = plan.config(form, seed, output / "trials" / form.folder)
    folder = build.run_folder(config)
    began = time.process_time()
    with generators_put_back(), open(os.devnull, "w", encoding="utf-8") as silence:
        run = build.build_run(config, 0, 1)
        inputs = inputs_digest(run)
        check_same_inputs(plan, form, seed, output, inputs)
        if plan.widened:
            widen(run.components.model)
        log = RunLog(folder, visualdl=False, console=console_to(silence))
        manager = _Checkpoints(folder, run.components, run.state, keep_last=1)
        progress = manager.resume("auto", log)
        diverged = None
        try:
            fit(run.components, progress, run.options, [_Curves(log), manager])
        except NotFinite as error:  # which is a result too
            diverged = str(error)
        log.close()
        save_weights(folder / WEIGHTS, run.components.model.state_dict(), description_of(manager.state))
    rows = read_metrics(folder)
    result = {
        "form": form.name,
        "seed": seed,
        "top1": None if diverged else rows[-1]["top1"],
        "loss": None if diverged else rows[-1]["held_out_loss"],
        "diverged": diverged,
        "held_out_images": len(run.eval_source),
        "curve": [row["top1"] for row in rows],
        "losses": [row["loss"] for row in rows],
        "inputs": inputs,
        "classes": list(run.train_source.classes),
        "images": len(run.train_source),
        "seconds": time.process_time() - began,
    }
    write_json(folder / RESULT, result)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return result


def trained_model(plan: Plan, form: Form, seed: int, output: Path) -> paddle.nn.Layer:
    """Return the network of a finished training, in evaluation mode."""
    weights = trial_folder(plan, form, seed, output) / WEIGHTS
    classes = len((read_json(weights.with_name(RESULT)) or {})["classes"])
    model = create_model(plan.backbone, weights=weights, num_classes=classes, **form.overrides())
    model.eval()
    return model
