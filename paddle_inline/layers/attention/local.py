"""Linear attention with a table of positions and a local term (SLAB, FLatten), and at two scales (EfficientViT).

B batch, N = P + H * W tokens, P prefix tokens (class token), H x W token grid, C channels, h heads, d = C / h.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ops.attention.divided import divided_attention, divided_rows, linear_relu_attention, linear_relu_rows
from ...ops.attention.focused import focus
from ...ops.attention.normalised import normalised_attention, normalised_rows
from ...ops.attention.verbs import filter_heads, join, relu, zeros_like
from ...ops.tokens import (
    Size,
    concat_channels,
    concat_tokens,
    map_to_tokens,
    merge_heads,
    split_channels,
    split_heads,
    tokens_to_map,
)
from ..basic import Conv2d, Dropout, Linear, Sequential, Tensor, filter_tokens, learned
from ..initialised import NormalConv2d
from .base import Attention
from .grid import on_patches, patches_of


class TableAttention(Attention):
    """A base of forms that add a table of positions to the keys, and a convolution that the heads share to the output.

    Arguments as for `Attention`; the table is for `grid`.
    """

    grid_bound = True

    def __init__(self, dim: int, num_heads: int, *, grid: Size | None = None, **common: Any) -> None:
        super().__init__(dim, num_heads, grid=grid, **common)
        height, width = grid or (0, 0)  # None: refused by `Attention`
        self.positional_encoding = learned(np.zeros((1, height * width, dim)))
        self.dwc = Conv2d(dim // num_heads, dim // num_heads, 5, padding=2, groups=dim // num_heads)

    def add_positions(self, k: Tensor) -> Tensor:
        """Add the table to the patches' keys, [B, N, C]."""
        return on_patches(k, self.prefix_tokens, lambda patches: patches + self.positional_encoding)

    def add_local(self, out: Tensor, v: Tensor, size: Size) -> Tensor:
        """Add the filtered values to the patches' outputs, [B, N, C] both."""
        prefix = self.prefix_tokens
        image = tokens_to_map(patches_of(v, prefix), size)
        local = map_to_tokens(filter_heads(image, self.dwc.weight, self.dwc.bias))
        return on_patches(out, prefix, lambda patches: patches + local)

    def features(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of the queries and of the keys that have no position yet, [B, N, C]."""
        raise NotImplementedError(f"{type(self).__name__} has no features")

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Tensor | None, size: Size) -> Tensor:
        q, k = self.features(q, self.add_positions(k))
        out = merge_heads(self.mix(*(split_heads(part, self.num_heads) for part in (q, k, v))))
        return self.add_local(out, v, size)

    def rows(self, x: Tensor, size: Size) -> Tensor:
        self.check_size(x, size)
        q, k, v = self.project(x, size)
        q, k = self.features(q, self.add_positions(k))
        return self.weights(*(split_heads(part, self.num_heads) for part in (q, k, v)))


class SLABAttention(TableAttention):
    """ReLU linear attention with a table of positions and a local term; arguments as for `Attention`."""

    EPS = 1e-6
    SOURCE = "Guo et al. (SLAB), ICML 2024, arXiv 2405.11582"
    COMPLEXITY = "2 N d C + 25 N C"
    INJECTIVE = False
    ROW_DIMENSION = "d+ - 1"
    EXTRA_PARAMETERS = "H W C + 26 d"

    def features(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return relu(q), relu(k)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return divided_attention(q, k, v, self.EPS)

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return divided_rows(q, k, self.EPS)


class FocusedAttention(TableAttention):
    """Focused linear attention with a table of positions and a local term; arguments as for `Attention`."""

    SOURCE = "Han et al. (FLatten), ICCV 2023, arXiv 2308.00442"
    COMPLEXITY = "2 N d C + 25 N C"
    INJECTIVE = False
    ROW_DIMENSION = "d+ - 1"
    EXTRA_PARAMETERS = "H W C + C + 26 d"

    def __init__(self, dim: int, num_heads: int, **common: Any) -> None:
        super().__init__(dim, num_heads, **common)
        self.scale = learned(np.zeros((1, 1, dim)))

    def features(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return focus(q, self.scale), focus(k, self.scale)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return normalised_attention(q, k, v)

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return normalised_rows(q, k)


class EnhancedAttention(Attention):
    """ReLU linear attention of the tokens and of their 5x5 neighbourhoods, side by side (EfficientViT's module).

    The second scale is of patches alone: a prefix token has no query, key or value in it.

    Args:
        dim, num_heads: C and h.
        common: as for `Attention`.
    """

    SOURCE = "Cai et al. (EfficientViT), ICCV 2023, arXiv 2205.14756"
    COMPLEXITY = "4 N d C + 75 N C + 3 N d C + N C^2"
    INJECTIVE = False
    ROW_DIMENSION = "d+ - 1 per scale"
    EXTRA_PARAMETERS = "75 C + 3 C d + C^2"

    def __init__(self, dim: int, num_heads: int, **common: Any) -> None:
        super().__init__(dim, num_heads, **common)
        self.aggreg = Sequential(
            NormalConv2d(3 * dim, 3 * dim, 5, padding=2, groups=3 * dim, bias=False),
            NormalConv2d(3 * dim, 3 * dim, 1, groups=3 * num_heads, bias=False),
        )

    def add_projections(self, dim: int, qkv_bias: bool, drop_rate: float) -> None:
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(2 * dim, dim)
        self.proj_drop = Dropout(drop_rate)

    def scales(self, x: Tensor, size: Size) -> list[tuple[Tensor, ...]]:
        """Return the heads q, k and v [B, h, N, d] of both scales."""
        prefix, tokens = self.prefix_tokens, self.qkv(x)
        wide = filter_tokens(self.aggreg, patches_of(tokens, prefix), size)
        if prefix:
            wide = concat_tokens(zeros_like(tokens[:, :prefix]), wide)
        return [
            tuple(split_heads(part, self.num_heads) for part in split_channels(scale, 3))
            for scale in (tokens, wide)
        ]

    def forward(self, x: Tensor, size: Size) -> Tensor:
        self.check_size(x, size)
        outs = [merge_heads(linear_relu_attention(q, k, v)) for q, k, v in self.scales(x, size)]
        return self.proj_drop(self.proj(concat_channels(outs)))

    def rows(self, x: Tensor, size: Size) -> Tensor:
        """As in `Attention`, but [B, 2 h, N, N]: the h heads of the tokens, then those of the neighbourhoods."""
        self.check_size(x, size)
        return join(1, *(linear_relu_rows(q, k) for q, k, v in self.scales(x, size)))
