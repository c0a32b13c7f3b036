"""The state of a run: written, read back, and read in its earlier format."""

import json

import numpy as np
import paddle
import pytest

from paddle_inline.training.state import (
    Origin,
    Progress,
    TrainingState,
    load_scaler_state,
    scaler_state,
)

FULL = TrainingState(
    "inline_deit_digits",
    {"embed_dim": 16},
    Progress(epoch=2, step=22, best_top1=50.0, best_epoch=1, bad_images=3),
    rate=1e-3,
    steps_per_epoch=11,
    world=2,
    config={"seed": 0},
    classes=["a", "b"],
    scaler={"scale": 1024.0, "incr_ratio": 2.0},
    paddle="3.3.1",
    origin=Origin([{"names": ["head.weight"], "lr": 1e-3}], adam_steps=20, source_step=22),
)


@pytest.mark.parametrize("state", [FULL, TrainingState("m", {})])
def test_what_is_written_is_read(state):
    assert TrainingState.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_the_format_of_version_0_1():
    contents = {
        "format": 1,
        "model": "m",
        "overrides": {},
        "update": 20,
        "progress": {"epoch": 4, "update": 20, "best_top1": 71.5},
        "rate": 1e-3,
        "updates_per_epoch": 5,
        "random": {"seed": 0, "update": 20},
        "scaler": None,
        "torch": {"param_groups": [], "source_update": 20, "update_is_exact": False, "adam_steps": 17},
    }
    state = TrainingState.from_json(contents)
    assert state.progress == Progress(epoch=4, step=20, best_top1=71.5)
    assert state.steps_per_epoch == 5
    assert state.origin == Origin([], source_step=20, step_is_exact=False, adam_steps=17)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"format": 99}, ValueError, "format 99; this version reads formats 1 and 2"),
        ({"progress": {"epoch": -1, "step": 0}}, TypeError, "epoch and step"),
        ({"progress": {"epoch": 0, "step": "3"}}, TypeError, "epoch and step"),
        ({"progress": {"epoch": 0, "stap": 3}}, TypeError, "stap"),
        ({"rate": float("nan")}, TypeError, "is no number"),
        ({"overrides": None}, TypeError, "overrides"),
    ],
)
def test_a_wrong_entry_is_an_error(change, error, message):
    with pytest.raises(error, match=message):
        TrainingState.from_json({**FULL.to_json(), **change})


class Scaler:
    """As `paddle.amp.GradScaler`, whose scale is an array of one number."""

    def __init__(self, scale):
        self.state = {"scale": np.array([scale], "float32"), "incr_ratio": 2.0, "incr_count": 7}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = {**state, "scale": np.array([state["scale"][0]], "float32")}


def test_a_loss_scaler_s_state_comes_back():
    state = json.loads(json.dumps(scaler_state(Scaler(4096.0))))
    assert state == {"scale": 4096.0, "incr_ratio": 2.0, "incr_count": 7}
    scaler = Scaler(1.0)
    load_scaler_state(scaler, state)
    assert scaler_state(scaler) == state
    load_scaler_state(scaler, None)
    load_scaler_state(None, state)
    assert scaler_state(scaler) == state and scaler_state(None) is None


@pytest.mark.filterwarnings("ignore:AmpScaler")
def test_paddle_s_own_loss_scaler_takes_the_state():
    state = {
        "scale": 8192.0,
        "incr_ratio": 2.0,
        "decr_ratio": 0.5,
        "incr_every_n_steps": 2000,
        "decr_every_n_nan_or_inf": 1,
        "incr_count": 17,
        "decr_count": 0,
        "use_dynamic_loss_scaling": True,
    }
    scaler = paddle.amp.GradScaler()
    scaler._enable = True  # on a CPU it is off, but keeps its state all the same
    load_scaler_state(scaler, state)
    assert scaler_state(scaler) == state
