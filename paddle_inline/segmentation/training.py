"""Training a segmenter: PaddleSeg's parts in a loop that can be interrupted anywhere and resumed to the bit.

A run's folder:

    config.yml                  its settings, to be read again
    checkpoints/step_N/         of training.checkpoint: weights, optimizer, state (its `best_top1` is the mIoU here)
    best_model/model.pdparams   the weights of the best mIoU so far, and scores.json beside them
    train.log, metrics.jsonl, visualdl/

Learning rate, order of the pictures and all draws are functions of (seed, step); no generator's state is kept.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paddle
import yaml

from ..data.draws import seed_of
from ..data.loaders import Loader
from ..training import distributed
from ..training.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint, save_weights
from ..training.diagnose import NotFinite
from ..training.failure import reported
from ..training.lock import locked
from ..training.log import RunLog, duration, make_folder
from ..training.state import Progress, TrainingState, load_scaler_state, scaler_state
from ..training.sync_bn import synchronise
from ..utils.errors import UserError, counted
from ..weights.atomic import atomic_write
from .data import Batches, TrainingSamples, open_dataset
from .heads import name_of
from .inference import evaluate
from .mends import toolkit
from .settings import Settings

BEST = Path("best_model")


def train(settings: Settings, resume: str = "", stop_after: int | None = None) -> Path:
    """Train to the last step.

    Args:
        settings: of the run.
        resume: a checkpoint, or a run's folder for its newest; `auto`: this run's newest, if there is one.
        stop_after: steps to take at most; the run can be resumed.

    Returns:
        The run's folder.

    Raises:
        UserError: a data set, weights or settings that cannot be used; a folder that holds another run.
        NotFinite: the loss is no number any more; the last checkpoint is kept.
    """
    rank, world = distributed.start()
    folder = Path(settings.run["save_dir"])
    with reported(folder, rank, world), contextlib.ExitStack() as stack:
        run = Run(settings, rank, world)
        if rank == 0:
            make_folder(folder)
            stack.enter_context(locked(folder))
        start = run.resume(folder, resume)
        run.fit(folder, start, stop_after)
    return folder


def changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return `key: old -> new` of the settings that differ and have a say in what is learnt."""
    free = {
        "save_dir",
        "save_interval",
        "log_iters",
        "keep_checkpoint_max",
        "num_workers",
        "device",
        "use_vdl",
        "weights",
    }
    return [
        f"{key}: {old.get(key)} -> {new[key]}" for key in new if key not in free and old.get(key) != new[key]
    ]


class Run:
    """The parts of a run on one rank.

    Args:
        settings: of the run.
        rank, world: of this process.
    """

    def __init__(self, settings: Settings, rank: int, world: int) -> None:
        self.settings, self.rank, self.world, self.run = settings, rank, world, settings.run
        if self.run["precision"] != "fp32" and not paddle.get_device().startswith("gpu"):
            raise UserError(f"precision {self.run['precision']} needs a GPU; use -o precision=fp32 here")
        self.dataset = open_dataset(settings, "train_dataset")
        evaluated = self.run["do_eval"] and settings.tree.get("val_dataset")
        self.val_dataset = open_dataset(settings, "val_dataset") if evaluated else None
        paddle.seed(seed_of(self.run["seed"]))  # the same fresh weights on all ranks
        self.model = synchronise(settings.model(), world)
        if hasattr(self.model, "loss_computation"):
            raise UserError(
                f"{type(self.model).__name__} makes its loss of more than labels: use PaddleSeg's own program"
            )
        self.optimizer = settings.optimizer(self.model)
        self.losses = settings.losses()
        self.amp: dict[str, Any] = {"enable": False}
        self.scaler = None
        if self.run["precision"] != "fp32":
            dtype = {"fp16": "float16", "bf16": "bfloat16"}[self.run["precision"]]
            self.amp = {"level": "O1", "dtype": dtype}
            self.scaler = paddle.amp.GradScaler(init_loss_scaling=2.0**15) if dtype == "float16" else None
        self.state = TrainingState(
            model=name_of(self.model),
            overrides={},
            progress=Progress(),
            images=len(self.dataset),
            world=world,
            config={**settings.tree, **self.run},
            paddle=paddle.__version__,
        )
        self.net = distributed.parallel(self.model, world)
        self.notes: list[str] = []

    def resume(self, folder: Path, wanted: str) -> int:
        """Load a checkpoint, if one is wanted, and return the step at which training begins."""
        if wanted == "auto":
            wanted = str(folder) if any((folder / "checkpoints").glob("step_*")) else ""
        if not wanted:
            if any((folder / "checkpoints").glob("step_*")):
                raise UserError(
                    f"{folder} holds a run already: continue it with --resume auto, or give -o save_dir=FOLDER"
                )
            return 0
        path = find_checkpoint(wanted)
        loaded = load_checkpoint(path, model=self.model, optimizer=self.optimizer)
        if loaded.images != len(self.dataset):
            raise UserError(
                f"{path} was trained on {counted(loaded.images, 'picture')} and train_dataset has {len(self.dataset)}: "
                "their order follows from their number"
            )
        was, of = loaded.config or {}, "batch_size x devices and seed"
        order = [was.get("batch_size", 0) * (loaded.world or 1), was.get("seed")]
        own = [self.run["batch_size"] * self.world, self.run["seed"]]
        if order != own:
            raise UserError(
                f"{path} was trained with {of} {order}, and is to go on with {own}: the order of pictures would change"
            )
        if loaded.progress.step > self.run["iters"]:
            raise UserError(
                f"{path} is of step {loaded.progress.step}, behind the last one: iters {self.run['iters']}"
            )
        self.notes += changed(was, self.state.config or {})
        self.state.progress = loaded.progress
        load_scaler_state(self.scaler, loaded.scaler)
        return loaded.progress.step

    def fit(self, folder: Path, start: int, stop_after: int | None) -> None:
        """Take the steps from `start` on, with checkpoints and evaluations at every `save_interval` and the last."""
        run, stop = self.run, self.run["iters"]
        last = stop if stop_after is None else min(stop, start + stop_after)
        log = RunLog(folder, rank=self.rank, visualdl=run["use_vdl"])
        if self.rank == 0:
            with atomic_write(folder / "config.yml") as partial:
                text = yaml.safe_dump(
                    {**self.settings.tree, "test_config": self.settings.test, **run}, sort_keys=False
                )
                partial.write_text(text, encoding="utf-8")
            log.rewind(start, epoch=1 << 62)
        for note in self.notes:
            log.info(f"changed since the checkpoint: {note}")
        log.info(
            f"{self.state.model}: {counted(len(self.dataset), 'picture')}, steps {start + 1} to {last} of {stop}"
        )
        rates, begun, losses = self.settings.rates(start), time.perf_counter(), []
        self.model.train()
        for step, batch in enumerate(self.batches(start, last), start + 1):
            rate = float(rates())
            losses.append(self.step(step, batch, rate))
            rates.step()
            self.state.progress.step = step
            if step % run["log_iters"] == 0 or step == last:
                seconds = (time.perf_counter() - begun) / len(losses)
                # (the mean over all ranks since the last line)
                loss = distributed.all_reduce_real(sum(losses) / len(losses), self.world) / self.world
                log.info(
                    f"[TRAIN] iter: {step}/{stop}, loss: {loss:.4f}, lr: {rate:.3e}, batch_cost: {seconds:.4f}, ips: "
                    f"{run['batch_size'] * self.world / seconds:.2f} images/s | ETA {duration(seconds * (stop - step))}"
                )
                log.scalars(step, loss=loss, lr=rate, batch_cost=seconds)
                begun, losses = time.perf_counter(), []
            if step % run["save_interval"] == 0 or step == last:
                paused = time.perf_counter()
                self.keep(folder, log)
                begun += time.perf_counter() - paused
        log.close()

    def batches(self, start: int, stop: int) -> Iterator[tuple[paddle.Tensor, paddle.Tensor]]:
        """Yield this rank's (images [B, 3, H, W], labels [B, H, W]) of the steps from `start` on."""
        run, interval = self.run, self.run["save_interval"]
        samples = TrainingSamples(self.dataset, run["seed"])
        place: dict[str, int] = {"seed": run["seed"], "rank": self.rank, "world": self.world}
        while start < stop:
            end = min(stop, (start // interval + 1) * interval)
            order = Batches(len(samples), run["batch_size"], start=start, stop=end, **place)
            yield from Loader(samples, list(order), num_workers=run["num_workers"])
            start = end

    def step(self, step: int, batch: tuple[paddle.Tensor, paddle.Tensor], rate: float) -> float:
        """Take one step and return this rank's loss.

        Raises:
            UserError: the losses are not as many as the model's outputs.
            NotFinite: the loss is no number; the weights are as before.
        """
        compute = toolkit("core.train").loss_computation
        paddle.seed(seed_of(self.run["seed"], self.rank, step))
        images, labels = batch
        with paddle.amp.auto_cast(**self.amp):
            logits = self.net(images)
        logits = [each.astype("float32") for each in logits]
        if len(logits) != len(self.losses["types"]):
            raise UserError(
                f"loss.coef has {counted(len(self.losses['types']), 'number')} and {self.state.model} gives "
                f"{counted(len(logits), 'output')} in training; one coefficient for each"
            )
        parts = compute(logits, labels, None, self.losses)
        loss = sum(parts[1:], parts[0])
        value = loss.item()
        if not math.isfinite(value):
            raise NotFinite(
                f"the loss is {value} at step {step}, rank {self.rank}; the last checkpoint is kept. Try a lower "
                "lr_scheduler.learning_rate, a longer warmup_iters, or precision fp32"
            )
        self.optimizer.set_lr(rate)
        if self.scaler is not None:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            loss.backward()
            self.optimizer.step()
        self.optimizer.clear_grad()
        return value

    def keep(self, folder: Path, log: RunLog) -> None:
        """Evaluate, keep the best weights, and write a checkpoint."""
        distributed.share_statistics(self.model, self.world)
        progress = self.state.progress
        if self.val_dataset is not None:
            place = {"rank": self.rank, "world": self.world}
            scores = evaluate(self.model, self.val_dataset, self.settings.test, **place)
            best = scores.miou > progress.best_top1
            log.info(f"[EVAL] iter: {progress.step}, {scores}{', the best so far' if best else ''}")
            log.scalars(progress.step, miou=scores.miou, macc=scores.macc, aacc=scores.aacc)
            if best:
                progress.best_top1, progress.best_epoch = scores.miou, progress.step
                if self.rank == 0:
                    save_weights(folder / BEST / "model.pdparams", self.model.state_dict(), {})
                    with atomic_write(folder / BEST / "scores.json") as partial:
                        facts = {"step": progress.step, **scores.to_json()}
                        partial.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        self.state.scaler = scaler_state(self.scaler)
        if self.rank == 0:
            save_checkpoint(
                folder / "checkpoints",
                model=self.model,
                optimizer=self.optimizer,
                state=self.state,
                keep_last=self.run["keep_checkpoint_max"],
            )
        distributed.barrier(self.world)
