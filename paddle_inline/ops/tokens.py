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
from . import eager

Size = tuple[int, int]  # (height, width) of a grid, a window or an image


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """[B, N, C], head-major -> [B, h, N, d]."""
    return x.reshape([-1, x.shape[1], num_heads, x.shape[2] // num_heads]).transpose([0, 2, 1, 3])


def merge_heads(x: Tensor) -> Tensor:
    """[B, h, N, d] -> [B, N, C]."""
    _, num_heads, num_tokens, head_dim = x.shape
    return x.transpose([0, 2, 1, 3]).reshape([-1, num_tokens, num_heads * head_dim])


def map_size(x: Tensor) -> Size:
    """Return (H, W) of a map [B, C, H, W]; UserError where a program is traced that leaves them open."""
    height, width = x.shape[2:]
    if not (isinstance(height, int) and isinstance(width, int)) or min(height, width) < 0:
        raise UserError("a program is for one size: give the height and the width in its InputSpec")
    return height, width


def tokens_to_map(x: Tensor, size: Size) -> Tensor:
    """[B, N, C] -> [B, C, H, W]."""
    # Reshaped first: a pass of Paddle 3.3 for oneDNN loses the shape of a reshape behind a transpose.
    return x.reshape([-1, size[0], size[1], x.shape[2]]).transpose([0, 3, 1, 2])


def map_to_tokens(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, N, C]."""
    return x.flatten(2).transpose([0, 2, 1])


def concat_tokens(first: Tensor, second: Tensor) -> Tensor:
    """[B, N1, C], [B, N2, C] -> [B, N1 + N2, C]."""
    return paddle.concat([first, second], axis=1)


def split_channels(x: Tensor, parts: int) -> Sequence[Tensor]:
    """[B, N, parts * C] -> `parts` tensors [B, N, C]."""
    return paddle.split(x, parts, axis=-1)


def concat_channels(parts: Sequence[Tensor]) -> Tensor:
    """Tensors [B, N, C_i] -> [B, N, sum of C_i]."""
    return paddle.concat(parts, axis=-1)


def prepend_token(token: Tensor, x: Tensor) -> Tensor:
    """A learned token [1, 1, C] in front of every image's tokens [B, N, C] -> [B, N + 1, C]."""
    return concat_tokens(token + paddle.zeros_like(x[:, :1]), x)


def mean_tokens(x: Tensor, keepdim: bool = False) -> Tensor:
    """[B, ..., N, C] -> [B, ..., C], with `keepdim` [B, ..., 1, C].

    Eagerly on a CPU a product with ones. Programs in two steps, as over the rows and the columns of a grid:
    Paddle adds term after term, and in one go over thousands of tokens it loses a digit of float32 that PyTorch,
    which adds in blocks, keeps.
    """
    if eager.suits(x):
        mean = eager.mean_rows(x)
        return mean if keepdim else mean.squeeze(-2)
    num_tokens, width = x.shape[-2], x.shape[-1]
    rows = max(n for n in range(1, math.isqrt(num_tokens) + 1) if num_tokens % n == 0)
    x = x.reshape([-1, *x.shape[1:-2], rows, num_tokens // rows, width])
    return x.mean(axis=-2).mean(axis=-2, keepdim=keepdim)


def subtract_row(x: Tensor, row: Tensor) -> Tensor:
    """[..., N, d] - [..., 1, d]: one row from all.

    Paddle's CPU kernels broadcast over a dimension in the middle more slowly than they repeat the row and
    subtract, forward and backward. Programs broadcast, and their engines fuse it.
    """
    if eager.suits(x) and row.shape == [*x.shape[:-2], 1, x.shape[-1]]:
        row = eager.repeat_row(row, x.shape[-2])
    elif paddle.in_dynamic_mode() and x.place.is_cpu_place():
        row = row.expand(x.shape)
    return x - row
