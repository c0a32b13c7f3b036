"""What the training loop does in which order, and at which border: recorded, and measured where it shows."""

import contextlib
import math
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddle_inline.data.draws import seed_of
from paddle_inline.training import checkpoint, loop
from paddle_inline.training.callbacks import Callback, StopOnRequest
from paddle_inline.training.ema import Ema
from paddle_inline.training.evaluate import Accuracy, evaluate
from paddle_inline.training.loop import MIXING, Components, FitOptions, fit, train_step
from paddle_inline.training.losses import make_loss
from paddle_inline.training.optim import decay_groups, make_optimizer
from paddle_inline.training.state import Progress, TrainingState

IMAGES = np.random.RandomState(0).standard_normal((4, 6)).astype("float32")
LABELS = np.array([0, 1, 2, 0])


def batch():
    return paddle.to_tensor(IMAGES), paddle.to_tensor(LABELS)


def net():
    paddle.seed(3)
    return paddle.nn.Linear(6, 3)


def sgd(model):
    return paddle.optimizer.SGD(0.0, parameters=model.parameters())


class Told(Callback):
    """Keeps what `fit` says."""

    def __init__(self):
        self.bad, self.improved, self.bad_images, self.saved, self.steps = [], [], [], [], []

    def on_bad_step(self, progress, step):
        self.bad.append(progress.step)

    def on_step_end(self, progress, step):
        self.steps.append((progress.step, step.rate, step.images))

    def on_evaluation(self, progress, accuracy, averaged, improved):
        self.improved.append(improved)
        self.bad_images.append(progress.bad_images)

    def on_checkpoint(self, progress):
        self.saved.append((progress.epoch, progress.step))


def run(model=None, *, progress=None, epochs=2, steps=3, accuracies=(), load=None, loss_fn=None, **more):
    """Train for some steps an epoch; return (whether it ended, progress, what callbacks were told)."""
    model, told, progress = model or net(), Told(), progress or Progress()
    found = iter(accuracies)
    parts = {key: more.pop(key) for key in ("ema", "mixup", "scaler") if key in more}
    whole = Components(
        model,
        model,
        sgd(model),
        load=load or (lambda epoch, skip: [batch()] * 100),
        loss_fn=loss_fn or make_loss(False, 0.0),
        schedule=more.pop("schedule", lambda step: 0.1),
        validate=lambda: Accuracy(next(found, 50.0), 100.0, 4),
        **parts,
    )
    done = fit(whole, progress, FitOptions(epochs, steps, **more), [told])
    return done, progress, told


class Scaler:
    """A loss scaler that really scales, and keeps in which order it is called."""

    def __init__(self, scale=1024.0):
        self.size, self.calls = scale, []

    def scale(self, loss):
        self.calls.append("scale")
        return loss * self.size

    @paddle.no_grad()
    def unscale_(self, optimizer):
        self.calls.append("unscale")
        for parameter in optimizer._parameter_list:
            parameter.grad.multiply_(paddle.full([1], 1 / self.size))

    def step(self, optimizer):
        self.calls.append("step")
        optimizer.step()

    def update(self):
        self.calls.append("update")


def test_gradients_are_unscaled_before_they_are_clipped(monkeypatch):
    """Clipped first, they would be 1,024 times too small afterwards."""
    results, norms, scaler, clip = [], [], Scaler(), loop.clip_gradients
    monkeypatch.setattr(loop, "clip_gradients", lambda *given: scaler.calls.append("clip") or clip(*given))
    for which in (None, scaler):
        model, given = net(), dict(clip=0.01, scaler=which)
        del scaler.calls[:]
        norms.append(train_step(model, sgd(model), [batch()] * 2, make_loss(False, 0.0), 0.1, **given)[1])
        results.append(model.weight.numpy())
    assert scaler.calls == ["scale", "scale", "unscale", "clip", "step", "update"]
    np.testing.assert_allclose(*results, rtol=0, atol=1e-7)
    assert norms[0] == pytest.approx(norms[1], rel=1e-5) and norms[0] > 0.1
    assert np.abs(results[0] - net().weight.numpy()).max() > 1e-5


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_step_of_several_batches_is_that_of_their_mean(count):
    model, once = net(), net()
    found = train_step(model, sgd(model), [batch()] * count, make_loss(False, 0.0), 0.1)
    assert found == pytest.approx(
        train_step(once, sgd(once), [batch()], make_loss(False, 0.0), 0.1), rel=1e-5
    )
    np.testing.assert_allclose(model.weight.numpy(), once.weight.numpy(), rtol=0, atol=1e-6)


def test_a_step_begins_without_the_gradients_of_the_one_before():
    model = net()
    optimizer, before = sgd(model), model.weight.numpy()
    for _ in range(2):
        train_step(model, optimizer, [batch()], make_loss(False, 0.0), 0.0)
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    np.testing.assert_array_equal(model.weight.numpy(), before)


@pytest.mark.parametrize("amp", [None, {"enable": True, "level": "O1", "dtype": "bfloat16"}])
def test_the_forward_pass_alone_runs_in_the_precision_that_is_asked_for(monkeypatch, amp):
    given, seen = [], []

    @contextlib.contextmanager
    def auto_cast(**arguments):
        given.append(arguments)
        yield
        given.append("out")

    monkeypatch.setattr(paddle.amp, "auto_cast", auto_cast)

    class Half(paddle.nn.Linear):
        def forward(self, x):
            result = super().forward(x)
            return result if amp is None else result.astype("float16")

    def loss_fn(logits, labels):
        seen.append((logits.dtype, given[-1]))
        return make_loss(False, 0.0)(logits, labels)

    model = Half(6, 3)
    train_step(model, sgd(model), [batch()], loss_fn, 0.1, amp=amp)
    assert given == [amp or {"enable": False}, "out"] and seen == [(paddle.float32, "out")]
    del given[:]
    evaluate(model, [batch()], amp=amp)
    assert given == [amp or {"enable": False}, "out"] and model.training


@pytest.mark.parametrize("averaged", [False, True])
def test_the_first_of_equally_good_epochs_is_the_best(averaged):
    """Of the weights and of their average: a later epoch has to be better, not as good."""
    model = net()
    accuracies = [20.0, 30.0, 30.0, 29.0]
    if averaged:
        accuracies = [value for each in accuracies for value in (each, each + 1)]
    ema = Ema(model, 0.5) if averaged else None
    _, progress, told = run(model, epochs=4, accuracies=accuracies, ema=ema)
    both = ("model", "ema") if averaged else ("model",)
    assert told.improved == [both, both, (), ()]
    assert (progress.best_top1, progress.best_epoch) == (30.0, 2)
    assert (progress.best_ema_top1, progress.best_ema_epoch) == ((31.0, 2) if averaged else (-1.0, 0))


def test_an_accuracy_of_zero_is_better_than_none():
    _, progress, told = run(epochs=1, accuracies=[0.0])
    assert told.improved == [("model",)] and progress.best_epoch == 1


def test_a_run_goes_on_behind_the_batches_that_its_steps_have_used():
    """The loader leaves out batches, of which a step takes several."""
    asked = []

    def load(epoch, skip):
        asked.append((epoch, skip))
        return [batch()] * 100

    run(progress=Progress(epoch=1, step=5), epochs=3, steps=3, accumulation=4, load=load)
    assert asked == [(1, 8), (2, 0)]


def test_the_average_counts_the_steps_from_one():
    class Counted(Ema):
        def update(self, model, step=1):
            steps.append(step)

    steps, model = [], net()
    run(model, ema=Counted(model, 0.5), progress=Progress(epoch=1, step=3))
    assert steps == [4, 5, 6]


def test_the_average_is_evaluated_and_the_model_has_its_own_weights_again():
    model = net()
    before = model.weight.numpy()
    ema = Ema(model, 0.0)
    ema.average["weight"].set_value(paddle.zeros([6, 3]))
    with ema.applied_to(model):
        assert not model.weight.numpy().any()
    np.testing.assert_array_equal(model.weight.numpy(), before)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_so_many_bad_losses_in_a_row_end_a_run_and_not_one_fewer(most):
    """Bad steps 1 to `most` - 1 pass, a good one begins the count anew."""

    def losses(pattern):
        left = iter(pattern)

        def loss_fn(logits, labels):
            loss = make_loss(False, 0.0)(logits, labels)
            return loss * float("nan") if next(left) == "x" else loss

        return loss_fn

    passes = ("x" * (most - 1) + ".") * 3 + "." * 9
    assert run(epochs=1, steps=len(passes), max_bad_losses=most, loss_fn=losses(passes))[0]
    model = net()
    with pytest.raises(loop.NotFinite, match=f"at step {most + 1}, rank 0"):
        run(model, epochs=1, steps=9, max_bad_losses=most, loss_fn=losses(".." + "x" * most + "." * 9))
    assert np.isfinite(model.weight.numpy()).all()


def test_gradients_that_are_not_finite_are_left_to_a_loss_scaler(monkeypatch):
    """It lowers its scale; without one such a step counts as bad."""
    monkeypatch.setattr(loop, "clip_gradients", lambda *a: math.inf)
    assert run(epochs=1, steps=5, max_bad_losses=2, scaler=Scaler())[0]
    with pytest.raises(loop.NotFinite):
        run(epochs=1, steps=5, max_bad_losses=2)


def test_images_that_could_not_be_read_are_counted_for_each_epoch():
    class Batches:
        bad = 0

        def __init__(self, bad):
            self.bad = bad

        def __iter__(self):
            return iter([batch()] * 100)

    _, progress, told = run(epochs=3, load=lambda epoch, skip: Batches(epoch + 1))
    assert told.bad_images == [1, 2, 3] and progress.bad_images == 0


def test_what_is_random_in_a_step_follows_from_seed_rank_and_step(monkeypatch):
    seeds, draws, real = [], [], paddle.seed
    monkeypatch.setattr(loop.paddle, "seed", lambda value: seeds.append(value) or real(value))

    def mixup(images, labels, rng):
        draws.append(rng.randint(1 << 30))
        return images, paddle.nn.functional.one_hot(labels, 3)

    for seed, rank in ((0, 0), (0, 1), (7, 0)):
        model = net()
        run(model, epochs=1, seed=seed, rank=rank, mixup=mixup, loss_fn=make_loss(True, 0.0))
    keys = [(seed, rank, step) for seed, rank in ((0, 0), (0, 1), (7, 0)) for step in range(3)]
    assert [seed for seed in seeds if seed != 3] == [seed_of(*key) for key in keys]
    expected = [np.random.RandomState(seed_of(*key, MIXING)).randint(1 << 30) for key in keys]
    assert draws == expected and len(set(draws)) == 9


def test_a_step_has_its_own_rate_which_the_optimizer_is_given():
    given = dict(schedule=lambda step: 0.25 * 2.0**-step, epochs=2, steps=2, accumulation=3)
    told = run(**given, progress=Progress(step=1))[2]
    assert told.steps == [(2, 0.125, 12), (3, 0.0625, 12), (4, 0.03125, 12)]
    moved = []
    for first, last in ((0, 0.5), (1, 0.25)):
        model = net()
        before = model.weight.numpy()
        one = dict(
            schedule=lambda step, last=last, first=first: last if step == first else 9.0,
            epochs=1,
            steps=1 + first,
        )
        run(model, **one, progress=Progress(step=first))
        moved.append(np.abs(model.weight.numpy() - before).max())
    assert moved[0] == pytest.approx(2 * moved[1], rel=1e-4) and moved[1] > 0


@pytest.mark.parametrize(("begun", "after", "stops"), [(0, 1, [1]), (0, 3, [3]), (2, 2, [4]), (0, None, [])])
def test_a_run_stops_after_so_many_epochs_from_where_it_began(begun, after, stops):
    progress = Progress(epoch=begun)
    stop = StopOnRequest(progress, after)
    for epoch in range(begun, begun + 5):
        progress.epoch = epoch
        assert stop.should_stop() == bool(stops and epoch >= stops[0]), epoch


def test_checkpoints_are_due_by_steps_and_by_epochs():
    assert run(epochs=4, steps=3, save_steps=2, save_freq=3)[2].saved == [
        *((0, 2), (1, 4), (2, 8), (3, 9)),  # (step 6 is the end of an epoch, which is not to be saved)
        *((3, 10), (4, 12)),
    ]
    assert run(epochs=3, steps=2, save_freq=2)[2].saved == [(2, 4), (3, 6)]


@pytest.fixture
def parts():
    model = net()
    return model, make_optimizer("adamw", model, decay_groups(model, 0.05))


def test_a_checkpoint_is_on_disk_before_it_has_its_name(parts, tmp_path, monkeypatch):
    """Every file is flushed, then the folder renamed, then the folder above it flushed."""
    done, rename = [], Path.rename
    monkeypatch.setattr(checkpoint, "flush_to_disk", lambda path: done.append(Path(path).name))
    monkeypatch.setattr(checkpoint, "sync_folder", lambda path: done.append("folder"))
    monkeypatch.setattr(Path, "rename", lambda self, to: done.append("rename") or rename(self, to))
    model, optimizer = parts
    state = TrainingState("m", {}, Progress(step=1))
    made = checkpoint.save_checkpoint(
        tmp_path, model=model, optimizer=optimizer, state=state, ema=Ema(model, 0.5)
    )
    assert done[-2:] == ["rename", "folder"]
    assert sorted(done[:-2]) == sorted(path.name for path in made.iterdir())
    assert len(done) == 7


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_so_many_checkpoints_are_kept(parts, tmp_path, keep):
    model, optimizer = parts
    for step in range(1, 6):
        state = TrainingState("m", {}, Progress(step=step))
        checkpoint.save_checkpoint(tmp_path, model=model, optimizer=optimizer, state=state, keep_last=keep)
    assert [checkpoint.step_of(path) for path in checkpoint.checkpoints_in(tmp_path)] == list(
        range(6 - keep, 6)
    )
    assert checkpoint.newest_checkpoint(tmp_path)[0].name == "step_00000005"


def test_a_checkpoint_of_another_model_is_refused_by_its_name(parts, tmp_path):
    """Its tensors may well fit."""
    model, optimizer = parts
    made = checkpoint.save_checkpoint(
        tmp_path, model=model, optimizer=optimizer, state=TrainingState("m", {}, Progress(step=1))
    )
    model.name = "n"
    with pytest.raises(checkpoint.CheckpointError, match="is a checkpoint of m, not of n"):
        checkpoint.load_checkpoint(made, model=model, optimizer=optimizer)


@pytest.mark.parametrize("writer", ["save_weights", "save_optimizer"])
def test_a_file_of_a_run_is_the_old_one_until_the_new_one_is_whole(parts, tmp_path, monkeypatch, writer):
    """best_model.pdparams and best_optimizer.pdopt, where a run dies while it writes them."""
    path = tmp_path / "best"
    path.write_bytes(b"earlier")

    def half(contents, name, *more):
        Path(name).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(paddle, "save", half)
    model, optimizer = parts
    given = (model.state_dict(), {}) if writer == "save_weights" else (optimizer,)
    with pytest.raises(KeyboardInterrupt):
        getattr(checkpoint, writer)(path, *given)
    assert path.read_bytes() == b"earlier" and [each.name for each in tmp_path.iterdir()] == ["best"]


def test_five_are_the_five_best_and_what_cannot_be_read_is_not_counted():
    logits = np.tile(np.arange(7.0, 0, -1, "float32"), (4, 1))  # class 0 first, then 1, ...

    class Model(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.w = self.create_parameter([1])

        def forward(self, images):
            return paddle.to_tensor(logits)

    found = evaluate(Model(), [(paddle.zeros([4, 1]), paddle.to_tensor([0, 4, 5, -1]))])
    assert found[:4] == (pytest.approx(100 / 3), pytest.approx(200 / 3), 3, 1)
    assert found.classes == 7
