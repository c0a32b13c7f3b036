"""Which windows Swin's blocks have, and which image and window sizes fit each other.

Sizes are pairs (height, width); forms are lists of names of attention, one per block, in one list per stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..layers.window_attention import WINDOW_ATTENTION
from ..ops.tokens import Size
from ..ops.windows import padded_size
from ..utils.errors import UserError
from .pyramid import STRIDES as STRIDES

Forms = Sequence[Sequence[str]]


def window_side(grid: Size, window_size: int, form: str) -> int:
    """Return the window's side in a stage: softmax blocks have smaller windows, and none is larger than the grid."""
    return min(max(7, window_size // 8) if WINDOW_ATTENTION[form].windowed else window_size, *grid)


def block_window(grid: Size, window_size: int, form: str, number: int) -> tuple[int, int]:
    """Return (side, shift) of the windows of a stage's block: odd ones are shifted where there is more than one."""
    side = window_side(grid, window_size, form)
    return side, side // 2 if number % 2 and side < min(grid) else 0


def call_window(size: Size, window: Size | None, shift: int) -> tuple[Size, Size, int]:
    """Return (grid padded to whole windows, window, shift) of a block for tokens of the grid `size`.

    Without a window of its own, a block sees the whole grid. It shifts only where there is more than one window.
    """
    if window is None:
        return size, size, 0
    padded = padded_size(size, window)
    return padded, window, shift if window[0] < min(padded) else 0


def buffer_shapes(img_size: Size, window_size: int | None, forms: Forms) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of what a model keeps beside its parameters; {} if a window does not divide its grid."""
    if indivisible_windows(img_size, window_size, forms):
        return {}
    shapes: dict[str, tuple[int, ...]] = {}
    for i, stride in enumerate(STRIDES):
        grid = (img_size[0] // stride, img_size[1] // stride)
        for j, form in enumerate(forms[i]):
            side, shift = block_window(grid, window_size or min(img_size) // STRIDES[0], form, j)
            block = f"layers.{i}.blocks.{j}"
            if shift:
                shapes[f"{block}.attn_mask"] = (grid[0] * grid[1] // side**2, side**2, side**2)
            for name, shape in WINDOW_ATTENTION[form].buffer_shapes((side, side)).items():
                shapes[f"{block}.attn.{name}"] = shape
    return shapes


def indivisible_windows(
    img_size: Size, window_size: int | None, forms: Iterable[Iterable[str]]
) -> list[tuple[int, Size, int]]:
    """Return (stage, grid, window side) wherever a window does not divide its grid, for images of (H, W)."""
    found = []
    for stage, (stride, names) in enumerate(zip(STRIDES, forms)):
        grid = (img_size[0] // stride, img_size[1] // stride)
        for form in sorted(set(names)):
            side = window_side(grid, window_size or min(img_size) // STRIDES[0], form)
            if grid[0] % side or grid[1] % side:
                found.append((stage, grid, side))
    return found


def check_windows(img_size: Size, window_size: int | None, forms: Forms) -> None:
    """Refuse windows that do not divide their grids: UserError naming the nearest sizes that work."""
    bad = indivisible_windows(img_size, window_size, forms)
    if not bad:
        return
    stage, grid, side = bad[0]
    steps = range(-32, 33)
    pairs = [(n, n) for n in steps] if img_size[0] == img_size[1] else [(m, n) for m in steps for n in steps]
    pairs.sort(key=lambda pair: abs(pair[0]) + abs(pair[1]))
    sizes = [(img_size[0] + 32 * m, img_size[1] + 32 * n) for m, n in pairs]
    sizes = [size for size in sizes if min(size) > 0 and not indivisible_windows(size, window_size, forms)]
    windows = sorted(range(1, max(img_size) // STRIDES[0] + 1), key=lambda w: abs(w - (window_size or side)))
    windows = [window for window in windows if not indivisible_windows(img_size, window, forms)]
    ways = [f"img_size {size}" for size in sizes[:2]] + [f"window_size {window}" for window in windows[:2]]
    raise UserError(
        f"img_size {img_size} gives stage {stage + 1} a grid of {grid[0]} x {grid[1]}, which its window of "
        f"{side} x {side} does not divide; try {' or '.join(ways) or 'another attn_type'}"
    )
