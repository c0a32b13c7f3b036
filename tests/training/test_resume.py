"""When a run may go on from a checkpoint: the same settings, and the same images and draws in an update."""

import copy
import json

import pytest

from paddle_inline.config.load import load_config, to_dict
from paddle_inline.models.factory import create_model
from paddle_inline.training import build as parts
from paddle_inline.training import resume
from paddle_inline.training.checkpoint import SUMS, CheckpointError, _digest

PLAIN = to_dict(load_config("", [], ["data.batch_size=64", "model.drop_path_rate=0"]))


def checkpoint(folder, **state):
    """A checkpoint that holds no more than its state."""
    folder.mkdir(exist_ok=True)
    content = {"format": 1, "config": PLAIN, "world": 2, "update": 10, "progress": {"epoch": 1}, **state}
    (folder / "state.json").write_text(json.dumps(content))
    (folder / SUMS).write_text(f"{_digest(folder / 'state.json')}  state.json\n")
    return folder


def changed(**keys):
    settings = copy.deepcopy(PLAIN)
    for key, value in keys.items():
        section, _, name = key.partition("__")
        settings[section][name] = value
    return settings


def check(folder, settings, world, **more):
    resume.check_same_run(folder, settings, world=world, updates_per_epoch=10, **more)


@pytest.mark.parametrize(
    ("world", "settings"),
    [
        (2, PLAIN),
        (1, changed(data__batch_size=128)),
        (4, changed(data__batch_size=32)),
        (1, changed(train__accumulation_steps=2)),
        (2, changed(data__num_workers=0, data__on_bad_image="skip", train__use_checkpoint=True)),
    ],
)
def test_the_same_run_by_other_means(tmp_path, world, settings):
    check(checkpoint(tmp_path / "c"), settings, world)


@pytest.mark.parametrize(
    ("world", "settings", "by_rank", "message"),
    [
        (4, PLAIN, (), r"ranks: 2 -> 4, .* images of an update: 128 -> 256 .*or start 2 ranks"),
        (1, changed(data__batch_size=128), ("mixup",), "ranks: 2 -> 1, .* its own mixup: start 2"),
        (2, changed(data__batch_size=32), (), "data.batch_size: 64 -> 32"),
        (2, changed(train__base_lr=1.0), (), "train.base_lr: 0.0005 -> 1.0"),
        (1, changed(data__batch_size=128, train__base_lr=1.0), (), "train.base_lr"),
    ],
)
def test_another_run_is_refused_and_can_be_forced(tmp_path, world, settings, by_rank, message):
    folder = checkpoint(tmp_path / "c")
    with pytest.raises(CheckpointError, match=message) as error:
        check(folder, settings, world, by_rank=by_rank)
    assert "--force" in str(error.value)
    check(folder, settings, world, by_rank=by_rank, force=True)


def test_a_converted_run_must_have_epochs_as_long(tmp_path):
    folder = checkpoint(tmp_path / "c", config=None)
    check(folder, PLAIN, 1)
    with pytest.raises(CheckpointError, match="10 updates in 2 epochs"):
        check(checkpoint(tmp_path / "c", config=None, progress={"epoch": 2}), PLAIN, 1)


@pytest.mark.parametrize("found", [20, 19, 5])
def test_a_converted_run_under_a_loss_scaler_is_as_far_as_its_epochs(tmp_path, found):
    """AdamW has not counted the updates that the scaler skipped; the schedule has."""
    state = {"update": found, "progress": {"epoch": 2}, "torch": {"update_is_exact": False}}
    assert resume.check_position(state, 10) == 20
    check(checkpoint(tmp_path / "c", config=None, **state), PLAIN, 1)
    for updates_per_epoch in (2, 9, 400):
        with pytest.raises(CheckpointError, match=f"an epoch has {updates_per_epoch}"):
            resume.check_position({**state, "update": 19}, updates_per_epoch)


@pytest.mark.parametrize(
    ("model", "options", "reasons"),
    [
        ("inline_deit_digits", [], []),
        ("inline_deit_digits", ["model.drop_rate=0.1"], ["dropout"]),
        ("inline_deit_digits", ["model.drop_path_rate=0.1"], ["dropout"]),
        ("inline_deit_digits", ["aug.cutmix=1"], ["mixup"]),
        ("soft_digits", [], ["batch normalisation"]),
        ("soft_digits", ["train.sync_bn=true", "aug.mixup=0.8"], ["mixup"]),
    ],
)
def test_what_each_rank_draws_for_itself(model, options, reasons):
    off = ["model.drop_path_rate=0", "aug.mixup=0", "aug.cutmix=0"]
    found = parts.rank_dependent_features(load_config("", [], [*off, *options]), create_model(model))
    assert len(found) == len(reasons) and all(a in b for a, b in zip(reasons, found))
