"""Weight files of PyTorch, read without running what they name, and strict loading.

(Above 300 lines: one file in place of paddle_inline's folder, for torch_ref reads nothing but PyTorch's own formats.)
"""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .utils.errors import MissingFileError, UserError, counted, shortened
from .utils.paths import expand

# Where a file says which model its weights are for: an attribute of the state dict, or safetensors' metadata.
DESCRIPTION = "paddle_inline"


# Buffers that follow from a model's sizes.
REBUILT = ("attn_mask", "relative_position_index")
HEAD = ("head.weight", "head.bias")
# Biases of agents by row and by column: the dimension that follows the grid.
LINES = {"ah_bias": 3, "aw_bias": 4, "ha_bias": 2, "wa_bias": 3}
# Of DeiT and Swin, of PVT, of SOFT, of CSwin.
FIRST_CONVOLUTIONS = (
    *("patch_embed.proj.weight", "patch_embed1.proj.weight"),
    *("patch_embed1.proj.0.weight", "stage1_conv_embed.0.weight"),
)


class WeightsFileError(UserError):
    """A weight file that cannot be read."""


# What a backbone lacks of a classifier, and what it may have in its place.
_CLASSIFIER = re.compile(r"(norm|head)\.(weight|bias)")
_OUTPUT_NORM = re.compile(r"(norm[0-3])\.(weight|bias)")


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
) -> tuple[str | None, dict[str, Any], dict[str, tuple[int, ...]]]:
    """Return (name, overrides, shapes): the model that a weights file says it is for, None where it does not say,
    and {name: shape} of what it holds.

    Raises:
        UserError: there is no file to ask, or it is of a backbone.
    """
    if path is None:
        raise UserError("neither a model's name nor weights that name theirs are given; give a name")
    found = _described(path)
    if found is None:
        return None, {}, _shapes(read_weights(path))
    description, shapes = found
    name = description["model"]
    if description.get("backbone"):
        raise UserError(
            f"{path} is of a backbone of {name}, without norm and head: "
            f"create_backbone({name!r}, weights=FILE) takes it"
        )
    return name, description["overrides"], shapes


def _described(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]] | None:
    """Return (the description of a file's model, {name: shape} of what it holds); None where it says nothing."""
    state, text = _read(path)
    if text is None:
        return None
    try:
        description = json.loads(text)
        overrides = description["overrides"].items()  # JSON has no tuples
        overrides = {k: tuple(v) if isinstance(v, list) else v for k, v in overrides}
        return {**description, "model": description["model"], "overrides": overrides}, _shapes(state)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise WeightsFileError(
            f"{path} describes its model in a way that this package does not write"
        ) from None


def stated_model(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]] | None:
    """Return (name, overrides) of the model that a weights file says it is of; None where it says nothing.

    Raises:
        MissingFileError, WeightsFileError: as `read_weights`.
    """
    found = _described(path)
    return None if found is None else (found[0]["model"], found[0]["overrides"])


def tensor_shapes(path: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of a file's tensors; errors as for `read_weights`."""
    return _shapes(read_weights(path))


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items() if hasattr(value, "shape")}


def shown_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the class count, channels and input size that tensors show, as overrides of `create_model`.

    The input size shows in position embeddings alone (DeiT's and PVT's); images that are not square show none.

    Args:
        shapes: {name: shape} of the tensors.
    """
    sizes = {}
    if len(shapes.get("head.bias", ())) == 1:
        sizes["num_classes"] = shapes["head.bias"][0]
    firsts = [shapes[name] for name in FIRST_CONVOLUTIONS if len(shapes.get(name, ())) == 4]
    if firsts:
        sizes["in_chans"] = firsts[0][1]
    kernel = shapes.get("patch_embed.proj.weight", ())
    for name, before, stride in (
        ("pos_embed", 1, kernel[-1] if len(kernel) == 4 else 0),
        ("pos_embed1", 0, 4 if "patch_embed1.proj.weight" in shapes else 0),  # (SOFT's are of one size)
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
        skip: name prefixes that keep what the model has, e.g. ("head",) to train a new head, whatever the source has.

    Raises:
        MissingFileError: no such file.
        WeightsFileError: a file that cannot be read.
        UserError: names or shapes differ, with the difference: `-` the model's, `+` the file's.
    """
    state = source if isinstance(source, Mapping) else read_weights(source)
    state = {name: torch.as_tensor(value) for name, value in state.items()}
    own = model.state_dict()
    kept = [name for name in {**own, **state} if any(f"{name}.".startswith(f"{prefix}.") for prefix in skip)]
    for name in kept:
        state.pop(name, None)
        state.update({name: own[name]} if name in own else {})
    lines = []
    for name in {**own, **state}:
        shapes = [list(tensors[name].shape) if name in tensors else None for tensors in (own, state)]
        if shapes[0] != shapes[1]:
            lines += [f"  {sign} {name} {shape}" for sign, shape in zip("-+", shapes) if shape is not None]
    if lines:
        where = "the given weights" if isinstance(source, Mapping) else source
        raise UserError(
            f"{getattr(model, 'name', type(model).__name__)} <- {where}: names or shapes differ"
            f"{of_backbone(own, state)}\n  (- in the model, + in the file)\n" + "\n".join(shortened(lines))
        )
    model.load_state_dict(state, strict=True)


def of_backbone(own: Iterable[str], found: Iterable[str]) -> str:
    """Return what a file has less and more than a classifier where it is a backbone's of the same model; "" otherwise.

    Args:
        own: names of the classifier's tensors.
        found: of the file's.
    """
    missing = [name for name in own if name not in set(found)]
    more = [name for name in found if name not in set(own)]
    masks = ("attn_mask", "relative_position_index")  # a backbone makes its own
    missing = [name for name in missing if name.rsplit(".", 1)[-1] not in masks]
    norms = sorted({match[1] for name in more if (match := _OUTPUT_NORM.fullmatch(name))})
    if not missing or not all(_CLASSIFIER.fullmatch(name) for name in missing):
        return ""
    if not all(_OUTPUT_NORM.fullmatch(name) for name in more):
        return ""
    if not norms and {name.split(".")[0] for name in missing} == {"head"}:
        return ""  # a classifier whose head is left out
    lacking = " and ".join(dict.fromkeys(name.split(".")[0] for name in missing))
    also = f", with the output norms {', '.join(norms)}" if norms else ""
    return f"; it is of a backbone, without {lacking}{also}: create_backbone(NAME, weights=FILE) takes it"


def load_fitted(
    model: torch.nn.Module,
    path: str | os.PathLike[str],
    new_head: bool = False,
    img_size: Any = None,
    stacklevel: int = 3,
) -> None:
    """Load a weight file into a model that may differ from the file's in input size and channels.

    What was changed is said in a warning. Of weights that fit as they are it is `load_weights`.

    Args:
        model: what to load into.
        path: the file.
        new_head: it may differ in classes, too: a head of others is set to zero, to be trained, or left out.
        img_size: what the weights were trained for, int or (height, width); None: what the file says, or squares.
        stacklevel: of the warning, as seen from here.

    Raises:
        MissingFileError, WeightsFileError, UserError: as `load_weights`.
    """
    state, own = dict(read_weights(path)), model.state_dict()
    done = _fit_head(state, own) if new_head else []
    size = img_size or _described_size(path)
    for name, tensor in own.items():
        found, last = state.get(name), name.rsplit(".", 1)[-1]
        if found is None or found.shape == tensor.shape or found.ndim != tensor.ndim:
            continue
        if last in REBUILT:
            state[name] = tensor
            continue
        if last == "positional_encoding" and found.shape[2:] == tensor.shape[2:]:
            grid = dict(model.named_modules())[name.rpartition(".")[0]].table_grid
            source = _grid(found.shape[1], None if hasattr(model.spec, "window_size") else size)
            state[name] = _resized(found[0], source, grid, "bilinear")[None]
        elif last in LINES and _same_but(found.shape, tensor.shape, LINES[last]):
            state[name] = _resized_line(found, LINES[last], tensor.shape[LINES[last]])
        elif name.endswith(("proj_k.weight", "proj_v.weight")) and found.shape[1:] == tensor.shape[1:]:
            raise UserError(
                f"{name} makes {counted(found.shape[1], 'token')} of {found.shape[0]}, and this model has "
                f"{tensor.shape[0]}: linformer attention is fixed to the img_size (and window) that it was trained "
                "for; build the model with that"
            )
        elif tensor.ndim == 4:
            state[name] = _other_channels(found, tensor, model.spec.in_chans)
        elif last == "relative_position_bias_table":
            sides = [math.isqrt(len(table)) for table in (found, tensor)]
            state[name] = _resized(found, (sides[0],) * 2, (sides[1],) * 2)
        elif name.startswith("pos_embed"):
            prefix, grid = (1, model.grid) if name == "pos_embed" else (0, model.grids[int(name[-1]) - 1])
            rows = _resized(found[0, prefix:], _grid(found.shape[1] - prefix, size), grid)
            state[name] = torch.cat([found[:, :prefix], rows[None]], 1)
        if state[name] is not found:
            done.append(f"{name} fitted from {list(found.shape)} to {list(tensor.shape)}")
    load_weights(model, state)
    for note in done:
        warnings.warn(f"{path}: {note}", stacklevel=stacklevel)


def _fit_head(state: dict[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[str]:
    """Put zeros for a head of other classes in the place of weights, or leave theirs out; return what was done."""
    before = len(state["head.bias"]) if "head.bias" in state else 0
    after = len(own["head.bias"]) if "head.bias" in own else 0
    widths = {tensors["head.weight"].shape[1:] for tensors in (state, own) if "head.weight" in tensors}
    if before == after or len(widths) != 1:  # of other widths: another model's
        return []
    for name in HEAD:
        state.pop(name, None)
        state.update({name: torch.zeros_like(own[name])} if after else {})
    if not after:
        return ["head left out"]
    return [f"head set to zero ({before or 'no'} -> {counted(after, 'class')}), so train it"]


def _described_size(path: str | os.PathLike[str]) -> Any:
    """Return the img_size that a file's description gives; None where it does not."""
    try:
        return json.loads(_read(path)[1] or "")["overrides"].get("img_size")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _grid(tokens: int, size: Any) -> tuple[int, int]:
    """Return the grid of so many tokens, of the proportions of `size`; None: square."""
    height, width = (size, size) if isinstance(size, int) else size or (1, 1)
    stride = math.sqrt(height * width / max(tokens, 1))
    grid = round(height / stride), round(width / stride)
    if grid[0] * grid[1] != tokens:
        raise UserError(f"{tokens} positions are no grid of an image of {size or 'equal sides'}")
    return grid


def _resized(
    rows: torch.Tensor, grid: tuple[int, int], size: tuple[int, int], mode: str = "bicubic"
) -> torch.Tensor:
    """Resize rows [H * W, C] of a grid (H, W) to those of the grid `size`, in float64."""
    values = rows.double().reshape(1, *grid, -1).permute(0, 3, 1, 2)
    values = torch.nn.functional.interpolate(values, size=tuple(size), mode=mode, align_corners=False)
    return values[0].permute(1, 2, 0).reshape(size[0] * size[1], -1).to(rows.dtype)


def _same_but(found: torch.Size, own: torch.Size, axis: int) -> bool:
    """Whether two shapes are the same but for one dimension."""
    return found[:axis] + found[axis + 1 :] == own[:axis] + own[axis + 1 :]


def _resized_line(table: torch.Tensor, axis: int, length: int) -> torch.Tensor:
    """Resize one dimension of a table linearly, in float64."""
    values = table.double().movedim(axis, -1)
    flat = values.reshape(1, -1, values.shape[-1])
    flat = torch.nn.functional.interpolate(flat, size=length, mode="linear", align_corners=False)
    return flat.reshape(*values.shape[:-1], length).movedim(-1, axis).to(table.dtype)


def _other_channels(weight: torch.Tensor, own: torch.Tensor, channels: int) -> torch.Tensor:
    """Return a first convolution's weights for grey or RGB images for other channels; any other weights unchanged."""
    given, values = weight.shape[1], weight.double()
    same = weight.shape[0] == own.shape[0] and weight.shape[2:] == own.shape[2:]
    if given not in (1, 3) or own.shape[1] != channels or not same:
        return weight
    if channels == 1:
        return values.sum(1, keepdim=True).to(weight.dtype)
    values = values.repeat(1, -(-channels // given), 1, 1)[:, :channels]
    return (values * (given / channels)).to(weight.dtype)
