"""How each tensor of a model is named and laid out in PyTorch.

The kind follows from the class of the layer that owns the tensor, never from its name or its number of dimensions: a
square Linear hides a missed transpose, and a two-dimensional bias table must stay put.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from paddle import nn

from .lazy_array import LazyArray

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Rule:
    """How one kind of tensor is stored in PyTorch: its own name there, and its layout."""

    torch_name: str | None = None  # None: the same as in Paddle
    transpose: bool = False  # its own inverse, so one rule serves both directions


LINEAR_WEIGHT = Rule(transpose=True)  # Paddle [in, out], PyTorch [out, in]
KEEP = Rule()

# (owning class, own name of the tensor) -> rule; the first class that fits wins, all else is kept.
RULES = (
    (nn.Linear, "weight", LINEAR_WEIGHT),
    (nn.layer.norm._BatchNormBase, "_mean", Rule(torch_name="running_mean")),
    (nn.layer.norm._BatchNormBase, "_variance", Rule(torch_name="running_var")),
)

# What PyTorch keeps and Paddle has no place for: a counter that is used only where momentum is None.
TORCH_ONLY = {nn.layer.norm._BatchNormBase: "num_batches_tracked"}


def rule_of(layer: nn.Layer, own_name: str) -> Rule:
    """Return the rule of the tensor `own_name` that `layer` itself holds."""
    for kind, name, rule in RULES:
        if name == own_name and isinstance(layer, kind):
            return rule
    return KEEP


def tensor_rules(model: nn.Layer) -> dict[str, tuple[str, Rule]]:
    """Return {Paddle name: (PyTorch name, rule)} of every tensor in a model's state dict."""
    wanted = model.state_dict()
    rules = {}
    for prefix, layer in model.named_sublayers(include_self=True):
        for own_name in [*layer._parameters, *layer._buffers]:
            name = f"{prefix}.{own_name}" if prefix else own_name
            if name in wanted:
                rule = rule_of(layer, own_name)
                torch_name = name[: len(name) - len(own_name)] + (rule.torch_name or own_name)
                rules[name] = (torch_name, rule)
    return rules


def torch_only_names(model: nn.Layer) -> list[str]:
    """Return the PyTorch names that have no counterpart in Paddle (see TORCH_ONLY)."""
    return [
        f"{prefix}.{own_name}"
        for prefix, layer in model.named_sublayers()
        for kind, own_name in TORCH_ONLY.items()
        if isinstance(layer, kind)
    ]


def torch_shapes(model: nn.Layer) -> Shapes:
    """Return {PyTorch name: shape in PyTorch's layout}, in the order of the model's state dict."""
    own = model.state_dict()
    return {
        torch_name: tuple(own[name].shape)[:: -1 if rule.transpose else 1]
        for name, (torch_name, rule) in tensor_rules(model).items()
    }


def names_of(model: nn.Layer, source: str, target: str) -> dict[str, tuple[str, Rule]]:
    """Return {name in framework `target`: (name in framework `source`, rule)} of every tensor of a model."""
    return {
        {"torch": torch_name, "paddle": name}[target]: ({"torch": torch_name, "paddle": name}[source], rule)
        for name, (torch_name, rule) in tensor_rules(model).items()
    }


def translated(
    arrays: Mapping[str, LazyArray], model: nn.Layer, source: str, target: str
) -> dict[str, LazyArray]:
    """Return tensors named as in framework `source` as those of `target`, each laid out anew when it is read."""
    result = {}
    for name, (old, rule) in names_of(model, source, target).items():
        array = arrays[old]
        if rule.transpose and source != target:
            array = LazyArray(array.shape[::-1], array.dtype, functools.partial(_transposed, array))
        result[name] = array
    return result


def _transposed(array: LazyArray) -> np.ndarray:
    values = array.read()
    turned = np.empty(values.shape[::-1], values.dtype)
    for row in range(0, len(values), 16):  # so few rows stay in the cache: up to four times as fast
        turned[:, row : row + 16] = values[row : row + 16].T
    return turned


def torch_side(
    arrays: Mapping[str, LazyArray], model: nn.Layer, counters: Mapping[str, int]
) -> dict[str, LazyArray]:
    """Return {PyTorch name: LazyArray} from Paddle's, with BatchNorm's counters behind the statistics, as in PyTorch;
    0 where they are unknown."""
    result, counted = {}, set(torch_only_names(model))
    for name, array in translated(arrays, model, "paddle", "torch").items():
        result[name] = array
        counter = f"{name.rsplit('.', 1)[0]}.num_batches_tracked"
        if name.endswith(".running_var") and counter in counted:
            count = np.array(counters.get(counter, 0), "int64")
            result[counter] = LazyArray((), "int64", count.copy)
    return result
