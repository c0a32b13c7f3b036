"""Tables over the grid that forms of attention have, made to fit another grid: linearly along each side, in float64.

B batch, N = P + H * W tokens, P prefix tokens, C channels, h heads, a agents, m projected tokens.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..utils.errors import UserError, counted
from .bfloat16 import as_float64, from_float64
from .lazy_array import LazyArray

if TYPE_CHECKING:
    import paddle

Grid = tuple[int, int]  # (H, W)
Shape = tuple[int, ...]

# biases of agents by row and by column: the dimension of [1, h, a, H, 1], [1, h, a, 1, W], [1, h, H, 1, a] and
# [1, h, 1, W, a] that follows the grid
LINES = {"ah_bias": 3, "aw_bias": 4, "ha_bias": 2, "wa_bias": 3}


def linear_matrix(source: int, target: int) -> np.ndarray:
    """Return the matrix [target, source] that resamples a line of `source` points to `target` points, linearly.

    Between pixel centres (align_corners=False), the border repeated outside.
    """
    centres = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
    return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(source)))


def table_grids(model: paddle.nn.Layer) -> dict[str, Grid]:
    """Return {name: (H, W)} of a model's tables of positions, [1, H * W, C] each."""
    return {
        f"{name}.positional_encoding": layer.table_grid
        for name, layer in model.named_sublayers()
        if hasattr(layer, "positional_encoding")
    }


def fit_positions(array: LazyArray, grid: Grid, size: Grid) -> LazyArray:
    """Resize positions [1, H * W, C] of a grid (H, W) to those of the grid `size`, bilinearly."""
    if grid == size:
        return array
    shape = (1, size[0] * size[1], array.shape[2])
    return LazyArray(shape, array.dtype, partial(_fit_positions, array, grid, size))


def _fit_positions(array: LazyArray, grid: Grid, size: Grid) -> np.ndarray:
    values = as_float64(array.read(), array.dtype).reshape(*grid, -1)
    rows, columns = linear_matrix(grid[0], size[0]), linear_matrix(grid[1], size[1])
    values = np.einsum("hH,wW,HWc->hwc", rows, columns, values, optimize=True)
    return from_float64(values.reshape(1, size[0] * size[1], -1), array.dtype)


def is_line(name: str, found: Shape, shape: Shape) -> bool:
    """Whether a tensor is a line of an agent's biases that differs from the model's in its length alone."""
    axis = LINES.get(name.rsplit(".", 1)[-1])
    if axis is None or len(found) != 5 or len(shape) != 5:
        return False
    return found[:axis] + found[axis + 1 :] == shape[:axis] + shape[axis + 1 :]


def fit_line(name: str, array: LazyArray, shape: Shape) -> LazyArray:
    """Resize a line of an agent's biases to the model's shape."""
    axis = LINES[name.rsplit(".", 1)[-1]]
    if array.shape == shape:
        return array
    return LazyArray(shape, array.dtype, partial(_fit_line, array, axis, shape[axis]))


def _fit_line(array: LazyArray, axis: int, length: int) -> np.ndarray:
    values = np.moveaxis(as_float64(array.read(), array.dtype), axis, -1)
    values = values @ linear_matrix(values.shape[-1], length).T
    return from_float64(np.moveaxis(values, -1, axis), array.dtype)


def check_token_projection(name: str, found: Shape, shape: Shape) -> None:
    """Refuse Linformer's matrices [N, m] of another number of tokens: nothing says how tokens would be made of others.

    Raises:
        UserError: what to do instead.
    """
    ours = name.endswith(("proj_k.weight", "proj_v.weight")) and len(found) == 2 and found[1:] == shape[1:]
    if ours and found != shape:
        raise UserError(
            f"{name} makes {counted(found[1], 'token')} of {found[0]}, and this model has {shape[0]}: linformer "
            "attention is fixed to the img_size (and window) that it was trained for; build the model with that"
        )
