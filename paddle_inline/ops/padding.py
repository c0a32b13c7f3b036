"""Zeros at the right and at the bottom of maps and token grids, and back.

B batch, N tokens, C channels, H x W map or token grid. A `size` is a pair (height, width).

The zeros are concatenated: the `pad` operator is one that engines export and run wrongly.
"""

from __future__ import annotations

import paddle
from paddle import Tensor

from .tokens import Size


def pad_map(x: Tensor, size: Size) -> Tensor:
    """[B, C, H, W] -> [B, C, *size], no smaller."""
    return _append(_append(x, 2, size[0] - x.shape[2]), 3, size[1] - x.shape[3])


def pad_tokens(x: Tensor, size: Size, padded: Size) -> Tensor:
    """Tokens [B, N, C] of the grid `size` -> tokens of the grid `padded`, no smaller."""
    if tuple(size) == tuple(padded):
        return x
    x = x.reshape([-1, size[0], size[1], x.shape[2]])
    x = _append(_append(x, 1, padded[0] - size[0]), 2, padded[1] - size[1])
    return x.reshape([-1, padded[0] * padded[1], x.shape[3]])


def crop_tokens(x: Tensor, padded: Size, size: Size) -> Tensor:
    """Undo `pad_tokens`."""
    if tuple(size) == tuple(padded):
        return x
    x = x.reshape([-1, padded[0], padded[1], x.shape[2]])[:, : size[0], : size[1]]
    return x.reshape([-1, size[0] * size[1], x.shape[3]])


def _append(x: Tensor, place: int, count: int) -> Tensor:
    """Make a dimension `count` longer, with zeros at its end."""
    if count == 0:
        return x
    zeros = paddle.zeros_like(paddle.slice(x, [place], [0], [1]))
    return paddle.concat([x, *[zeros] * count], axis=place)
