"""The suite can fail: one thing is broken on Paddle's side, in every family, and its place is named."""

import sys

import numpy as np
import pytest
from paddle import nn

from convert.families import small_models
from convert.parity.run import compare_models, create_pair
from paddle_inline.layers import window_attention
from paddle_inline.layers.basic import LayerNorm
from tests.convert.parity.specs import small

# family -> what is broken -> in which sublayer
PLACES = {label: model.controls for label, model in small_models().items()}
CASES = [(family, part) for family, parts in PLACES.items() for part in parts]


def change(tensor, how):
    value = tensor.numpy().copy()
    tensor.set_value(how(value))


def nudge(value):
    value.flat[5] += 1e-3
    return value


def swap_keys_and_values(value):
    """In the last dimension, k and v are its last halves or thirds."""
    width = value.shape[-1] // (
        3 if value.shape[-1] % 3 == 0 and value.shape[-1] == 3 * value.shape[0] else 2
    )
    return np.concatenate(
        [value[..., : -2 * width], value[..., -width:], value[..., -2 * width : -width]], -1
    )


def broken(part, layer):
    """Break a layer of Paddle's."""
    if part == "weight":
        change(layer.weight, nudge)
    elif part == "square":
        assert layer.weight.shape[0] == layer.weight.shape[1]
        change(layer.weight, lambda value: value.T.copy())
    elif part == "keys and values":
        change(layer.weight, swap_keys_and_values)
    elif part == "bias":
        change(layer.bias, np.zeros_like)
    elif part == "norm":
        assert isinstance(layer, LayerNorm)
        layer._epsilon *= 10
    elif part == "gelu":
        assert isinstance(layer, nn.GELU)
        layer._approximate = not layer._approximate
    else:
        raise AssertionError(f"nothing here breaks {part!r}")


@pytest.mark.parametrize(("family", "part"), CASES)
def test_what_is_broken_is_named(family, part, monkeypatch):
    name, overrides = small(family)
    ours, theirs = create_pair(name, **overrides)
    place = PLACES[family][part]
    layer = dict(ours.named_sublayers())[place]
    if part == "context":
        # without the first token
        modules = (sys.modules[kind.__module__] for kind in type(layer).__mro__)
        module = next(module for module in modules if hasattr(module, "mean_tokens"))
        module = window_attention if family == "cswin" else module  # `attend_branches`
        monkeypatch.setattr(module, "mean_tokens", lambda x: x[:, 1:].mean(axis=1))
    else:
        broken(part, layer)
    report = compare_models(ours, theirs, batch=3)
    assert not report.passed
    assert report.first_divergence == place
    found = report.divergence
    assert found.kind == "output"
    assert max(abs(a - b) for a, b in zip(found.reference, found.candidate)) > 1e-9
    assert len(found.index) == len(found.shape)
    failed = {row.kind for row in report.rows if not row.passed}
    assert {"output", "output gradient", "parameter gradient", "input gradient", "loss"} <= failed


@pytest.mark.parametrize("family", PLACES)
@pytest.mark.parametrize("part", ["norm", "gelu"])
def test_small_mistakes_show_in_float32(family, part):
    name, overrides = small(family)
    ours, theirs = create_pair(name, **overrides)
    place = PLACES[family][part]
    broken(part, dict(ours.named_sublayers())[place])
    report = compare_models(ours, theirs, "float32", backward=False)
    assert report.first_divergence == place


def test_a_wrong_gradient_alone_is_named(monkeypatch):
    """The forward pass is right; what the attention passes back is not."""
    name, overrides = small("pvt")
    ours, theirs = create_pair(name, **overrides)
    attn = ours.block2[1].attn
    forward = type(attn).forward

    def halved(self, x, size):
        out = forward(self, x, size)
        return out if self is not attn else out.detach() + (out - out.detach()) * 0.5

    monkeypatch.setattr(type(attn), "forward", halved)
    report = compare_models(ours, theirs)
    assert not report.passed
    assert all(row.passed for row in report.of_kind("output", "loss"))
    # what the attention was told is right, and its last sublayer is told half of it
    assert report.first_divergence == "block2.1.attn"
    assert report.divergence.kind == "input gradient"


def test_a_missing_and_a_foreign_sublayer_are_named():
    name, overrides = small("deit")
    ours, theirs = create_pair(name, **overrides)
    ours.blocks[1].mlp.act.forward = lambda x: x  # never reached: its hooks are gone with the call
    ours.blocks[1].mlp.forward = lambda x: ours.blocks[1].mlp.fc2(ours.blocks[1].mlp.fc1(x))
    report = compare_models(ours, theirs)
    assert not report.passed
    missing = {row.name for row in report.of_kind("output") if row.max_rel != row.max_rel}
    assert {"blocks.1.mlp.act", "blocks.1.mlp.drop"} <= missing
    assert report.first_divergence == "blocks.1.mlp.fc2" or report.first_divergence == "blocks.1.mlp"


def test_not_a_number_is_a_failure():
    name, overrides = small("deit")
    ours, theirs = create_pair(name, **overrides)
    change(ours.blocks[0].mlp.fc2.bias, lambda value: np.full_like(value, np.nan))
    report = compare_models(ours, theirs)
    assert report.first_divergence == "blocks.0.mlp.fc2"
    assert not any(row.passed for row in report.of_kind("output") if row.name in ("head", "(model)"))
