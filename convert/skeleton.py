"""Models without weights: what a model's tensors are called, shaped and made of, in no memory and no time."""

from __future__ import annotations

import functools

import paddle_inline
from paddle_inline.layers.basic import meta_init

from .mapping import tensor_rules
from .translate import torch_shapes


@functools.lru_cache(maxsize=8)
def _skeleton(name, overrides):
    with meta_init():
        return paddle_inline.create_model(name, **dict(overrides))


def skeleton(name, overrides):
    """The paddle.nn.Layer `create_model(name, **overrides)` with parameters that have no values.

    Raises ValueError as create_model does.
    """
    items = ((key, tuple(v) if isinstance(v, list) else v) for key, v in sorted(overrides.items()))
    return _skeleton(name, tuple(items))


def shapes_of(model, side):
    """{name: shape} of every tensor of a model's state dict, on one side: "torch" or "paddle"."""
    if side == "torch":
        return torch_shapes(model)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def names_of(model, source, target):
    """{name on side `target`: (name on side `source`, rule)} of every tensor of a model's state dict."""
    return {
        {"torch": torch_name, "paddle": name}[target]: ({"torch": torch_name, "paddle": name}[source], rule)
        for name, (torch_name, rule) in tensor_rules(model).items()
    }
