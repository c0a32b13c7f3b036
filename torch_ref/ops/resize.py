"""Resizing of learned position embeddings."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from .tokens import Size, map_to_tokens, tokens_to_map


@cache
def bilinear_matrix(source: int, target: int) -> np.ndarray:
    """Return the float64 matrix [target, source] that resamples a line of `source` points to `target` points.

    Linear interpolation between pixel centres (align_corners=False), the border repeated outside.
    """
    centres = (np.arange(target) + 0.5) * (source / target) - 0.5
    centres = np.clip(centres, 0, source - 1)
    left = np.floor(centres).astype(int)
    matrix = np.zeros((target, source))
    rows = np.arange(target)
    matrix[rows, left] = 1 - (centres - left)
    matrix[rows, np.minimum(left + 1, source - 1)] += centres - left
    return matrix


def resize_map(x: Tensor, size: Size) -> Tensor:
    """[B, C, H, W] -> [B, C, *size], bilinear, align_corners=False.

    Two small matrix products, as in Paddle, whose own resize rounds its ratios to float32.
    """
    rows = torch.as_tensor(bilinear_matrix(int(x.shape[2]), int(size[0])), dtype=x.dtype, device=x.device)
    columns = torch.as_tensor(bilinear_matrix(int(x.shape[3]), int(size[1])), dtype=x.dtype, device=x.device)
    return torch.matmul(torch.matmul(rows, x), columns.transpose(0, 1))


def resize_tokens(x: Tensor, grid: Size, size: Size) -> Tensor:
    """Tokens [B, N, C] of a grid (H, W) -> tokens [B, N', C] of the grid `size`."""
    if tuple(grid) == tuple(size):
        return x
    return map_to_tokens(resize_map(tokens_to_map(x, grid), size))


@cache
def pooling_matrix(source: int, target: int) -> np.ndarray:
    """Return the float64 matrix [target, source] of adaptive average pooling along a line.

    Cell t is the mean of points floor(t source / target) to ceil((t + 1) source / target) - 1.
    """
    matrix = np.zeros((target, source))
    for cell in range(target):
        first, end = cell * source // target, -(-(cell + 1) * source // target)
        matrix[cell, first:end] = 1 / (end - first)
    return matrix


def pool_map(x: Tensor, size: Size) -> Tensor:
    """[B, C, H, W] -> [B, C, *size], adaptive average pooling, by two small matrix products."""
    rows = torch.as_tensor(pooling_matrix(int(x.shape[2]), int(size[0])), dtype=x.dtype, device=x.device)
    columns = torch.as_tensor(pooling_matrix(int(x.shape[3]), int(size[1])), dtype=x.dtype, device=x.device)
    return torch.matmul(torch.matmul(rows, x), columns.transpose(0, 1))
