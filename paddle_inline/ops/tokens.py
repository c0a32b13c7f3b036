"""Moving between token lists, heads and feature maps.

B batch, N tokens, C channels, h heads, d = C / h head width, H x W token grid (N = H * W).
The batch is always the dimension that is left to be inferred, so a traced program serves any batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import paddle
from paddle import Tensor

from ..utils.errors import UserError
from . import eager, kernels

Size = tuple[int, int]  # (height, width) of a grid, a window or an image


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """[B, N, C], head-major -> [B, h, N, d]."""
    return all_heads((x,), num_heads)[0]


def all_heads(parts: Sequence[Tensor], num_heads: int, keep: bool = False) -> list[Tensor]:
    """Tokens [B, N, C], head-major -> [B, h, N, d] each; N may differ.

    `keep`: the last part's tokens come after them. What uses those as well as its heads is quicker so.
    """
    if eager.suits(parts[0]) and kernels.takes(*parts):
        return _heads_by_loops(parts, num_heads, keep)
    heads = [swap_axes(x.reshape([-1, x.shape[1], num_heads, x.shape[2] // num_heads]), 1) for x in parts]
    return [*heads, parts[-1]] if keep else heads


def _heads_by_loops(parts, num_heads, keep):
    if any(part.shape != parts[0].shape for part in parts):
        last = len(parts) - 1
        return [
            each
            for i, part in enumerate(parts)
            for each in _heads_by_loops([part], num_heads, keep and i == last)
        ]
    line = parts[0].shape[1], 1
    return eager.split_heads(parts, num_heads, line, line, keep)


def merge_heads(x: Tensor) -> Tensor:
    """[B, h, N, d] -> [B, N, C]."""
    _, num_heads, num_tokens, head_dim = x.shape
    if eager.suits(x) and kernels.takes(x):
        return eager.merge_heads(x, (num_tokens, 1), (num_tokens, 1))
    return swap_axes(x, 1).reshape([-1, num_tokens, num_heads * head_dim])


def swap_axes(x: Tensor, axis: int) -> Tensor:
    """Swap a dimension with the next one: [..., M, N, ...] -> [..., N, M, ...]."""
    if eager.suits(x):
        return eager.swap(x, axis)
    return x.transpose([*range(axis), axis + 1, axis, *range(axis + 2, x.ndim)])


def map_size(x: Tensor) -> Size:
    """Return (H, W) of a map [B, C, H, W]; UserError where a program is traced that leaves them open."""
    height, width = x.shape[2:]
    if not (isinstance(height, int) and isinstance(width, int)) or min(height, width) < 0:
        raise UserError("a program is for one size: give the height and the width in its InputSpec")
    return height, width


def tokens_to_map(x: Tensor, size: Size) -> Tensor:
    """[B, N, C] -> [B, C, H, W]."""
    if eager.suits(x):
        return eager.swap(x, 1).reshape([-1, x.shape[2], *size])
    # Reshaped first: a pass of Paddle 3.3 for oneDNN loses the shape of a reshape behind a transpose.
    return x.reshape([-1, size[0], size[1], x.shape[2]]).transpose([0, 3, 1, 2])


def map_to_tokens(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, N, C]."""
    if paddle.in_dynamic_mode():
        # not `flatten`, which has no second gradient
        return swap_axes(x.reshape([*x.shape[:2], math.prod(x.shape[2:])]), 1)
    return swap_axes(x.flatten(2), 1)


def concat_tokens(first: Tensor, second: Tensor) -> Tensor:
    """[B, N1, C], [B, N2, C] -> [B, N1 + N2, C]."""
    return paddle.concat([first, second], axis=1)


def split_channels(x: Tensor, parts: int) -> Sequence[Tensor]:
    """[B, N, parts * C] -> `parts` tensors [B, N, C]."""
    return eager.split_columns(x, parts) if eager.suits(x) else paddle.split(x, parts, axis=-1)


def concat_channels(parts: Sequence[Tensor]) -> Tensor:
    """Tensors [B, N, C_i] -> [B, N, sum of C_i]."""
    return eager.join_columns(parts) if eager.suits(parts[0]) else paddle.concat(parts, axis=-1)


def prepend_token(token: Tensor, x: Tensor) -> Tensor:
    """A learned token [1, 1, C] in front of every image's tokens [B, N, C] -> [B, N + 1, C]."""
    return concat_tokens(token + paddle.zeros_like(x[:, :1]), x)


def add_positions(x: Tensor, positions: Tensor) -> Tensor:
    """Tokens [B, N, C] + what is learned for each place [1, N, C] -> [B, N, C]."""
    if eager.suits(x) and positions.shape[1:] == x.shape[1:]:
        rows = x.reshape([x.shape[0], -1]), positions.reshape([1, -1])
        return eager.add_row(*rows).reshape(x.shape)
    return x + positions


def mean_tokens(x: Tensor, keepdim: bool = False) -> Tensor:
    """[B, ..., N, C] -> [B, ..., C], with `keepdim` [B, ..., 1, C].

    Eagerly on a CPU by blocks of rows (`eager.mean_rows`). Programs in two steps, as over the rows and the columns of a
    grid: Paddle adds term after term, and in one go over thousands of tokens it loses a digit of float32 that PyTorch,
    which adds in blocks, keeps.
    """
    if eager.suits(x):
        mean = eager.mean_rows(x)
        return mean if keepdim else mean.squeeze(-2)
    num_tokens, width = x.shape[-2], x.shape[-1]
    rows = max(n for n in range(1, math.isqrt(num_tokens) + 1) if num_tokens % n == 0)
    x = x.reshape([-1, *x.shape[1:-2], rows, num_tokens // rows, width])
    return x.mean(axis=-2).mean(axis=-2, keepdim=keepdim)


def centre_tokens(x: Tensor, factor: float) -> Tensor:
    """(x - the mean token) factor: [..., N, d] -> [..., N, d]."""
    if eager.suits(x):
        return eager.centre_rows(x, factor)
    return subtract_row(x, mean_tokens(x, keepdim=True)) * factor


def subtract_row(x: Tensor, row: Tensor) -> Tensor:
    """[..., N, d] - [..., 1, d]: one row from all.

    Paddle's CPU kernels broadcast over a dimension in the middle more slowly than they repeat the row and
    subtract, forward and backward. Programs broadcast, and their engines fuse it.
    """
    if eager.suits(x) and row.shape == [*x.shape[:-2], 1, x.shape[-1]]:
        return eager.add_row(x, row, -1.0)
    if paddle.in_dynamic_mode() and x.place.is_cpu_place():
        row = row.expand(x.shape)
    return x - row
