"""The training loop on a small problem: accumulation, mixed precision, averages, stops, bad losses."""

import dataclasses
import io
import json
import math
import re

import numpy as np
import paddle
import pytest
from rich.console import Console

from paddle_inline.training import callbacks, diagnose
from paddle_inline.training.callbacks import Callback, LogProgress
from paddle_inline.training.diagnose import NotFinite
from paddle_inline.training.ema import Ema
from paddle_inline.training.evaluate import Accuracy, correct, evaluate
from paddle_inline.training.log import RunLog, read_metrics
from paddle_inline.training.loop import Components, FitOptions, fit, train_step
from paddle_inline.training.losses import make_loss
from paddle_inline.training.optim import decay_groups, make_optimizer
from paddle_inline.training.state import Progress

RNG = np.random.RandomState(0)
IMAGES = RNG.standard_normal((24, 2, 3, 3)).astype("float32")
LABELS = (IMAGES.mean((1, 2, 3)) > 0).astype("int64") + 2 * (IMAGES[:, 0, 0, 0] > 0)


def net(dropout=0.3):
    paddle.seed(7)
    return paddle.nn.Sequential(
        paddle.nn.Flatten(),
        paddle.nn.Linear(18, 16),
        paddle.nn.GELU(),
        paddle.nn.Dropout(dropout),
        paddle.nn.Linear(16, 4),
    )


def batches(size=4, shift=0):
    for k in range(0, 24, size):
        index = (np.arange(k, k + size) + shift) % 24
        yield paddle.to_tensor(IMAGES[index]), paddle.to_tensor(LABELS[index])


def plain_console():
    return Console(file=io.StringIO())


def run(tmp_path, model=None, *, progress=None, optimizer=None, epochs=3, size=4, **arguments):
    model = model or net()
    optimizer = optimizer or make_optimizer("adamw", model, decay_groups(model, 0.05))
    progress = progress or Progress()
    log = RunLog(tmp_path, visualdl=False, console=plain_console())
    per_epoch = 24 // size // arguments.get("accumulation", 1)
    parts = dict(
        load=lambda epoch, skip: list(batches(size, epoch))[skip:],
        loss_fn=make_loss(False, 0.1),
        schedule=lambda step: 1e-2 / (1 + step),
        validate=lambda: evaluate(model, batches(5)),
    )
    stop = arguments.pop("should_stop", lambda: False)
    given = {f.name for f in dataclasses.fields(Components)} & set(arguments)
    parts.update({name: arguments.pop(name) for name in given})
    recorder = Recorder(stop)
    options = FitOptions(epochs, per_epoch, run_folder=tmp_path, **arguments)
    lines = LogProgress(log, options, model, print_freq=2)
    done = fit(Components(model, model, optimizer, **parts), progress, options, [lines, recorder])
    return model, optimizer, progress, done, recorder.calls


class Recorder(Callback):
    """Keeps what `fit` says."""

    def __init__(self, should_stop):
        self.should_stop, self.calls = should_stop, dict(save=[], best=[], order=[])

    def on_checkpoint(self, progress):
        self.calls["save"].append(dataclasses.asdict(progress))
        self.calls["order"].append("checkpoint")

    def on_evaluation(self, progress, accuracy, averaged, improved):
        self.calls["best"] += improved
        self.calls["order"].append("evaluation")

    def on_epoch_start(self, progress):
        self.calls["order"].append("epoch")

    def on_step_end(self, progress, step):
        self.calls["order"].append(progress.step)

    def on_bad_step(self, progress, step):
        self.calls["order"].append(f"bad {progress.step}")

    def on_stop(self, progress):
        self.calls["order"].append("stop")

    def on_end(self):
        self.calls["order"].append("end")


def weights(model):
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def largest_difference(a, b):
    return max(np.abs(a[name] - b[name]).max() for name in a)


def test_a_run_is_logged_saved_and_gets_better(tmp_path):
    model, _, progress, done, calls = run(tmp_path, net(0), epochs=8, schedule=lambda step: 1e-2)
    assert done and progress.epoch == 8 and progress.step == 48
    assert len(calls["save"]) == 8 and calls["save"][-1] == dataclasses.asdict(progress)
    rows = read_metrics(tmp_path)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 24 and losses[-1] < losses[0]
    accuracies = [row["top1"] for row in rows if "top1" in row]
    assert len(accuracies) == 8
    assert progress.best_top1 == max(accuracies) > 25
    assert progress.best_epoch == 1 + accuracies.index(max(accuracies))
    assert calls["best"] and set(calls["best"]) == {"model"}
    assert rows[0]["lr"] == 1e-2 and rows[0]["grad_norm"] > 0 and rows[0]["images_per_s"] > 0
    assert model.training


def test_a_run_repeats_bit_for_bit(tmp_path):
    first, second = run(tmp_path)[0], run(tmp_path)[0]
    assert largest_difference(weights(first), weights(second)) == 0
    other = run(tmp_path, seed=1)[0]  # other dropout
    assert largest_difference(weights(first), weights(other)) > 1e-4


def test_an_epoch_goes_on_in_its_middle_bit_for_bit(tmp_path):
    straight = run(tmp_path)[0]
    progress = Progress()
    model, optimizer, progress, done, calls = run(
        tmp_path, progress=progress, should_stop=lambda: progress.step == 8
    )
    assert not done and progress.step == 8 and progress.epoch == 1
    assert calls["save"][-1]["step"] == 8
    run(tmp_path, model, optimizer=optimizer, progress=progress)
    assert largest_difference(weights(straight), weights(model)) == 0


def test_callbacks_are_told_in_order(tmp_path):
    progress = Progress()
    calls = run(tmp_path, progress=progress, size=8, epochs=2, should_stop=lambda: progress.step == 4)[-1]
    first = ["epoch", 1, 2, 3, "evaluation", "checkpoint"]
    assert calls["order"] == [*first, "epoch", 4, "checkpoint", "stop", "end"]


def test_callbacks_are_told_of_a_failure(tmp_path):
    model, order = net(), []

    class Watch(Callback):
        def on_bad_step(self, progress, step):
            order.append((progress.step, step.loss))

        def on_end(self):
            order.append("end")

    poison(model)
    parts = dict(loss_fn=make_loss(False, 0.1), schedule=lambda step: 1e-2, validate=None)
    optimizer = make_optimizer("adamw", model, decay_groups(model, 0.05))
    whole = Components(model, model, optimizer, load=lambda epoch, skip: list(batches()), **parts)
    with pytest.raises(NotFinite):
        fit(whole, Progress(), FitOptions(1, 6, max_bad_losses=2), [Watch()])
    assert [where for where, _ in order[:2]] == [1, 2] and order[2:] == ["end"]
    assert all(math.isnan(loss) for _, loss in order[:2])


def test_bad_steps_are_counted_across_epochs(tmp_path):
    model = net()
    poison(model)
    with pytest.raises(NotFinite, match="at step 3, rank 0"):  # the third in a row, in the second epoch
        run(tmp_path, model, size=12, validate=lambda: Accuracy(0.0, 0.0, 1))


def test_checkpoints_within_an_epoch(tmp_path):
    calls = run(tmp_path, epochs=2, save_steps=4, save_freq=2)[-1]
    # (step 12 is the end of the second epoch, saved once, with its accuracy)
    assert [(p["step"], p["epoch"]) for p in calls["save"]] == [(4, 0), (8, 1), (12, 2)]


def test_accumulated_batches_equal_a_big_batch(tmp_path):
    paddle.set_default_dtype("float64")
    big = run(tmp_path, net(dropout=0), size=8)[0]
    small = run(tmp_path, net(dropout=0), size=4, accumulation=2)[0]
    assert largest_difference(weights(big), weights(small)) < 1e-12


def test_averaged_weights_are_evaluated_and_have_their_own_best(tmp_path):
    model = net()
    ema = Ema(model, 0.5)
    _, _, progress, _, calls = run(tmp_path, model, ema=ema)
    rows = [row for row in read_metrics(tmp_path) if "top1" in row]
    assert all(0 <= row["ema_top1"] <= 100 for row in rows)
    assert progress.best_ema_top1 == max(row["ema_top1"] for row in rows)
    assert "ema" in calls["best"]
    with ema.applied_to(model):
        averaged = evaluate(model, batches(5))
    assert averaged.top1 == rows[-1]["ema_top1"]


def test_clipping_bounds_the_norm():
    model, batch, loss_fn = net(0), next(batches(8)), make_loss(False, 0.0)
    optimizer = paddle.optimizer.SGD(0.0, parameters=model.parameters())
    _, norm = train_step(model, optimizer, [batch], loss_fn, rate=0.0)
    for clip, expected in ((norm / 2, norm / 2), (norm * 2, norm)):
        before = weights(model)
        _, reported = train_step(model, optimizer, [batch], loss_fn, rate=1e-3, clip=clip)
        moved = math.sqrt(sum(((weights(model)[n] - before[n]) ** 2).sum() for n in before))
        assert reported == pytest.approx(norm, rel=1e-2)  # of all gradients, before clipping
        assert moved == pytest.approx(1e-3 * expected, rel=1e-2)  # one small step moves norm by less


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_trains(tmp_path, dtype):
    amp = {"enable": True, "level": "O1", "dtype": dtype}
    scaler = paddle.amp.GradScaler(init_loss_scaling=2.0**10) if dtype == "float16" else None
    mixed, plain = run(tmp_path, net(0), amp=amp, scaler=scaler)[0], run(tmp_path, net(0))[0]
    assert 1e-6 < largest_difference(weights(mixed), weights(plain)) < 0.05


def poison(model):
    """From its second call on, the first Linear gives NaN."""
    calls = []

    def hook(layer, inputs, output):
        calls.append(1)
        return output * float("nan") if len(calls) > 1 else output

    model[1].register_forward_post_hook(hook)


def test_bad_losses_stop_the_run_and_leave_the_weights(tmp_path):
    model = net()
    poison(model)
    with pytest.raises(NotFinite) as error:
        run(tmp_path, model, max_bad_losses=2, rank=0)
    message = str(error.value)
    assert "loss nan at step 2, rank 0" in message
    assert "first layer whose output is not finite: 1" in message
    assert all(np.isfinite(value).all() for value in weights(model).values())
    batch = np.load(tmp_path / "bad_batch_rank0.npz")
    np.testing.assert_array_equal(batch["images"], IMAGES[8:12])
    assert read_metrics(tmp_path)[0]["loss"] == "nan"


def test_gradients_that_stay_not_finite_stop_the_run_too(tmp_path):
    model = net()
    model[4].weight.register_hook(lambda gradient: gradient * float("inf"))
    before = weights(model)
    with pytest.raises(NotFinite, match="this rank's loss is finite: its gradients are not") as error:
        run(tmp_path, model)
    assert "at step 2, rank 0" in str(error.value)  # the third in a row
    assert largest_difference(before, weights(model)) == 0


def test_a_stop_that_comes_during_evaluation_is_saved(tmp_path):
    asked, model = [], net()

    def validate():
        asked.append(1)
        return evaluate(model, batches(5))

    stop = dict(validate=validate, should_stop=lambda: bool(asked), save_freq=5)
    _, _, progress, done, calls = run(tmp_path, model, **stop)
    assert not done and calls["save"] == [dataclasses.asdict(progress)]
    assert (progress.epoch, progress.step) == (1, 6)


def test_the_first_bad_layer_is_named():
    model = net(0)
    images = paddle.to_tensor(IMAGES)
    assert diagnose.first_bad_layer(model, images) is None
    model[4].weight.set_value(model[4].weight * float("inf"))
    assert diagnose.first_bad_layer(model, images) == "4"
    assert "weights that are not finite: 4.weight" in diagnose.explain(
        model, (images, paddle.to_tensor(LABELS)), float("inf"), 3, 1
    )


def test_accuracy_by_hand():
    logits = paddle.to_tensor(
        [[9.0, 1, 2, 3, 4, 5, 6], [9, 1, 2, 3, 4, 5, 6], [9, 1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0, 1]]
    )
    assert correct(logits, paddle.to_tensor([0, 6, 1, 6])) == (2, 3)
    assert correct(logits[:, :3], paddle.to_tensor([0, 2, 1, -1])) == (1, 3)


@pytest.mark.parametrize("size", [1, 5, 24])
def test_accuracy_counts_every_image_once_and_masks_the_rest(size):
    model = net()
    loaded = [(x, y.clone()) for x, y in batches(size)] if 24 % size == 0 else list(batches(4))
    whole = evaluate(model, loaded)
    assert whole.images == 24 and model.training
    loaded[0][1][0] = -1
    assert evaluate(model, loaded).images == 23
    with pytest.raises(ValueError, match="no image"):
        evaluate(model, [])


def test_loss_and_the_accuracy_of_classes_by_hand():
    """Three classes of which one has no image; the last image could not be read."""
    logits = np.log(
        np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], "float32")
    )
    model = paddle.nn.Linear(3, 3, bias_attr=False)
    model.weight.set_value(np.eye(3, dtype="float32"))
    rows, labels = paddle.to_tensor(logits), paddle.to_tensor([0, 0, 2, -1])
    found = evaluate(model, [(rows[:2], labels[:2]), (rows[2:], labels[2:])])
    assert found.loss == pytest.approx(-(np.log(0.5) + np.log(0.2) + np.log(0.1)) / 3, rel=1e-6)
    assert found.per_class == ((2, 1), (0, 0), (1, 0))
    assert found.class_top1 == [50.0, None, 0.0]
    assert (found.images, found.bad, found.classes) == (3, 1, 3)


def test_the_log_survives_a_kill_and_a_resume(tmp_path):
    log = RunLog(tmp_path, visualdl=False, console=plain_console())
    for step in (2, 4, 6):
        log.scalars(step, epoch=1, loss=1.0 / step, lr=0.1)
    log.scalars(6, epoch=1, top1=50.0)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"update": 8, "lo')
    assert [row["step"] for row in read_metrics(tmp_path)] == [2, 4, 6, 6]
    log.rewind(step=6, epoch=0)
    assert [("top1" in row) for row in read_metrics(tmp_path)] == [False] * 3
    log.rewind(step=4, epoch=0)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()] == [2, 4]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk", "utf-8"])
def test_a_line_of_the_log_may_hold_any_name(tmp_path, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding, "strict", write_through=True)
    log = RunLog(tmp_path, visualdl=False, console=Console(file=stream, width=80))
    log.info("class [red]\udcb5 \u7535\u00e9\U0001f600")
    log.scalars(1, note="\udcb5")
    assert r"class [red]\udcb5 " in stream.buffer.getvalue().decode(encoding)
    assert "class [red]\\udcb5 \u7535\u00e9\U0001f600" in (tmp_path / "train.log").read_text("utf-8")
    assert json.loads((tmp_path / "metrics.jsonl").read_text("utf-8"))["note"] == "\udcb5"


def test_other_ranks_write_nothing(tmp_path):
    log = RunLog(tmp_path / "run", rank=1)
    log.info("hello")
    log.scalars(1, loss=1.0)
    log.rewind(0, 0)
    with log.bar("epoch", 3) as advance:
        advance(1)
    log.close()
    assert not (tmp_path / "run").exists()


def test_a_terminal_gets_a_bar(tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    log = RunLog(tmp_path, visualdl=False, console=console)
    with log.bar("epoch 1/2", 4) as advance:
        for _ in range(4):
            advance(1, loss="0.1234", lr="1e-3")
    text = console.file.getvalue()
    assert "epoch 1/2" in text and "4/4" in text and "loss 0.1234" in text


def test_no_bar_in_a_notebook_s_cell_nor_in_a_pipe_that_is_said_to_be_coloured(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as kernels and CI services do
    assert not RunLog(tmp_path, visualdl=False).live
    console = Console(file=io.StringIO(), force_terminal=True)
    log = RunLog(tmp_path, visualdl=False, console=console)
    assert log.live
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert not log.live
    with log.bar("epoch 1/2", 4) as advance:
        advance(4)
    assert console.file.getvalue() == "" and capsys.readouterr().out == ""


@pytest.mark.parametrize(("every", "more"), [(60.0, 0), (0.0, 5)])
def test_an_epoch_is_one_line_and_a_long_one_more(tmp_path, monkeypatch, every, more):
    monkeypatch.setattr(callbacks, "EVERY", every)
    run(tmp_path, epochs=2, size=2)  # 12 steps an epoch, of which every second is written down
    lines = [line for line in (tmp_path / "train.log").read_text().splitlines() if "epoch" in line]
    assert len(lines) == 2 * (1 + more)
    on_the_way, last = [r"epoch 2/2  \d+/12  loss .*, left 0:00:0\d, lr \d.*e-0\d"] * more, lines[-1]
    for pattern, line in zip(on_the_way, lines[1 + more : -1]):
        assert re.search(pattern, line)
    assert re.search(
        r" epoch 2: top-1 .* of 25 images; best .*; loss \d\.\d{4}, \d+ images/s, data \d+%, left 0:00:00$",
        last,
    )


def test_visualdl_gets_the_scalars(tmp_path, monkeypatch, capsys):
    pytest.importorskip("visualdl")
    log = RunLog(tmp_path)
    assert "visualdl --language en --logdir" in capsys.readouterr().out
    log.scalars(1, loss=0.5, lr=0.0, epoch=1, images_per_s=8.0, reader_s=0.0, memory_mb=0.0)
    log.scalars(
        2, top1=0.0, ema_top1=1.0, held_out_loss=2.0, class_top1=[0.0], bad_images=0, bad_held_out_images=2
    )
    log.scalars(3, bad_held_out_images=0)
    log.close()
    from visualdl import LogReader

    (file,) = (tmp_path / "visualdl").iterdir()
    reader = LogReader(file_path=str(file))
    (record,) = reader.get_data("scalar", "train/loss")
    assert (record.id, record.value) == (1, 0.5)
    assert sorted(reader.get_tags()["scalar"]) == [
        *("eval/ema_top1", "eval/held_out_loss", "eval/top1"),
        *("system/bad_held_out_images", "system/images_per_s", "train/loss", "train/lr"),
    ]  # no curve of zeros alone
    assert [each.value for each in reader.get_data("scalar", "system/bad_held_out_images")] == [2, 0]
    assert read_metrics(tmp_path)[0] == dict(
        step=1, loss=0.5, lr=0.0, epoch=1, images_per_s=8.0, reader_s=0.0, memory_mb=0.0
    )


def test_a_broken_visualdl_does_not_end_a_run(tmp_path, capsys):
    class Broken:
        def add_scalar(self, **kwargs):
            raise OSError("disk")

    log = RunLog(tmp_path, visualdl=False)
    log.board = Broken()
    log.scalars(1, loss=0.5)
    log.scalars(2, loss=0.4)
    assert log.board is None and len(read_metrics(tmp_path)) == 2
    assert "not used from here on" in capsys.readouterr().out
