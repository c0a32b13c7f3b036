"""Weights of one input size, class count or number of channels made to fit another, for fine-tuning.

Position embeddings and relative-bias tables are resized bicubically, tables of attention forms linearly, a class
token's position is kept, what follows from the sizes alone is the new model's own, and a head of another class count
starts at zero; a first convolution for grey or RGB images fits other channels. It is done in numpy, in float64; nothing
else may differ.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils.errors import UserError, counted, shortened
from .bfloat16 import as_float64, from_float64
from .channels import fit_convolution, other_channels, what_is_done
from .description import fitted, for_channels
from .lazy_array import LazyArray, numpy_dtype
from .load import difference, load_weights, open_weights
from .mismatch import of_backbone, reason, stated_differences
from .tables import check_token_projection, fit_line, fit_positions, is_line, table_grids

if TYPE_CHECKING:
    import paddle

Grid = tuple[int, int]  # (H, W)

# Buffers that follow from a model's sizes: rebuilt with the model, never loaded into another.
REBUILT = ("attn_mask", "relative_position_index")
HEAD = ("head.weight", "head.bias")


def cubic_matrix(source: int, target: int) -> np.ndarray:
    """Return the matrix [target, source] that resamples a line of `source` points to `target` points.

    Keys' cubic convolution with a = -0.75 between pixel centres (align_corners=False), the border repeated
    outside: PyTorch's bicubic interpolation along one side, not smoothed on shrinking.
    """
    matrix = np.zeros((target, source))
    centres = (np.arange(target) + 0.5) * (source / target) - 0.5
    first = np.floor(centres).astype(int)
    for step in (-1, 0, 1, 2):
        distance = np.abs(centres - (first + step))
        near = (1.25 * distance - 2.25) * distance**2 + 1
        far = ((-0.75 * distance + 3.75) * distance - 6) * distance + 3
        np.add.at(
            matrix,
            (np.arange(target), np.clip(first + step, 0, source - 1)),
            np.where(distance <= 1, near, far),
        )
    return matrix


def resize_grid(values: np.ndarray, grid: Grid, size: Grid) -> np.ndarray:
    """Resize rows [H * W, C] of a grid (H, W) to rows [H' * W', C] of the grid `size`, bicubic, in float64."""
    values = np.asarray(values, "float64").reshape(*grid, -1)
    rows, columns = cubic_matrix(grid[0], size[0]), cubic_matrix(grid[1], size[1])
    values = np.einsum("hH,wW,HWc->hwc", rows, columns, values, optimize=True)
    return values.reshape(size[0] * size[1], -1)


def adapt_weights(
    arrays: Mapping[str, LazyArray], model: paddle.nn.Layer, img_size: int | Grid | None = None
) -> tuple[dict[str, LazyArray], list[str]]:
    """Make weights fit a model of the same family that differs in input size, class count or input channels.

    Args:
        arrays: {Paddle name: LazyArray}.
        model: what they shall fit; its parameters need no values.
        img_size: what the weights were trained for, int or (height, width); None: squares.

    Returns:
        ({Paddle name: LazyArray}, notes): exactly the model's names and shapes, resized when they are read;
        and one line for everything that was changed.

    Raises:
        UserError: the weights differ in more than that, with the difference, `-` the model's.
    """
    own, positions, in_chans = model.state_dict(), _positions(model), model.spec.in_chans
    tables, windows = table_grids(model), hasattr(model.spec, "window_size")
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    result: dict[str, LazyArray] = {}
    notes: dict[str, list[str]] = {}
    for name, shape in shapes.items():
        last = name.rsplit(".", 1)[-1]
        array = arrays.get(name)
        if last in REBUILT:
            result[name] = LazyArray(shape, str(own[name].dtype).split(".")[-1], own[name].numpy)
            if array is None or array.shape != shape:
                notes.setdefault(f"{last} rebuilt", []).append(name)
        elif name in HEAD and (array is None or (array.shape != shape and array.shape[:-1] == shape[:-1])):
            dtype = next(iter(arrays.values())).dtype if array is None else array.dtype
            result[name] = LazyArray(shape, dtype, partial(np.zeros, shape, numpy_dtype(dtype)))
            classes = f"{'no' if array is None else array.shape[-1]} -> {counted(shape[-1], 'class')}"
            notes.setdefault(f"head set to zero ({classes}), so train it", []).append(name)
        elif array is None:
            continue
        elif last == "relative_position_bias_table" and array.shape[1:] == shape[1:]:
            grid, size = ((math.isqrt(table[0]),) * 2 for table in (array.shape, shape))
            result[name] = _resized(array, grid, size, 0)
            _note(notes, last, grid, size, name)
        elif name in positions and array.shape[2:] == shape[2:]:
            prefix, size = positions[name]
            grid = _grid(array.shape[1] - prefix, img_size)
            result[name] = _resized(array, grid, size, prefix)
            _note(notes, name, grid, size, name)
        elif name in tables and len(array.shape) == 3 and array.shape[2:] == shape[2:]:
            grid, size = _grid(array.shape[1], None if windows else img_size), tables[name]
            result[name] = fit_positions(array, grid, size)
            _note(notes, last, grid, size, name, "bilinear")
        elif is_line(name, array.shape, shape):
            result[name] = fit_line(name, array, shape)
            if array.shape != shape:
                notes.setdefault(f"{last} resized to this grid, linear", []).append(name)
        elif other_channels(shape, array.shape, in_chans):
            result[name] = LazyArray(shape, array.dtype, partial(_fit_channels, array, in_chans))
            notes.setdefault(what_is_done(array.shape[1], in_chans), []).append(name)
        else:
            check_token_projection(name, array.shape, shape)
            result[name] = array
    kept = {name: array for name, array in arrays.items() if name.rsplit(".", 1)[-1] not in REBUILT}
    gone = [name for name in HEAD if name in kept and name not in own]
    if gone:
        notes["head left out"] = gone
    lines = difference(shapes, {name: array.shape for name, array in {**kept, **result}.items()}, gone)
    if lines:
        name = getattr(model, "name", type(model).__name__)
        raise UserError(
            f"these weights differ from {name} in more than input size, class count and channels"
            f"{of_backbone(shapes, arrays)}\n"
            "  (- in the model, + in the file)\n" + "\n".join(shortened(lines))
        )
    return result, [f"{what}: {_listed(names)}" for what, names in notes.items()]


def load_adapted(
    model: paddle.nn.Layer, path: str | os.PathLike[str], img_size: int | Grid | None = None
) -> list[str]:
    """Load a weights file of the same architecture, to be trained on, at other sizes; return the notes.

    Arguments and errors as for `adapt_weights` and `load_weights`.
    """
    arrays, description = open_weights(path)
    if img_size is None and description:
        img_size = description["overrides"].get("img_size")
    adapted, notes = adapt_weights(arrays, model, img_size)
    load_weights(model, {name: array.read() for name, array in adapted.items()})
    return [*notes, *(f"they were trained with {line}" for line in stated_differences(model, description))]


def load_fitted(model: paddle.nn.Layer, path: str | os.PathLike[str], new_head: bool = False) -> None:
    """Load a weights file into a model that may differ from the file's in input size and channels.

    What was changed is said in a warning. Of weights that fit as they are it is `load_weights`.

    Args:
        model: what to load into.
        path: the file.
        new_head: it may differ in classes, too; the head is then as in `adapt_weights`.

    Raises:
        MissingFileError, WeightsFileError, UserError: as `load_weights`; weights of other classes differ.
    """
    arrays, description = open_weights(path)
    # what is no such file at all is refused there, with what it is
    foreign = reason(Path(os.fspath(path)), model.state_dict(), arrays)
    if foreign or _fits(model, arrays) or (not new_head and not _fits(model, arrays, HEAD)):
        load_weights(model, path)
    else:
        load_opened(model, arrays, description, path, stacklevel=4)


def load_opened(
    model: paddle.nn.Layer,
    arrays: Mapping[str, LazyArray],
    description: Mapping[str, Any] | None,
    path: str | os.PathLike[str],
    stacklevel: int = 3,
) -> None:
    """Load weights that were opened, made to fit another input size, class count or other channels if need be.

    Args:
        model, arrays: as for `adapt_weights`.
        description: what they say of themselves, which becomes the model's, fitted to it; or None.
        path: where they are from, for messages.
        stacklevel: of the warnings about what was changed, as seen from here.

    Raises:
        UserError: as `adapt_weights` and `load_weights`.
    """
    adapted, notes = adapt_weights(arrays, model, (description or {}).get("overrides", {}).get("img_size"))
    try:
        load_weights(model, {name: array.read() for name, array in adapted.items()})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    for note in notes:
        warnings.warn(f"{path}: {note}", stacklevel=stacklevel)
    if description:
        model.description = _description_of(model, description, arrays)


def _fits(model: paddle.nn.Layer, arrays: Mapping[str, LazyArray], names: Sequence[str] = ()) -> bool:
    """Whether the weights of these names, or all, have the shapes that a model wants."""
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: array.shape for name, array in arrays.items()}
    return all(own.get(name) == found.get(name) for name in names or {**own, **found})


def _description_of(
    model: paddle.nn.Layer, description: Mapping[str, Any], arrays: Mapping[str, LazyArray]
) -> dict[str, Any]:
    """Return the description of weights that were made to fit a model, as those are; a new head has no classes."""
    spec = model.spec
    description = for_channels(description, spec.in_chans)
    overrides = {**description["overrides"], "img_size": spec.img_size, "num_classes": spec.num_classes}
    classes = None if _fits(model, arrays, HEAD) else spec.num_classes
    return fitted(description, description["model"], overrides, model.img_size, classes)


def _positions(model: paddle.nn.Layer) -> dict[str, tuple[int, Grid]]:
    """Return {name: (tokens before the grid, grid)} of the position embeddings that follow the input size."""
    if hasattr(model, "grid"):  # one stage, with a class token
        return {"pos_embed": (1, tuple(model.grid))}
    return {f"pos_embed{i}": (0, tuple(grid)) for i, grid in enumerate(getattr(model, "grids", ()), 1)}


def _fit_channels(array: LazyArray, channels: int) -> np.ndarray:
    return fit_convolution(array.read(), channels)


def _resized(array: LazyArray, grid: Grid, size: Grid, prefix: int) -> LazyArray:
    if grid == size:
        return array
    shape = list(array.shape)
    shape[-2] = prefix + size[0] * size[1]
    return LazyArray(tuple(shape), array.dtype, partial(_resize, array, grid, size, prefix, tuple(shape)))


def _resize(array: LazyArray, grid: Grid, size: Grid, prefix: int, shape: tuple[int, ...]) -> np.ndarray:
    values = as_float64(array.read(), array.dtype).reshape(-1, shape[-1])
    values = np.concatenate([values[:prefix], resize_grid(values[prefix:], grid, size)])
    return from_float64(values.reshape(shape), array.dtype)


def _grid(tokens: int, img_size: int | Grid | None) -> Grid:
    """Return the grid (H, W) of so many tokens, of the image's proportions; None: square."""
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size or (1, 1)
    stride = math.sqrt(height * width / tokens)
    grid = round(height / stride), round(width / stride)
    if grid[0] * grid[1] != tokens:
        raise UserError(
            f"{tokens} positions are no grid of an image of {img_size or 'equal sides'}; "
            "name the img_size that the weights were trained for"
        )
    return grid


def _note(
    notes: dict[str, list[str]], what: str, grid: Grid, size: Grid, name: str, how: str = "bicubic"
) -> None:
    if grid != size:
        text = f"{what} resized from {grid[0]} x {grid[1]} to {size[0]} x {size[1]}, {how}"
        notes.setdefault(text, []).append(name)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"
