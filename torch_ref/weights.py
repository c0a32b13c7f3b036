"""Weight files of PyTorch, read without running what they name, and strict loading."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .utils.errors import MissingFileError, UserError
from .utils.paths import expand

# Where a file says which model its weights are for: an attribute of the state dict, or safetensors' metadata.
DESCRIPTION = "paddle_inline"


class WeightsFileError(UserError):
    """A weight file that cannot be read."""


def read_weights(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read the tensors of a torch file (`weights_only`) or a `.safetensors` file, {name: tensor}.

    The `model` or `state_dict` entry of a training checkpoint is taken where there is one.
    """
    state, _ = _read(path)
    if isinstance(state, Mapping):
        for key in ("model", "state_dict"):
            if isinstance(state.get(key), Mapping):
                return dict(state[key])
        return dict(state)
    raise WeightsFileError(f"{path} holds a {type(state).__name__}, not named weights")


def described_model(
    path: str | os.PathLike[str] | None,
) -> tuple[str, dict[str, Any], dict[str, tuple[int, ...]]]:
    """Return (name, overrides, shapes): the model that a weights file says it is for, and {name: shape} of what
    it holds.

    Raises:
        UserError: it does not say.
    """
    state, text = ({}, None) if path is None else _read(path)
    if text is None:
        raise UserError(f"no model is named, and the weights {path} do not name theirs; give a name")
    try:
        description = json.loads(text)
        name, overrides = description["model"], description["overrides"].items()  # JSON has no tuples
        overrides = {k: tuple(v) if isinstance(v, list) else v for k, v in overrides}
        return name, overrides, {key: tuple(tensor.shape) for key, tensor in state.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise WeightsFileError(
            f"{path} describes its model in a way that this package does not write"
        ) from None


def stated_model(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]] | None:
    """Return (name, overrides) of the model that a weights file says it is of; None where it says nothing.

    Raises:
        MissingFileError, WeightsFileError: as `read_weights`.
    """
    return None if _read(path)[1] is None else described_model(path)[:2]


def shown_sizes(path: str | os.PathLike[str]) -> dict[str, int]:
    """Return the class count and the input size that a file's tensors show, as overrides of `create_model`.

    The input size shows in position embeddings alone (DeiT's and PVT's); images that are not square show none.

    Raises:
        MissingFileError, WeightsFileError: as `read_weights`.
    """
    shapes = {
        name: tuple(tensor.shape) for name, tensor in read_weights(path).items() if hasattr(tensor, "shape")
    }
    sizes = {}
    if len(shapes.get("head.bias", ())) == 1:
        sizes["num_classes"] = shapes["head.bias"][0]
    kernel = shapes.get("patch_embed.proj.weight", ())
    for name, before, stride in (
        ("pos_embed", 1, kernel[-1] if len(kernel) == 4 else 0),
        ("pos_embed1", 0, 4),
    ):
        tokens = shapes[name][1] - before if len(shapes.get(name, ())) == 3 else 0
        side = math.isqrt(max(tokens, 0))
        if side and side * side == tokens and stride:
            sizes["img_size"] = side * stride
    return sizes


def _read(path: str | os.PathLike[str]) -> tuple[Any, str | None]:
    """Return (contents, description) of a file; the description as `python -m convert` writes it, or None."""
    path = Path(expand(path))
    if not path.is_file():
        raise MissingFileError(f"no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open
            from safetensors.torch import load_file

            with safe_open(path, "pt") as file:
                return load_file(path), (file.metadata() or {}).get(DESCRIPTION)
        state = torch.load(path, map_location="cpu", weights_only=True)
        return state, getattr(state, DESCRIPTION, None)
    except Exception as error:  # a damaged file can fail in any way
        raise WeightsFileError(f"{path} is not read: {type(error).__name__}: {error}") from None


def load_weights(
    model: torch.nn.Module, source: str | os.PathLike[str] | Mapping[str, Any], skip: Sequence[str] = ()
) -> None:
    """Put named weights into a model: all of them, or none.

    Args:
        model: what to put them into.
        source: a torch or `.safetensors` file, or {name: tensor or array}.
        skip: name prefixes that keep what the model has, e.g. ("head",) to train a new head.
    Raises:
        MissingFileError: no such file.
        WeightsFileError: a file that cannot be read.
        UserError: names or shapes differ, with PyTorch's list of them.
    """
    state = source if isinstance(source, Mapping) else read_weights(source)
    state = {name: torch.as_tensor(value) for name, value in state.items()}
    own = model.state_dict()
    for name in own:
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in skip):
            state[name] = own[name]
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise UserError(str(error)) from None
