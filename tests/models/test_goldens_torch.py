"""torch_ref against the recorded numbers; and the checker against wrong models."""

from pathlib import Path

import pytest
import torch

from convert.parity.capture import record_torch
from convert.parity.golden import Digest, compare_digest, read_goldens
from convert.parity.run import create_torch
from torch_ref.layers.basic import GELU, LayerNorm

FOLDER = Path(__file__).parents[1] / "golden"
GOLDENS = {**read_goldens(FOLDER / "inline"), **read_goldens(FOLDER / "soft")}
SMALL = ("inline_deit_t", "inline_pvt_t", "extra_pvt_t_160x288", "extra_pvt_t_SSSS", "soft_norm_tiny")
CASES = [name if name in SMALL else pytest.param(name, marks=pytest.mark.full) for name in GOLDENS]


def check(golden, model, dtype="float64"):
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    digest = record_torch(model, *golden.batch(), dtype, backward=dtype == "float64", into=Digest)
    return compare_digest(digest, golden, shapes)


def failures(report):
    return [(row.kind, row.name, row.max_rel) for row in report.rows if not row.passed]


@pytest.mark.parametrize("name", CASES)
def test_every_recorded_number(name):
    golden = GOLDENS[name]
    model = create_torch(golden.model, seed=golden.seed, **golden.overrides)
    assert sum(p.numel() for p in model.parameters()) == golden.params
    report = check(golden, model)
    assert report.passed, failures(report)
    assert len(report.rows) == len(golden.numbers())
    assert check(golden, model, "float32").passed


def test_the_checker_sees_an_epsilon_that_is_off_by_ten():
    golden = GOLDENS["inline_deit_t"]
    model = create_torch(golden.model, seed=golden.seed)
    for layer in model.modules():
        if isinstance(layer, LayerNorm):
            layer.eps *= 10
    report = check(golden, model)
    assert next(row for row in report.rows if not row.passed).name == "blocks.0.attn"
    assert not check(golden, model, "float32").passed


def test_the_checker_sees_a_tanh_gelu():
    golden = GOLDENS["inline_deit_t"]
    model = create_torch(golden.model, seed=golden.seed)
    for layer in model.modules():
        if isinstance(layer, GELU):
            layer.approximate = "tanh"
    report = check(golden, model)
    assert next(row for row in report.rows if not row.passed).name == "blocks.0.attn"
    assert not check(golden, model, "float32").passed


def test_the_checker_sees_names_shapes_and_missing_numbers():
    golden = GOLDENS["inline_deit_t"]
    model = create_torch(golden.model, seed=golden.seed)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    digest = record_torch(model, *golden.batch(), into=Digest)

    def failed(shapes):
        return {row.name for row in compare_digest(digest, golden, shapes).rows if not row.passed}

    assert failed(shapes) == set()
    assert failed({**shapes, "head.weight": (1000, 191)}) == {"head.weight"}
    assert failed({name: shapes[name] for name in reversed(shapes)}) == {"order of names"}
    del digest.outputs["blocks.3.attn"]
    digest.parameter_gradients["blocks.7.norm2.weight"] = None
    digest.parameter_gradients["extra.weight"] = torch.zeros(3).numpy()
    assert failed(shapes) == {"blocks.3.attn", "blocks.7.norm2.weight", "extra.weight"}
