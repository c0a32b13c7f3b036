"""The share of the time that training waits for its data: in the lines, in metrics.jsonl and in VisualDL."""

import io
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from rich.console import Console

from paddle_inline.training import callbacks, loop
from paddle_inline.training.callbacks import LogProgress
from paddle_inline.training.evaluate import Accuracy
from paddle_inline.training.log import RunLog, read_metrics, tag_of
from paddle_inline.training.loop import Components, FitOptions, fit
from paddle_inline.training.losses import make_loss
from paddle_inline.training.optim import decay_groups, make_optimizer
from paddle_inline.training.state import Progress


@pytest.mark.parametrize(("loading", "share"), [(0.0, 0.0), (1.0, 0.25), (27.0, 0.9)])
def test_seconds_waited_over_seconds_passed(tmp_path, monkeypatch, loading, share):
    """By a clock that loading a batch moves on, and a step by 3 seconds."""
    now = [100.0]
    for module in (loop, callbacks):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(callbacks, "EVERY", 0.0)

    def load(epoch, skip):
        for _ in range(4):
            now[0] += loading
            yield paddle.ones([2, 3]), paddle.to_tensor(np.array([0, 1]))

    def loss_fn(logits, labels):
        now[0] += 3.0
        return make_loss(False, 0.0)(logits, labels)

    model, console = paddle.nn.Linear(3, 2), Console(file=io.StringIO(), width=200)
    parts = Components(
        model,
        model,
        make_optimizer("sgd", model, decay_groups(model, 0.0)),
        load=load,
        loss_fn=loss_fn,
        schedule=lambda step: 0.1,
        validate=lambda: Accuracy(50.0, 100.0, 4),
    )
    options = FitOptions(epochs=2, steps_per_epoch=4, print_freq=2)
    log = RunLog(tmp_path, visualdl=False, console=console)
    fit(parts, Progress(), options, [LogProgress(log, options, model, print_freq=2)])
    rows = [row for row in read_metrics(tmp_path) if "loss" in row]
    assert [(row["step"], row["reader_share"], row["reader_s"]) for row in rows] == [
        (step, share, loading) for step in (2, 4, 6, 8)
    ]
    lines = [line for line in console.file.getvalue().splitlines() if "images/s" in line]
    assert len(lines) == 4 and all(f"images/s, data {share:.0%}, left" in line for line in lines)


def test_it_is_a_curve_of_the_system():
    assert tag_of("reader_share") == "system/reader_share"
