"""Moving between token lists, heads and feature maps.

B batch, N tokens, C channels, h heads, d = C / h head width, H x W token grid (N = H * W).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Size = tuple[int, int]  # (height, width) of a grid, a window or an image


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """[B, N, C], head-major -> [B, h, N, d]."""
    return x.reshape([-1, x.shape[1], num_heads, x.shape[2] // num_heads]).permute([0, 2, 1, 3])


def all_heads(parts: Sequence[Tensor], num_heads: int, keep: bool = False) -> list[Tensor]:
    """Tokens [B, N, C], head-major -> [B, h, N, d] each; N may differ.

    `keep`: the last part's tokens come after them.
    """
    heads = [split_heads(part, num_heads) for part in parts]
    return [*heads, parts[-1]] if keep else heads


def merge_heads(x: Tensor) -> Tensor:
    """[B, h, N, d] -> [B, N, C]."""
    _, num_heads, num_tokens, head_dim = x.shape
    return x.permute([0, 2, 1, 3]).reshape([-1, num_tokens, num_heads * head_dim])


def map_size(x: Tensor) -> Size:
    """Return (H, W) of a map [B, C, H, W]."""
    height, width = x.shape[2:]
    return int(height), int(width)


def tokens_to_map(x: Tensor, size: Size) -> Tensor:
    """[B, N, C] -> [B, C, H, W]."""
    return x.permute([0, 2, 1]).reshape([-1, x.shape[2], size[0], size[1]])


def map_to_tokens(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, N, C]."""
    return x.flatten(2).permute([0, 2, 1])


def concat_tokens(first: Tensor, second: Tensor) -> Tensor:
    """[B, N1, C], [B, N2, C] -> [B, N1 + N2, C]."""
    return torch.cat([first, second], dim=1)


def split_channels(x: Tensor, parts: int) -> Sequence[Tensor]:
    """[B, N, parts * C] -> `parts` tensors [B, N, C]."""
    return torch.chunk(x, parts, dim=-1)


def concat_channels(parts: Sequence[Tensor]) -> Tensor:
    """Tensors [B, N, C_i] -> [B, N, sum of C_i]."""
    return torch.cat(parts, dim=-1)


def prepend_token(token: Tensor, x: Tensor) -> Tensor:
    """A learned token [1, 1, C] in front of every image's tokens [B, N, C] -> [B, N + 1, C]."""
    return concat_tokens(token.expand(x.shape[0], -1, -1), x)


def add_positions(x: Tensor, positions: Tensor) -> Tensor:
    """Tokens [B, N, C] + what is learned for each place [1, N, C] -> [B, N, C]."""
    return x + positions


def mean_tokens(x: Tensor, keepdim: bool = False) -> Tensor:
    """[B, ..., N, C] -> [B, ..., C], with `keepdim` [B, ..., 1, C]."""
    return x.mean(dim=-2, keepdim=keepdim)
