"""State dicts of one framework by the names and layouts of the other, and models that say what a tensor is.

The rules stand in paddle_inline/weights/torch_layout.py.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from paddle import nn

import paddle_inline
from paddle_inline.layers.basic import meta_init
from paddle_inline.utils.errors import UserError, shortened
from paddle_inline.weights.load import difference
from paddle_inline.weights.torch_layout import Rule, Shapes, tensor_rules, torch_only_names, torch_shapes

from .backbones import Maps, build_backbone


def shapes_of(model: nn.Layer, framework: str) -> Shapes:
    """Return {name: shape} of every tensor of a model's state dict, as "torch" or "paddle" stores it."""
    if framework == "torch":
        return torch_shapes(model)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


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
