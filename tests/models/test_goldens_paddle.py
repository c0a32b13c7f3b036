"""paddle_inline against the recorded numbers, without PyTorch; and the checker against wrong models."""

from pathlib import Path

import pytest

from convert.parity.capture import record_paddle
from convert.parity.golden import Digest, compare_digest, read_goldens
from convert.parity.run import create_paddle
from paddle_inline.layers.basic import GELU, LayerNorm
from paddle_inline.weights.torch_layout import torch_shapes

FOLDER = Path(__file__).parents[1] / "golden"
GOLDENS = {**read_goldens(FOLDER / "inline"), **read_goldens(FOLDER / "soft")}
SMALL = ("inline_deit_t", "inline_pvt_t", "extra_pvt_t_160x288", "extra_pvt_t_SSSS", "soft_norm_tiny")
CASES = [name if name in SMALL else pytest.param(name, marks=pytest.mark.full) for name in GOLDENS]


def check(golden, model, dtype="float64"):
    digest = record_paddle(model, *golden.batch(), dtype, backward=dtype == "float64", into=Digest)
    return compare_digest(digest, golden, torch_shapes(model))


def failures(report):
    return [(row.kind, row.name, row.max_rel) for row in report.rows if not row.passed]


@pytest.mark.parametrize("name", CASES)
def test_every_recorded_number(name):
    golden = GOLDENS[name]
    model = create_paddle(golden.model, seed=golden.seed, **golden.overrides)
    assert sum(p.size for p in model.parameters() if p.trainable) == golden.params
    report = check(golden, model)
    assert report.passed, failures(report)
    assert len(report.rows) == len(golden.numbers())
    assert check(golden, model, "float32").passed


def test_the_checker_sees_an_epsilon_that_is_off_by_ten():
    golden = GOLDENS["inline_deit_t"]
    model = create_paddle(golden.model, seed=golden.seed)
    for layer in model.sublayers():
        if isinstance(layer, LayerNorm):
            layer._epsilon *= 10
    report = check(golden, model)
    assert next(row for row in report.rows if not row.passed).name == "blocks.0.attn"
    assert not check(golden, model, "float32").passed


def test_the_checker_sees_a_tanh_gelu():
    golden = GOLDENS["inline_deit_t"]
    model = create_paddle(golden.model, seed=golden.seed)
    for layer in model.sublayers():
        if isinstance(layer, GELU):
            layer._approximate = True
    report = check(golden, model)
    assert next(row for row in report.rows if not row.passed).name == "blocks.0.attn"
    assert not check(golden, model, "float32").passed
