"""What a checkpoint keeps is what a run that is resumed has: each part of its state, none of them by chance."""

import dataclasses
import io

import numpy as np
import paddle
import pytest
from rich.console import Console

from paddle_inline.config.load import to_dict
from paddle_inline.config.schema import Config
from paddle_inline.models.factory import model_spec
from paddle_inline.training import optim
from paddle_inline.training.checkpoint import (
    CheckpointError,
    check_checkpoint,
    checkpoints_in,
    newest_checkpoint,
    step_of,
)
from paddle_inline.training.ema import Ema
from paddle_inline.training.evaluate import Accuracy
from paddle_inline.training.log import RunLog, read_metrics
from paddle_inline.training.loop import Components
from paddle_inline.training.optim import decay_groups, make_optimizer, optimizer_state
from paddle_inline.training.resume import CheckpointManager, data_differences
from paddle_inline.training.state import FORMAT, Progress, TrainingState, scaler_state
from paddle_inline.weights.load import open_weights


class Scaler:
    """As `paddle.amp.GradScaler`, on a CPU too."""

    def __init__(self, scale=1.0):
        self.state = {"scale": np.array([scale], "float32"), "incr_ratio": 2.0, "incr_count": 7}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


NAME = "inline_deit_digits"  # (its spec is looked at, not its layers)
CONFIG = dataclasses.asdict(Config())
PROGRESS = Progress(
    epoch=3, step=30, best_top1=61.5, best_epoch=2, best_ema_top1=62.5, best_ema_epoch=1, bad_images=4
)


def parts(seed, scaler=None, average=True, masters=True):
    """A run whose every tensor is drawn from this seed."""
    paddle.seed(seed)
    model = paddle.nn.Sequential(paddle.nn.Linear(4, 3), paddle.nn.BatchNorm1D(3))
    model.name, model.spec = NAME, model_spec(NAME)
    for value in model.state_dict().values():
        value.set_value(paddle.rand(value.shape))
    optimizer = make_optimizer("adamw", model, decay_groups(model, 0.05))
    optim._create_slots(optimizer, model.parameters())
    for slots in optimizer._accumulators.values():
        for value in slots.values():
            value.set_value(paddle.rand(value.shape))
    for parameter in model.parameters() if masters else ():  # as of 16-bit weights under amp.level O2
        optimizer._master_weights[parameter.name] = paddle.rand(parameter.shape)
    ema = Ema(model, 0.5) if average else None
    if ema is not None:
        for value in ema.average.values():
            value.set_value(paddle.rand(value.shape))
    return Components(
        model,
        model,
        optimizer,
        load=None,
        loss_fn=None,
        schedule=lambda step: 1e-3 * step,
        validate=None,
        ema=ema,
        scaler=scaler,
    )


def state(progress=None, **changes):
    known = dict(steps_per_epoch=10, images=100, world=1, config=CONFIG, classes=["a", "b"])
    return TrainingState(NAME, {}, progress or Progress(), **{**known, **changes})


def arrays(run):
    """Every tensor of a run by a name that says what it is."""
    found = {f"model {name}": value.numpy() for name, value in run.model.state_dict().items()}
    for name, slots in optimizer_state(run.model, run.optimizer).items():
        found.update({f"optimizer {name} {slot}": value for slot, value in slots.items()})
    if run.ema is not None:
        found.update({f"average {name}": value.numpy() for name, value in run.ema.average.items()})
    return found


@pytest.fixture
def log(tmp_path):
    return RunLog(tmp_path / "log", visualdl=False, console=Console(file=io.StringIO()))


@pytest.fixture
def saved(tmp_path):
    """A run of which a checkpoint was written, and its folder."""
    run = parts(1, Scaler(4096.0))
    CheckpointManager(tmp_path, run, state(PROGRESS)).on_checkpoint(PROGRESS)
    return run, tmp_path


def test_every_tensor_and_number_of_a_run_comes_back(saved, log):
    earlier, folder = saved
    run = parts(2, Scaler(1.0))
    assert all((value != arrays(run)[name]).any() for name, value in arrays(earlier).items())
    assert {name.split()[-1] for name in arrays(run)} >= {"moment1", "beta2_pow_acc", optim.MASTER, "1._mean"}
    manager = CheckpointManager(folder, run, state())
    assert manager.resume("auto", log) == PROGRESS
    found, expected = arrays(run), arrays(earlier)
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert scaler_state(run.scaler) == {"scale": 4096.0, "incr_ratio": 2.0, "incr_count": 7}
    assert manager.state.progress is not PROGRESS and manager.state.scaler["scale"] == 4096.0


def test_what_a_checkpoint_says(saved):
    _, folder = saved
    found = check_checkpoint(newest_checkpoint(folder / "checkpoints")[0])
    expected = state(PROGRESS, rate=0.03, scaler={"scale": 4096.0, "incr_ratio": 2.0, "incr_count": 7})
    assert found == dataclasses.replace(expected, paddle=paddle.__version__)


def test_a_run_without_a_loss_scaler_hands_on_that_of_an_earlier_one(saved, log):
    _, folder = saved
    run = parts(2)
    manager = CheckpointManager(folder, run, state())
    progress = manager.resume("auto", log)
    progress.step = 31
    manager.on_checkpoint(progress)
    found = check_checkpoint(newest_checkpoint(folder / "checkpoints")[0])
    assert found.progress.step == 31 and found.scaler["scale"] == 4096.0
    run = parts(3, Scaler(2.0))
    CheckpointManager(folder, run, state()).resume("auto", log)
    assert scaler_state(run.scaler)["scale"] == 4096.0


def test_masters_that_one_side_lacks_are_refused(saved, log):
    _, folder = saved
    with pytest.raises(ValueError, match="the optimizer state is another model's"):
        CheckpointManager(folder, parts(2, masters=False), state()).resume("auto", log)


@pytest.mark.parametrize("improved", [(), ("model",), ("ema",), ("model", "ema")])
def test_the_best_weights_are_those_of_the_model_or_of_its_average(tmp_path, improved):
    run = parts(1)
    manager = CheckpointManager(tmp_path, run, state(), with_optimizer=False)
    manager.on_evaluation(PROGRESS, Accuracy(1, 1, 1), None, improved)
    files = {"model": ("best_model", run.model.state_dict()), "ema": ("best_model_ema", run.ema.average)}
    assert {path.stem for path in tmp_path.iterdir()} == {files[which][0] for which in improved}
    for which in improved:
        name, weights = files[which]
        found = open_weights(tmp_path / f"{name}.pdparams")[0]
        for key, value in weights.items():
            np.testing.assert_array_equal(found[key].read(), value.numpy())


@pytest.mark.parametrize("wanted", [False, True])
def test_the_optimizer_s_own_files_are_written_where_they_are_wanted(tmp_path, wanted):
    manager = CheckpointManager(tmp_path, parts(1), state(), with_optimizer=wanted)
    manager.on_evaluation(PROGRESS, Accuracy(1, 1, 1), None, ("model",))
    manager.save_final()
    more = {"best_optimizer.pdopt", "final_model.pdparams", "final_optimizer.pdopt"} if wanted else set()
    assert {path.name for path in tmp_path.iterdir()} == {"best_model.pdparams"} | more


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(images=99), "training images: 100 -> 99"),
        (dict(images=101), "training images: 100 -> 101"),
        (dict(steps_per_epoch=9), "steps an epoch: 10 -> 9"),
        (dict(steps_per_epoch=11), "steps an epoch: 10 -> 11"),
        (dict(classes=["b", "a"]), "classes: 2 -> 2; the same names in another order"),
        (dict(config={**CONFIG, "seed": 1}), "seed: 0 -> 1"),
    ],
)
def test_a_run_of_other_data_or_settings_is_not_resumed_but_by_force(saved, log, changes, message):
    """Through the manager that the training program calls."""
    _, folder = saved
    run = parts(2, Scaler())
    before = arrays(run)
    with pytest.raises(CheckpointError) as error:
        CheckpointManager(folder, run, state(**changes)).resume("auto", log)
    assert message in str(error.value) and "--force" in str(error.value)
    assert all((arrays(run)[name] == value).all() for name, value in before.items())
    progress = CheckpointManager(folder, run, state(**changes)).resume("auto", log, force=True)
    assert (progress.epoch, progress.best_top1) == (3, 61.5)
    assert progress.step == 3 * changes.get("steps_per_epoch", 10)


def test_what_is_not_known_is_not_compared():
    for unknown in (dict(images=None), dict(steps_per_epoch=None), dict(classes=None)):
        assert (
            data_differences(state(**unknown), state()) == data_differences(state(), state(**unknown)) == []
        )


def test_settings_are_compared_as_the_program_writes_them():
    assert to_dict(Config()) == CONFIG


@pytest.mark.parametrize("version", [0, FORMAT + 1, None, "2"])
def test_formats_that_are_not_known_are_refused(version):
    with pytest.raises(ValueError, match="has format"):
        TrainingState.from_json({**state().to_json(), "format": version})
    assert TrainingState.from_json(state().to_json()) == state()


@pytest.mark.parametrize("keep", [1, 3])
def test_a_manager_keeps_as_many_checkpoints_as_it_is_told(tmp_path, keep):
    run = parts(1)
    manager = CheckpointManager(tmp_path, run, state(), keep_last=keep)
    for step in range(1, 6):
        manager.on_checkpoint(Progress(step=step))
    found = checkpoints_in(tmp_path / "checkpoints")
    assert [step_of(path) for path in found] == list(range(6 - keep, 6))


@pytest.mark.parametrize("requested", ["auto", ""])
def test_the_log_goes_back_to_where_a_run_is_resumed(saved, log, requested):
    """The rows of later steps are those of a run that has been killed."""
    _, folder = saved
    for step in (10, 30, 31, 45):
        log.scalars(step, loss=1.0)
    CheckpointManager(folder, parts(2), state()).resume(requested, log)
    assert [row["step"] for row in read_metrics(log.folder)] == ([10, 30] if requested else [])
