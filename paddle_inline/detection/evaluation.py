"""Evaluation over all ranks: each answers for its share of the images, the first measures all by COCO's rules."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import paddle
import paddle.distributed as dist

from ..weights.atomic import atomic_write
from .imports import ppdet
from .training import results


class Share(paddle.io.BatchSampler):
    """Every `world`-th image from `rank` on, in batches: no image twice, none left out."""

    def __init__(self, number: int, batch_size: int, rank: int, world: int) -> None:
        mine = list(range(rank, number, world))
        self.batches = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def evaluate(trainer: Any, folder: str, rank: int, world: int) -> dict[str, dict[str, float | None]]:
    """Evaluate a detector and write bbox.json, mask.json and metrics.json.

    Args:
        trainer: the toolkit's, in eval mode, its weights loaded.
        folder: for the files.
        rank, world: this process and how many there are.

    Returns:
        {"bbox": {"AP": ..., ...}, "mask": ...}; of rank 0 alone, {} elsewhere. An AP of 0 where nothing was found.
    """
    sampler = Share(len(trainer.dataset), trainer.cfg.EvalReader["batch_size"], rank, world)
    loader = ppdet("core.workspace").create("EvalReader")(trainer.dataset, trainer.cfg.worker_num, sampler)
    (metric,) = trainer._metrics
    trainer.model.eval()
    with paddle.no_grad():
        for batch in loader:
            metric.update(batch, trainer.model(batch))
    metric.results = gathered(metric.results, world)
    if rank:
        return {}
    order = {record["im_id"].item(): position for position, record in enumerate(trainer.dataset.roidbs)}
    for answers in metric.results.values():
        answers.sort(key=lambda answer: order[answer["image_id"]])
    os.makedirs(folder, exist_ok=True)
    metric.output_eval, metric.anno_file = os.path.abspath(folder), os.path.abspath(metric.anno_file)
    with working_in(folder):  # the toolkit draws curves of classes into the working folder
        metric.accumulate()
    found = results([metric])
    for kind in ["bbox", *(["mask"] if hasattr(trainer.model, "mask_head") else [])]:
        found.setdefault(kind, {"AP": 0.0})
    with atomic_write(os.path.join(folder, "metrics.json")) as partial:
        partial.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def gathered(answers: dict[str, list[Any]], world: int) -> dict[str, list[Any]]:
    """Return all ranks' answers, by kind."""
    if world == 1:
        return answers
    everyone: list[dict[str, list[Any]]] = []
    dist.all_gather_object(everyone, answers)
    return {kind: [answer for each in everyone for answer in each[kind]] for kind in answers}


@contextlib.contextmanager
def working_in(folder: str) -> Iterator[None]:
    """Make a folder the working folder while this lasts."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
