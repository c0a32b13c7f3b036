"""When a run may go on from a checkpoint: the same settings, and the same images and draws in a step."""

import copy

import pytest

from paddle_inline.config.load import load_config, to_dict
from paddle_inline.models.factory import create_model
from paddle_inline.training import build, resume
from paddle_inline.training.checkpoint import CheckpointError
from paddle_inline.training.state import Origin, Progress, TrainingState

PLAIN = to_dict(load_config("", [], ["data.batch_size=64", "model.drop_path_rate=0"]))


def state(config=PLAIN, world=2, epoch=1, step=10, **more):
    """A run's state after some steps, on two ranks if not said otherwise."""
    return TrainingState(
        "m", {}, Progress(epoch, step), steps_per_epoch=10, config=config, world=world, **more
    )


def changed(**keys):
    settings = copy.deepcopy(PLAIN)
    for key, value in keys.items():
        section, _, name = key.partition("__")
        settings[section][name] = value
    return settings


def check(earlier, settings, world, **more):
    resume.check_same_run(earlier, state(settings, world), **more)


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
def test_the_same_run_by_other_means(world, settings):
    check(state(), settings, world)


@pytest.mark.parametrize(
    ("world", "settings", "rank_dependent", "message"),
    [
        (4, PLAIN, (), r"ranks: 2 -> 4, .* images per step: 128 -> 256 .*or start 2 ranks"),
        (1, changed(data__batch_size=128), ("mixup",), "ranks: 2 -> 1, .* its own mixup: start 2"),
        (2, changed(data__batch_size=32), (), "data.batch_size: 64 -> 32"),
        (2, changed(train__base_lr=1.0), (), "train.base_lr: 0.0005 -> 1.0"),
        (1, changed(data__batch_size=128, train__base_lr=1.0), (), "train.base_lr"),
    ],
)
def test_another_run_is_refused_and_can_be_forced(world, settings, rank_dependent, message):
    with pytest.raises(CheckpointError, match=message) as error:
        check(state(), settings, world, rank_dependent=rank_dependent)
    assert "--force" in str(error.value)
    check(state(), settings, world, rank_dependent=rank_dependent, force=True)


def test_a_converted_run_must_have_epochs_as_long():
    check(state(config=None), PLAIN, 1)
    with pytest.raises(CheckpointError, match="10 steps in 2 epochs"):
        check(state(config=None, epoch=2), PLAIN, 1)


@pytest.mark.parametrize("found", [20, 19, 5])
def test_a_converted_run_under_a_loss_scaler_is_as_far_as_its_epochs(found):
    """AdamW has not counted the steps that the scaler skipped; the schedule has."""
    inexact = dict(config=None, epoch=2, origin=Origin([], step_is_exact=False))
    assert resume.check_position(state(step=found, **inexact), 10) == 20
    check(state(step=found, **inexact), PLAIN, 1)
    for steps_per_epoch in (2, 9, 400):
        with pytest.raises(CheckpointError, match=f"an epoch has {steps_per_epoch}"):
            resume.check_position(state(step=19, **inexact), steps_per_epoch)


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
    found = build.rank_dependent_features(load_config("", [], [*off, *options]), create_model(model))
    assert len(found) == len(reasons) and all(a in b for a, b in zip(reasons, found))
