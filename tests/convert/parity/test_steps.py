"""Twenty steps in both frameworks, the reference with timm's groups and scheduler; wrong details show."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch  # noqa: F401  (without it this file is left out)

from convert.families import FAMILIES
from convert.parity import compare, steps
from paddle_inline.config.load import load_config
from paddle_inline.models import factory
from paddle_inline.training import optim
from tests.convert.parity.specs import SMALL, small


def run(family, count=20, **options):
    name, overrides = small(family)
    return compare(name, backward=False, batch=4, steps=count, **options, **overrides)


@pytest.mark.parametrize("family", SMALL)
def test_twenty_steps(family):
    report = run(family)
    assert report.passed, report.worst()
    losses = report.results["paddle"]["losses"]
    assert len(report.of_kind("step loss")) == len(losses) == 20
    assert len({float(loss) for loss in losses.values()}) == 20
    tensors = {row.name for row in report.of_kind("step weight")}
    assert "head.weight" in tensors
    assert ("patch_embed1.proj.1.running_var" in tensors) == family.startswith("soft")
    assert report.worst("step loss").tolerance == 1e-8
    assert report.worst("step weight").tolerance == 1e-7


@pytest.mark.parametrize(
    ("family", "what", "value"),
    [
        ("deit", "decay", 0.06),
        ("pvt", "clip", None),
        ("swin", "floor", 6e-6),
        ("cswin", "warmup", 2e-6),
        ("soft", "base", 1.001e-3),
    ],
)
def test_another_recipe_shows(family, what, value, monkeypatch):
    train = steps.train_paddle
    monkeypatch.setattr(
        "convert.parity.run.train_paddle",
        lambda model, batches, recipe: train(model, batches, dataclasses.replace(recipe, **{what: value})),
    )
    report = run(family)
    assert not report.passed
    assert all(row.passed for row in report.of_kind("output", "loss"))
    assert report.divergence.kind == "step weight"


@pytest.mark.parametrize(
    ("family", "name"), [("deit", "pos_embed"), ("swin", "relative_position_bias_table")]
)
def test_decay_of_what_must_not_decay_shows(family, name, monkeypatch):
    def decaying(model, weight_decay):
        groups = optim.Group("vectors", [], 0.0), optim.Group("others", [], weight_decay)
        for key, parameter in model.named_parameters():
            if not parameter.stop_gradient:
                groups[parameter.ndim > 1].names.append(key)
        return list(groups)

    monkeypatch.setattr(optim, "decay_groups", decaying)
    report = run(family)
    failed = {row.name.rpartition(".")[2] for row in report.of_kind("step weight") if not row.passed}
    assert name in failed


def test_a_schedule_that_is_one_step_late_shows(monkeypatch):
    from paddle_inline.training import schedule

    make = schedule.make_schedule

    def late(*args, **options):
        rate = make(*args, **options)
        return lambda update: rate(update - 1)

    monkeypatch.setattr(schedule, "make_schedule", late)
    assert not run("deit").passed


def test_every_part_of_the_schedule_occurs():
    assert steps.phases(20) == (5, 16)
    assert steps.phases(1) == (0, 1)


@pytest.mark.parametrize("path", sorted(Path("configs").glob("inline_*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_those_of_the_configurations(path):
    config = load_config(str(path))
    family = next(f for f, variants in factory.FAMILIES.items() if config.model.name in variants)
    recipe, config = FAMILIES[family.__name__].recipe, config.train
    if "384" in path.stem or path.stem == "inline_cswin_b":
        return  # fine-tuning, and the one with a decay of its own
    ours = (recipe.base, recipe.warmup, recipe.floor, recipe.decay)
    assert ours == (config.base_lr, config.warmup_lr, config.min_lr, config.weight_decay)
    assert recipe.clip == config.clip_grad or path.stem in ("inline_pvt_t", "inline_pvt_s")


def test_one_step_is_enough_for_a_report():
    report = run("deit", 1)
    assert report.passed and len(report.of_kind("step loss")) == 1
    assert np.isfinite([row.max_rel for row in report.rows]).all()
