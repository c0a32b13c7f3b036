"""Models of either framework with equal weights: a file's, or test weights in which every tensor matters."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from paddle_inline.utils.errors import UserError

from .inputs import BACKBONE_SIZE, rule_weights

if TYPE_CHECKING:
    import paddle
    import torch

BACKBONE = (
    "backbone:"  # before a model's name: its backbone, create_backbone(name), instead of the classifier
)
ARGUMENTS = ("out_indices", "out_norm", "crop", "frozen_stages")  # create_backbone's beside the overrides
TRAINED = "trained_size"  # the img_size that a backbone's weights were trained at, where it is not its spec's
# A file of either framework, {Paddle name: array}, or None: drawn for the test
Source = Union[str, "os.PathLike[str]", Mapping[str, Any], None]


def build(package: Any, name: str, weights: Any = None, **overrides: Any) -> Any:
    """Build a model of either package, or with BACKBONE before its name its backbone.

    Args:
        package: paddle_inline or torch_ref.
        name: a name in `list_models()`, with or without BACKBONE.
        weights: a file, or None.
        overrides: as for `create_model` or `create_backbone`; a backbone's img_size is that of the images it is run on,
            and TRAINED is beside it what create_backbone sees in a file.

    Returns:
        The model; a backbone has its images' size as `image_size`.
    """
    if not isinstance(name, str) or not name.startswith(BACKBONE):
        return package.create_model(name, weights=weights, **overrides)
    size = overrides.pop("img_size", BACKBONE_SIZE)
    size = (size, size) if isinstance(size, int) else tuple(size)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise UserError(f"img_size {size!r} must be a positive int or a pair (height, width) of them")
    own = name[len(BACKBONE) :]
    if TRAINED in overrides:
        overrides["img_size"] = overrides.pop(TRAINED)
        parts = {key: overrides.pop(key) for key in ARGUMENTS if key in overrides}
        model = package.models.backbone.backbone_of_sizes(own, overrides, **parts)
    else:
        model = package.create_backbone(own, weights, **overrides)
    return as_subject(model, own, size)


def as_subject(model: Any, name: str, size: tuple[int, int] = BACKBONE_SIZE) -> Any:
    """Return a backbone with the name, BACKBONE before it, and the images' size that the suite runs it by."""
    model.name = f"{BACKBONE}{name}"
    model.image_size = size
    return model


def backbones(names: Iterable[str]) -> list[str]:
    """Return the names of the backbones of those models that have one."""
    from paddle_inline.models.backbone import BACKBONES
    from paddle_inline.models.factory import model_class

    return [f"{BACKBONE}{name}" for name in names if model_class(name) in BACKBONES]


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
    torch_model = build(torch_ref, name, **overrides)
    state = torch_state(paddle_model)
    torch_model.to(torch.from_numpy(next(iter(state.values()))).dtype)
    torch_model.load_state_dict({key: torch.as_tensor(value) for key, value in state.items()})
    return paddle_model, torch_model.eval()


def create_paddle(name: str, weights: Source = None, seed: int = 0, **overrides: Any) -> paddle.nn.Layer:
    """Build a paddle_inline model in eval mode, with a file's weights or float64 test weights."""
    import paddle_inline

    from ..mapping import torch_to_paddle

    model = build(paddle_inline, name, **overrides)
    if isinstance(weights, Mapping) and hasattr(model, "image_size"):
        drawn = torch_to_paddle(rule_weights(torch_state(model), seed), model)
        norms = {key: value for key, value in drawn.items() if re.match(r"norm[0-3]\.", key)}
        # of a classifier's weights those that a backbone has; the output norms are its own
        weights = {key: value for key, value in {**norms, **weights}.items() if key in drawn}
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

    model = build(torch_ref, name, weights, **overrides)
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
