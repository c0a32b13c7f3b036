"""Attention that reads q from one Linear and k and v from another (PVT).

B batch, N tokens, C channels, h heads, H x W token grid (N = H * W, and a class token in SOFT's last stage).
"""

from __future__ import annotations

from typing import Any

from ..ops.tokens import Size, split_channels, tokens_to_map
from .attention import ATTENTION, Attention, InLineAttention, SoftmaxAttention
from .basic import Conv2d, Dropout, LayerNorm, Linear, Tensor, convolve_to_tokens


class SeparateProjections(Attention):
    """Attention with the names of PVT's checkpoints: a base to put before a form's layer."""

    def add_projections(self, dim: int, qkv_bias: bool, drop_rate: float) -> None:
        self.q = Linear(dim, dim, bias=qkv_bias)
        self.kv = Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = Dropout(drop_rate)

    def reduce(self, x: Tensor, size: Size) -> Tensor:
        """Return the tokens [B, M, C] that keys and values are made of: all [B, N, C]."""
        return x

    def project(self, x: Tensor, size: Size) -> tuple[Tensor, Tensor, Tensor]:
        k, v = split_channels(self.kv(self.reduce(x, size)), 2)
        return self.q(x), k, v


class PVTInLineAttention(SeparateProjections, InLineAttention):
    """`InLineAttention` with separate projections of q and of k and v: [B, N, C], (H, W) -> [B, N, C]."""


class PVTSoftmaxAttention(SeparateProjections, SoftmaxAttention):
    """Spatial-reduction attention (PVT, ICCV 2021, section 3.3): softmax attention to a reduced grid.

    Args:
        dim, num_heads: C and h.
        sr_ratio: a convolution shrinks the grid of keys and values by this factor on both sides; at 1
            there is none and `size` is not looked at.
        common: as for `Attention`.
    """

    OPTIONS = ("sr_ratio",)

    def __init__(self, dim: int, num_heads: int, *, sr_ratio: int = 1, **common: Any) -> None:
        super().__init__(dim, num_heads, **common)
        self.sr_ratio = sr_ratio
        if sr_ratio > 1:
            self.sr = Conv2d(dim, dim, sr_ratio, stride=sr_ratio)
            self.norm = LayerNorm(dim, eps=1e-5)

    def check_size(self, x: Tensor, size: Size) -> None:
        """Accept any grid: at ratio 1 none is looked at, and SOFT's last stage has a class token outside of it."""

    def reduce(self, x: Tensor, size: Size) -> Tensor:
        """Return the tokens [B, M, C] that keys and values are made of, M = N / sr_ratio^2."""
        if self.sr_ratio == 1:
            return x
        return self.norm(convolve_to_tokens(self.sr, tokens_to_map(x, size)))


# a form's name -> its layer in PVT
PVT_ATTENTION: dict[str, type[Attention]] = {
    **ATTENTION,
    "inline": PVTInLineAttention,
    "softmax": PVTSoftmaxAttention,
}
