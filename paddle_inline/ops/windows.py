"""Cutting token grids into windows, and what windowed attention adds to its logits (Swin, ICCV 2021).

B batch, C channels, H x W token grid, h x w window. Windows are in row-major order, image by image, and
so are the tokens inside each. A `size` or `window` is a pair (height, width).
"""

from __future__ import annotations

import paddle
from paddle import Tensor

from .tokens import Size, swap_axes

MASKED = -100.0  # added to the logits of pairs that must not attend: exp(-100) is 4e-44


def padded_size(size: Size, window: Size) -> Size:
    """Return the smallest grid that windows divide, no smaller than `size`."""
    return (-(-size[0] // window[0]) * window[0], -(-size[1] // window[1]) * window[1])


def cut_windows(x: Tensor, size: Size, window: Size) -> Tensor:
    """Tokens [B, H * W, C] -> [B * windows, h * w, C]; the window divides the grid."""
    if tuple(window) == tuple(size):
        return x
    rows, columns = size[0] // window[0], size[1] // window[1]
    x = x.reshape([-1, rows, window[0], columns, window[1], x.shape[2]])
    return swap_axes(x, 2).reshape([-1, window[0] * window[1], x.shape[5]])


def join_windows(x: Tensor, size: Size, window: Size) -> Tensor:
    """Undo `cut_windows`: [B * windows, h * w, C] -> [B, H * W, C]."""
    if tuple(window) == tuple(size):
        return x
    rows, columns = size[0] // window[0], size[1] // window[1]
    x = x.reshape([-1, rows, columns, window[0], window[1], x.shape[2]])
    return swap_axes(x, 2).reshape([-1, size[0] * size[1], x.shape[5]])


def roll_tokens(x: Tensor, size: Size, shift: int) -> Tensor:
    """Shift the grid of tokens [B, H * W, C] cyclically by `shift` rows down and columns to the right."""
    if shift == 0:
        return x
    grid = x.reshape([-1, size[0], size[1], x.shape[2]])
    return paddle.roll(grid, [shift, shift], axis=[1, 2]).reshape([-1, size[0] * size[1], x.shape[2]])


def gather_neighbours(x: Tensor, size: Size) -> Tensor:
    """Each 2 x 2 patch of tokens as one: [B, H * W, C] -> [B, H / 2 * W / 2, 4 * C].

    Order of the four: (even row, even column), (odd, even), (even, odd), (odd, odd).
    """
    x = x.reshape([-1, size[0] // 2, 2, size[1] // 2, 2, x.shape[2]])
    return x.transpose([0, 1, 3, 4, 2, 5]).reshape([-1, size[0] * size[1] // 4, 4 * x.shape[5]])


def shift_mask(size: Size, window: Size, shift: int, like: Tensor | None = None) -> Tensor:
    """Return what a shifted window adds to its logits, [windows, h * w, h * w].

    After the roll by -shift, the last window of each axis holds tokens from both edges of the image: each
    axis of length g falls into [0, g - w), [g - w, g - shift) and [g - shift, g), and pairs of tokens
    from different regions get -100, others 0.

    `like`: a tensor of the dtype and device that it is to have; None: the defaults.
    """
    rows, columns = (
        (paddle.arange(g) >= g - w).astype("int64") + (paddle.arange(g) >= g - shift).astype("int64")
        for g, w in zip(size, window)
    )
    region = (3 * rows.unsqueeze(1) + columns).reshape([1, size[0] * size[1], 1])
    region = cut_windows(region, size, window)  # [windows, h * w, 1]
    apart = region != region.transpose([0, 2, 1])
    return paddle.where(apart, MASKED, 0.0).astype(paddle.get_default_dtype() if like is None else like.dtype)


def relative_position_index(window: int) -> Tensor:
    """Where a square window's table of (2 w - 1)^2 relative positions keeps each pair, [w * w, w * w] int64.

    Entry (i, j), of query i at (y_i, x_i) and key j: (y_i - y_j + w - 1)(2 w - 1) + (x_i - x_j + w - 1).
    """
    token = paddle.arange(window * window)
    y, x = token // window, token % window
    rows = y.unsqueeze(1) - y + window - 1
    columns = x.unsqueeze(1) - x + window - 1
    return rows * (2 * window - 1) + columns


def relative_position_bias(table: Tensor, index: Tensor) -> Tensor:
    """Spread the table [(2 w - 1)^2, h] over a window's pairs, index [w * w, w * w] -> [h, w * w, w * w]."""
    bias = paddle.gather(table, index.flatten(), axis=0)
    return bias.reshape([*index.shape, table.shape[1]]).transpose([2, 0, 1])
