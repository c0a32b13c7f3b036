"""Which windows the branches of CSwin's blocks have.

Sizes and windows are pairs (height, width); a spec is a `CSwinSpec`.
"""

from __future__ import annotations

import math
from typing import Any

from ..layers.window_attention import BRANCH_ATTENTION, WindowSides
from ..ops.tokens import Size
from ..utils.errors import UserError
from .pyramid import STRIDES
from .spec import image_size


def branch_windows(grid: Size, split: int | None) -> list[Size]:
    """Return the windows of a block's branches: the whole grid, or vertical and horizontal stripes of `split`."""
    if split is None or grid == (split, split):
        return [grid]
    return [(grid[0], split), (split, grid[1])]


def stage_windows(spec: Any, stage: int, grid: Size, form: str) -> list[Size]:
    """Return the windows of the branches of a stage's blocks of a form; UserError for those that are undefined."""
    windowed = BRANCH_ATTENTION[form].windowed
    name = "softmax_split" if windowed else "inline_split"
    splits = getattr(spec, name)
    if stage == len(STRIDES) - 1:  # whatever the split
        return branch_windows(grid, None)
    if splits is None and not windowed:
        return branch_windows(grid, None)
    if splits is None:
        # image sides of 32 a and 32 b; the largest number that divides both, so it fits grids of any shape
        common = math.gcd(*image_size(spec.img_size, STRIDES[-1])) // STRIDES[-1]
        splits = (1, 2, common, common)
    split = splits[stage]
    windows = branch_windows(grid, split)
    where = f"{name} {split} of stage {stage + 1}, whose grid is {grid[0]} x {grid[1]}"
    if not windowed and len(windows) > 1:
        raise UserError(
            f"{where}, makes stripes, on which {form} attention is undefined: it needs the whole grid; leave "
            "inline_split out, or give the stage softmax attention (attn_type S)"
        )
    if grid[0] % split or grid[1] % split:
        fits = [n for n in range(1, min(grid) + 1) if not (grid[0] % n or grid[1] % n)]
        raise UserError(f"{where}, does not divide it; splits that work there: {', '.join(map(str, fits))}")
    return windows


def any_windows(spec: Any, stage: int, grid: Size, form: str) -> list[WindowSides]:
    """Return `stage_windows` of the spec's own size for other grids: stripes keep their width, all else is the grid's.

    Forms that are not windowed see the whole grid.
    """
    windows = stage_windows(spec, stage, grid, form) if BRANCH_ATTENTION[form].windowed else [grid]
    if len(windows) == 1:
        return [(None, None)]
    return [(None, windows[0][1]), (windows[1][0], None)]
