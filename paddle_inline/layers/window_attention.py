"""Attention inside windows of the token grid (Swin, CSwin).

B batch, N tokens of the H x W grid, C channels, h heads. Sizes and windows are pairs (height, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

from ..ops import eager
from ..ops.eager_windows import branch_attention
from ..ops.inline_attention import softmax_attention_weights
from ..ops.padding import crop_tokens, pad_tokens
from ..ops.tokens import Size, concat_channels, mean_tokens, split_channels
from ..ops.windows import (
    cut_windows,
    join_windows,
    padded_size,
    relative_position_bias,
    relative_position_index,
)
from ..utils.errors import UserError
from .attention import ATTENTION, Attention, InLineAttention, SoftmaxAttention
from .attention.table import fits_branches
from .basic import Conv2d, Tensor, filter_tokens, is_filter, token_parameter

WindowSides = tuple[Union[int, None], Union[int, None]]


class WindowSoftmaxAttention(SoftmaxAttention):
    """Softmax attention inside w x w windows, with a learned relative position bias (Swin, section 3.2).

    Args:
        dim, num_heads: C and h.
        grid: the window (w, w).
        common: as for `Attention`.
    """

    def __init__(self, dim: int, num_heads: int, *, grid: Size, **common: Any) -> None:
        super().__init__(dim, num_heads, grid=grid, **common)
        self.relative_position_bias_table = token_parameter((2 * grid[0] - 1) ** 2, num_heads)
        self.register_buffer("relative_position_index", relative_position_index(grid[0]))

    @staticmethod
    def buffer_shapes(grid: Size) -> dict[str, tuple[int, ...]]:
        tokens = grid[0] * grid[1]
        return {"relative_position_index": (tokens, tokens)}

    def position_bias(self) -> Tensor:
        """Return what is added to the logits of each pair, [h, w * w, w * w]."""
        return relative_position_bias(self.relative_position_bias_table, self.relative_position_index)

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return softmax_attention_weights(q, k, self.scale, self.position_bias())

    def forward(self, x: Tensor, size: Size, mask: Tensor | None = None) -> Tensor:
        """Tokens of windows [B * windows, w * w, C] -> the same shape.

        Args:
            mask: [windows, w * w, w * w], added to the logits where windows are shifted.
        """
        bias = self.position_bias()
        if mask is not None:
            bias = bias + mask.unsqueeze(1)
        q, k, v = split_channels(self.qkv(x), 3)
        return self.proj_drop(self.proj(self.attend(q, k, v, None, size, bias)))


def whole_window(window: WindowSides, size: Size) -> Size:
    """Return (height, width) of a window; sides of None are those of the grid `size`."""
    return (size[0] if window[0] is None else window[0], size[1] if window[1] is None else window[1])


class Branch(Attention):
    """One branch of CSwin's attention: a base to put before a form's layer.

    The form attends inside windows of the grid; LePE, a depthwise 3x3 convolution of the values that is zero padded
    at the window's border, is added (CSwin, CVPR 2022, section 3.3). The block projects.

    Args:
        dim, num_heads: C and h of the branch.
        grid: the (H, W) that it is built for, or None: any, which is then padded with zeros to whole windows.
        window: the windows that it is cut into; a side of None is the grid's own.
        options: as for the form's own layer.
    """

    def __init__(
        self, dim: int, num_heads: int, *, grid: Size | None, window: WindowSides, **options: Any
    ) -> None:
        super().__init__(dim, num_heads, grid=None if grid is None else whole_window(window, grid), **options)
        self.grid = grid
        self.window = window

    def add_projections(self, dim: int, qkv_bias: bool, drop_rate: float) -> None:
        self.get_v = Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(  # type: ignore[override]
        self, q: Tensor, k: Tensor, v: Tensor, context: Tensor, size: Size
    ) -> Tensor:
        """q, k, v [B, N, C] of the block, the mean token [B, C] of its input and (H, W) -> [B, N, C]."""
        window = whole_window(self.window, size)
        padded = padded_size(size, window)
        q, k, v = (cut_windows(pad_tokens(part, size, padded), padded, window) for part in (q, k, v))
        out = self.attend(q, k, v, context, window)
        out = out + filter_tokens(self.get_v, v, window)
        return crop_tokens(join_windows(out, padded, window), padded, size)

    def rows(self, x: Tensor, size: Size) -> Tensor:
        raise UserError(
            "a branch of CSwin has no rows of its own: its block projects to q, k and v; ask a layer of "
            "create_attention, or of a DeiT, PVT or Swin"
        )


class InLineBranch(Branch, InLineAttention):
    """Injective linear attention over the whole grid, with the local residual and LePE."""


class SoftmaxBranch(Branch, SoftmaxAttention):
    """Softmax attention inside stripes of the grid, with LePE."""


def attend_branches(branches: Sequence[Branch], qkv: Tensor, x: Tensor, size: Size) -> Tensor:
    """Take a block's projection through all branches.

    Args:
        branches: of a block.
        qkv: [B, N, 3 C], the q's of all branches, their k's, their v's.
        x: the block's input [B, N, C], whose mean token is the branches' context.
        size: (H, W).

    Returns:
        [B, N, C]
    """
    windows = [whole_window(branch.window, size) for branch in branches]
    if _at_once(branches, windows, qkv, size):
        first, filters = branches[0], [branch.get_v for branch in branches]
        weights, biases = [each.weight for each in filters], [each.bias for each in filters]
        return branch_attention(qkv, first.num_heads, size, windows, first.scale, weights, biases)
    parts, means = split_channels(qkv, 3 * len(branches)), split_channels(mean_tokens(x), len(branches))
    return concat_channels(
        [branch(*parts[i :: len(branches)], means[i], size) for i, branch in enumerate(branches)]
    )


def _at_once(branches, windows, qkv, size):
    """Whether `branch_attention` does what the branches do, and nobody asks to be told that they are called."""
    return (
        all(type(branch) is SoftmaxBranch and not eager.watched(branch) for branch in branches)
        and all(padded_size(size, window) == tuple(size) for window in windows)
        and all(is_filter(branch.get_v, qkv) for branch in branches)
    )


def in_branch(layer: type[Attention]) -> type[Attention]:
    """Return the layer of a form inside a branch."""
    return type(f"{layer.__name__}Branch", (Branch, layer), {"__doc__": layer.__doc__})


# a form's name -> its layer in Swin
WINDOW_ATTENTION: dict[str, type[Attention]] = {**ATTENTION, "softmax": WindowSoftmaxAttention}

# a form's name -> its layer in CSwin, whose blocks project: forms that project in their own way do not fit
BRANCH_ATTENTION: dict[str, type[Attention]] = {
    **{form: in_branch(layer) for form, layer in ATTENTION.items() if fits_branches(layer)},
    "inline": InLineBranch,
    "softmax": SoftmaxBranch,
}
