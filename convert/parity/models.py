"""Models of either framework with equal weights: a file's, or test weights in which every tensor matters."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from .inputs import rule_weights

if TYPE_CHECKING:
    import paddle
    import torch

# A file of either framework, {Paddle name: array}, or None: drawn for the test
Source = Union[str, "os.PathLike[str]", Mapping[str, Any], None]


def create_pair(
    name: str, weights: Source = None, seed: int = 0, **overrides: Any
) -> tuple[paddle.nn.Layer, torch.nn.Module]:
    """Build a model of paddle_inline and its twin of torch_ref in eval mode with the same weights.

    Args:
        name: as for `compare`, as are the others.
        weights: for Paddle; None: float64 test weights.

    Returns:
        (paddle_inline's, torch_ref's)
    """
    import torch

    import torch_ref

    paddle_model = create_paddle(name, weights, seed, **overrides)
    torch_model = torch_ref.create_model(name, **overrides)
    state = torch_state(paddle_model)
    torch_model.to(torch.from_numpy(next(iter(state.values()))).dtype)
    torch_model.load_state_dict({key: torch.as_tensor(value) for key, value in state.items()})
    return paddle_model, torch_model.eval()


def create_paddle(name: str, weights: Source = None, seed: int = 0, **overrides: Any) -> paddle.nn.Layer:
    """Build a paddle_inline model in eval mode, with a file's weights or float64 test weights."""
    import paddle_inline

    from ..mapping import torch_to_paddle

    model = paddle_inline.create_model(name, **overrides)
    if weights is None:
        template = torch_state(model)
        model.to(dtype="float64")
        paddle_inline.load_weights(model, torch_to_paddle(rule_weights(template, seed), model))
    else:
        paddle_inline.load_weights(model, weights)
    model.eval()
    return model


def create_torch(
    name: str, weights: str | os.PathLike[str] | None = None, seed: int = 0, **overrides: Any
) -> torch.nn.Module:
    """Build a torch_ref model in eval mode, with a PyTorch file's weights or float64 test weights."""
    import torch

    import torch_ref

    model = torch_ref.create_model(name, weights=weights, **overrides)
    if weights is None:
        state = rule_weights({key: value.numpy() for key, value in model.state_dict().items()}, seed)
        model.double().load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    return model.eval()


def torch_state(model: Any) -> dict[str, np.ndarray]:
    """Return {PyTorch name: array} of a model of either framework."""
    if not hasattr(model, "sublayers"):
        return {key: value.detach().cpu().numpy() for key, value in model.state_dict().items()}
    from ..mapping import paddle_to_torch

    return paddle_to_torch({key: value.numpy() for key, value in model.state_dict().items()}, model)


def fingerprints(model: Any) -> dict[str, int]:
    """Return {PyTorch name: checksum} of a model of either framework, equal for equal numbers of any dtype."""
    return {name: zlib.crc32(value.astype("float64").tobytes()) for name, value in torch_state(model).items()}
