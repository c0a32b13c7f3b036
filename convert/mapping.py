"""What each tensor of a model is, and what that means for its name and layout in PyTorch and in Paddle.

The kind follows from the class of the layer that owns the tensor, never from its name or its number of dimensions: a
square Linear hides a missed transpose, and a two-dimensional bias table must stay put.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from paddle import nn

import paddle_inline
from paddle_inline.layers.basic import meta_init
from paddle_inline.utils.errors import UserError, shortened
from paddle_inline.weights.lazy_array import LazyArray
from paddle_inline.weights.load import difference

from .backbones import Maps, build_backbone

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


def shapes_of(model: nn.Layer, framework: str) -> Shapes:
    """Return {name: shape} of every tensor of a model's state dict, as "torch" or "paddle" stores it."""
    if framework == "torch":
        return torch_shapes(model)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def names_of(model: nn.Layer, source: str, target: str) -> dict[str, tuple[str, Rule]]:
    """Return {name in framework `target`: (name in framework `source`, rule)} of every tensor of a model."""
    return {
        {"torch": torch_name, "paddle": name}[target]: ({"torch": torch_name, "paddle": name}[source], rule)
        for name, (torch_name, rule) in tensor_rules(model).items()
    }


@functools.lru_cache(maxsize=8)
def _skeleton(name: str, overrides: tuple[tuple[str, Any], ...], maps: Maps | None) -> nn.Layer:
    with meta_init():
        if maps is not None:
            return build_backbone(name, dict(overrides), maps)
        return paddle_inline.create_model(name, **dict(overrides))


class _Options(dict):
    """A dictionary of options that is never changed, and can be a key."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(repr(sorted(self.items())))


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else _Options(value) if isinstance(value, dict) else value


def skeleton(name: str, overrides: Mapping[str, Any], maps: Maps | None = None) -> nn.Layer:
    """Build a model with parameters that have no values: in no memory and no time.

    Args:
        name, overrides: of `create_model`.
        maps: those of a backbone; None: it is a classifier.

    Raises:
        UserError: as create_model does.
    """
    items = ((key, _hashable(value)) for key, value in sorted(overrides.items()))
    return _skeleton(name, tuple(items), maps)


def torch_to_paddle(state: Mapping[str, Any], model: nn.Layer) -> dict[str, np.ndarray]:
    """Translate a PyTorch state dict to Paddle's names and layouts.

    Args:
        state: {PyTorch name: array}, of any dtype.
        model: the paddle.nn.Layer that says what each tensor is; its own values do not matter.

    Returns:
        {Paddle name: numpy array}, bit for bit the same numbers, dtypes kept.

    Raises:
        UserError: names or shapes differ from the model's, with the difference in PyTorch's terms.
    """
    rules, found = tensor_rules(model), {name: np.shape(value) for name, value in state.items()}
    for name in torch_only_names(model):
        found.pop(name, None)
    _refuse(difference(torch_shapes(model), found), model)
    return {name: _layout(state[torch_name], rule) for name, (torch_name, rule) in rules.items()}


def paddle_to_torch(state: Mapping[str, Any], model: nn.Layer) -> dict[str, np.ndarray]:
    """Translate a Paddle state dict to PyTorch's names and layouts; the inverse of `torch_to_paddle`.

    Args:
        state: {Paddle name: array}, of any dtype.
        model: the paddle.nn.Layer that says what each tensor is; its own values do not matter.

    Returns:
        {PyTorch name: numpy array}, bit for bit the same numbers. BatchNorm's `num_batches_tracked`, which Paddle
        does not keep, comes back as 0.

    Raises:
        UserError: names or shapes differ from the model's, with the difference in Paddle's terms.
    """
    _refuse(difference(shapes_of(model, "paddle"), {k: np.shape(value) for k, value in state.items()}), model)
    result = {
        torch_name: _layout(state[name], rule) for name, (torch_name, rule) in tensor_rules(model).items()
    }
    result.update({name: np.zeros((), np.int64) for name in torch_only_names(model)})
    return result


def _layout(value: Any, rule: Rule) -> np.ndarray:
    value = np.asarray(value)
    return np.ascontiguousarray(value.T) if rule.transpose else value


def _refuse(lines: Sequence[str], model: nn.Layer) -> None:
    if lines:
        name = getattr(model, "name", type(model).__name__)
        raise UserError(
            f"these are not the weights of {name}: names or shapes differ\n"
            "  (- in the model, + in the file)\n" + "\n".join(shortened(lines))
        )


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
