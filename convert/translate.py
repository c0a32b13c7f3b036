"""Named weights from PyTorch's names and layouts to Paddle's, and back: numpy in, numpy out."""

from __future__ import annotations

import numpy as np

from paddle_inline.utils.errors import UserError
from paddle_inline.weights.load import difference

from .mapping import tensor_rules, torch_only_names


def torch_to_paddle(state, model):
    """Translate a PyTorch state dict.

    Args:
        state: {PyTorch name: array}, of any dtype.
        model: the paddle.nn.Layer that says what each tensor is; its own values do not matter.
    Returns:
        {Paddle name: numpy array}, bit for bit the same numbers, dtypes kept.
    Raises:
        ValueError: names or shapes differ from the model's, with the difference in PyTorch's terms.
    """
    rules = tensor_rules(model)
    _check(state, rules, model)
    return {name: _layout(state[torch_name], rule) for name, (torch_name, rule) in rules.items()}


def paddle_to_torch(state, model):
    """Translate a Paddle state dict; the inverse of `torch_to_paddle`.

    Args and errors as there, the other way round. BatchNorm's `num_batches_tracked`, which Paddle does
    not keep, comes back as 0.
    """
    rules = tensor_rules(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    _refuse(difference(shapes, {name: np.shape(value) for name, value in state.items()}), model)
    result = {torch_name: _layout(state[name], rule) for name, (torch_name, rule) in rules.items()}
    result.update({name: np.zeros((), np.int64) for name in torch_only_names(model)})
    return result


def torch_shapes(model):
    """{PyTorch name: shape in PyTorch's layout} of a paddle.nn.Layer, in the order of its state dict."""
    own = model.state_dict()
    return {
        torch_name: tuple(own[name].shape)[:: -1 if rule.transpose else 1]
        for name, (torch_name, rule) in tensor_rules(model).items()
    }


def _layout(value, rule):
    value = np.asarray(value)
    return np.ascontiguousarray(value.T) if rule.transpose else value


def _check(state, rules, model):
    found = {name: np.shape(value) for name, value in state.items()}
    for name in torch_only_names(model):
        found.pop(name, None)
    _refuse(difference(torch_shapes(model), found), model)


def _refuse(lines, model):
    if lines:
        name = getattr(model, "name", type(model).__name__)
        shown = [*lines[:40], *([f"  ... and {len(lines) - 40} more"] if len(lines) > 40 else [])]
        raise UserError(
            f"these are not the weights of {name}: names or shapes differ\n"
            "  (- in the model, + in the file)\n" + "\n".join(shown)
        )
