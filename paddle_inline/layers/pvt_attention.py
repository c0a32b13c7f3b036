"""Attention layers that read q from one Linear and k and v from another (PVT).

B batch, N tokens, C channels, h heads, H x W token grid (N = H * W).
"""

from __future__ import annotations

from ..ops.inline_attention import FEATURE_MAPS, inline_attention, local_residual, softmax_attention
from ..ops.tokens import (
    map_to_tokens,
    mean_tokens,
    merge_heads,
    split_channels,
    split_heads,
    tokens_to_map,
)
from ..utils.errors import unknown
from .attention import LocalFilter
from .basic import Conv2d, Dropout, LayerNorm, Linear, Module


class PVTInLineAttention(Module):
    """`InLineAttention` with separate projections of q and of k and v: [B, N, C], (H, W) -> [B, N, C]."""

    def __init__(self, dim, num_heads, drop_rate=0.0, kernel_function="identity"):
        super().__init__()
        if kernel_function not in FEATURE_MAPS:
            raise unknown("kernel_function", kernel_function, FEATURE_MAPS)
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.feature_map = FEATURE_MAPS[kernel_function]
        self.q = Linear(dim, dim)
        self.kv = Linear(dim, 2 * dim)
        self.proj = Linear(dim, dim)
        self.proj_drop = Dropout(drop_rate)
        self.residual = LocalFilter(dim, num_heads)

    def forward(self, x, size):
        q = split_heads(self.q(x), self.num_heads)
        k, v = split_channels(self.kv(x), 2)
        local = local_residual(v, self.residual(mean_tokens(x)), size)
        k, v = (split_heads(part, self.num_heads) for part in (k, v))
        out = merge_heads(inline_attention(self.feature_map(q), self.feature_map(k), v, self.scale))
        return self.proj_drop(self.proj(out + local))


class PVTSoftmaxAttention(Module):
    """Spatial-reduction attention (PVT, ICCV 2021, section 3.3): softmax attention to a reduced grid.

    Args:
        dim, num_heads: C and h.
        sr_ratio: a convolution shrinks the grid of keys and values by this factor on both sides; at 1
            there is none and `size` is not looked at.
    Input [B, N, C] and size (H, W); output as the input.
    """

    def __init__(self, dim, num_heads, drop_rate=0.0, sr_ratio=1):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.sr_ratio = sr_ratio
        self.q = Linear(dim, dim)
        self.kv = Linear(dim, 2 * dim)
        self.proj = Linear(dim, dim)
        self.proj_drop = Dropout(drop_rate)
        if sr_ratio > 1:
            self.sr = Conv2d(dim, dim, sr_ratio, stride=sr_ratio)
            self.norm = LayerNorm(dim, eps=1e-5)

    def forward(self, x, size):
        q = split_heads(self.q(x), self.num_heads)
        context = x
        if self.sr_ratio > 1:
            context = self.norm(map_to_tokens(self.sr(tokens_to_map(x, size))))
        k, v = (split_heads(part, self.num_heads) for part in split_channels(self.kv(context), 2))
        return self.proj_drop(self.proj(merge_heads(softmax_attention(q, k, v, self.scale))))
