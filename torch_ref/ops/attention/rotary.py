"""Rotary positions on a grid: pairs of channels turned by angles that grow with the row and with the column.

B batch, h heads, N = P + H * W tokens, P prefix tokens, H x W token grid, C channels, d head width.

Channels 2m and 2m + 1 are a pair; the first half of the pairs turn with the row, the second half with the column.
"""

from __future__ import annotations

import numpy as np

from ..tokens import Size
from .verbs import Tensor, at_least_float32, constant, join, matmul, typed_like, without_autocast

Tables = tuple[Tensor, Tensor]  # cosines and sines


def head_frequencies(head_dim: int) -> np.ndarray:
    """10000^(-m / (n - 1)) for m = 0 .. n - 1, n = d / 4: both ends included (MALA, RALA)."""
    count = head_dim // 4
    return 10000.0 ** (-np.arange(count) / max(count - 1, 1))


def width_frequencies(channels: int) -> np.ndarray:
    """10000^(-m / n) for m = 0 .. n - 1, n = C / 4 (MLLA)."""
    count = channels // 4
    return 10000.0 ** (-np.arange(count) / count)


def rotary_tables(size: Size, frequencies: np.ndarray, prefix: int, like: Tensor) -> Tables:
    """Return the cosines and the sines of the angles of all tokens, [P + H * W, 4 n]; the prefix is not turned.

    Args:
        size: (H, W).
        frequencies: n of them, in float64.
        prefix: P.
        like: a tensor of the type, float32 at least, and the place that they shall have.
    """
    height, width = size
    pairs, like = np.repeat(frequencies, 2), at_least_float32(like)
    tables = []
    for function in (np.cos, np.sin):
        # lines of the grid alone, so that a program's constants stay small
        rows = constant(function(np.outer(np.arange(height), pairs)), like).unsqueeze(1)
        columns = constant(function(np.outer(np.arange(width), pairs)), like).unsqueeze(0)
        shape = [height, width, len(pairs)]
        table = join(2, rows.expand(shape), columns.expand(shape)).reshape([height * width, 2 * len(pairs)])
        if prefix:
            table = join(0, constant(function(np.zeros((prefix, 2 * len(pairs)))), like), table)
        tables.append(table)
    return tables[0], tables[1]


def turn(x: Tensor, tables: Tables) -> Tensor:
    """Turn each pair (u, w) to (u cos a - w sin a, w cos a + u sin a): [B, h, N, d] -> the same shape.

    `tables`: cosines and sines, [N, d], or [1, h, N, d] where the heads differ. The pairs are swapped by a product
    with a constant matrix, which adds nothing but zeros: to take channels one by one is slow.
    """
    cosines, sines = tables
    with without_autocast(x):
        wide = at_least_float32(x)
        swap = constant(np.kron(np.eye(x.shape[3] // 2), [[0.0, 1.0], [-1.0, 0.0]]), wide)
        return typed_like(wide * cosines + matmul(wide, swap) * sines, x)
