"""Fresh models: each kind of tensor has the papers' mean, spread and bounds in both packages."""

import importlib

import numpy as np
import pytest

import paddle_inline
import torch_ref

PYRAMID = {"depths": (1, 2, 1, 1), "img_size": 64, "num_classes": 10}
MODELS = {
    "inline_deit_digits": {"depth": 3},
    "inline_pvt_tiny": {
        **PYRAMID,
        "embed_dims": (32, 32, 48, 48),
        "num_heads": (2, 2, 3, 3),
        "attn_type": "ISIS",
    },
    "inline_swin_tiny": {**PYRAMID, "embed_dim": 24, "attn_type": "ISIS", "window_size": 64},
    "inline_cswin_tiny": {**PYRAMID, "embed_dim": 16},
    "soft_tiny": {**PYRAMID, "embed_dims": (32, 32, 48, 48), "num_heads": (2, 2, 3, 3)},
}

# kind -> (mean, standard deviation, lower and upper bound of the largest distance from the mean)
EXPECTED = {
    "linear weight": (0, 0.02, 0.07, 0.13),  # cut at 2, where no draw comes near
    "learned token or table": (0, 0.02, 0.05, 0.13),
    # of a convolution, times the square root of its fan-in: uniform in -1 .. 1
    "convolution weight": (0, 3**-0.5, 0.999, 1.000001),
    "convolution bias": (0, 3**-0.5, 0.9, 1.000001),
    "linear bias": (0, 0, 0, 0),
    "norm weight": (1, 0, 0, 0),
    "norm bias": (0, 0, 0, 0),
}

STATISTICS = {paddle_inline: ("_mean", "_variance"), torch_ref: ("running_mean", "running_var")}


def numbers(package, name):
    """{kind: all numbers of that kind in a fresh model}; KeyError for a tensor of no known kind."""
    basic = importlib.import_module(f"{package.__name__}.layers.basic")
    batch_norm = importlib.import_module(f"{package.__name__}.layers.batch_norm")
    kinds = {
        basic.Linear: "linear",
        basic.Conv1d: "convolution",
        basic.Conv2d: "convolution",
        basic.LayerNorm: "norm",
        batch_norm.BatchNorm2d: "norm",
    }
    drawn = {}
    model = package.create_model(name, **MODELS[name])
    layers = model.modules() if package is torch_ref else model.sublayers(include_self=True)
    for layer in layers:
        for own_name, parameter in layer._parameters.items():
            if parameter is None or own_name in STATISTICS[paddle_inline]:  # parameters there, to Paddle
                continue
            value = parameter.detach().numpy().ravel()
            if own_name not in ("weight", "bias"):
                kind = "learned token or table"
            else:
                kind = f"{kinds[type(layer)]} {own_name}"
            if kind.startswith("convolution"):
                value = value * np.sqrt(np.prod(layer.weight.shape[1:]))
            drawn.setdefault(kind, []).append(value)
    return {kind: np.concatenate(values) for kind, values in drawn.items()}


@pytest.mark.parametrize("name", MODELS)
def test_each_kind_of_tensor_is_drawn_alike_in_both_packages(name):
    ours, theirs = numbers(paddle_inline, name), numbers(torch_ref, name)
    assert ours.keys() == theirs.keys()
    for kind in ours:
        mean, std, low, high = EXPECTED[kind]
        for values in (ours[kind], theirs[kind]):
            count = values.size
            assert count == ours[kind].size, kind
            assert abs(values.mean() - mean) <= 5 * std / count**0.5, kind  # five standard errors
            assert abs(values.std() - std) <= 5 * std / (2 * count) ** 0.5, kind
            assert low <= np.abs(values - mean).max() <= high, kind


def test_the_kinds_cover_what_models_hold():
    held = {kind for name in MODELS for kind in numbers(torch_ref, name)}
    assert held == set(EXPECTED)


def test_running_statistics_start_at_zero_and_one():
    for package, names in STATISTICS.items():
        state = package.create_model("soft_tiny", **MODELS["soft_tiny"]).state_dict()
        for own_name, value in zip(names, (0, 1)):
            found = [tensor.numpy() for key, tensor in state.items() if key.endswith(f".{own_name}")]
            assert len(found) == 6 and all((tensor == value).all() for tensor in found)


def test_two_models_are_drawn_differently():
    for package in (paddle_inline, torch_ref):
        one, two = (package.create_model("inline_deit_digits").head.weight.detach().numpy() for _ in range(2))
        assert np.abs(one - two).max() > 0.01
