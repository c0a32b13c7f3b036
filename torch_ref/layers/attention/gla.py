"""Bidirectional gated linear attention (ViG).

B batch, N = P + H * W tokens in sequence order, P prefix tokens (class token), H x W token grid, C channels, h heads,
d = C / h; keys have d / 2 channels a head.
"""

from __future__ import annotations

from typing import Any

from ...ops.attention.gla import gated_attention, gated_rows
from ...ops.attention.verbs import log_sigmoid, sigmoid, silu, split_last
from ...ops.tokens import Size, merge_heads, split_channels, split_heads
from ..basic import Dropout, Sequential, Tensor, filter_tokens
from ..initialised import RMSNorm, XavierConv2d, XavierLinear
from .base import Attention
from .grid import on_patches

GAIN = 2**-2.5  # of the initial weights
GATE_WIDTH = 16  # between the two Linears of the gates
GATE_DIVISOR = 16.0  # of the log gates


class GatedLinearAttention(Attention):
    """Linear attention whose sums forget: a gate per token and channel, along the sequence and against it.

    Its own projections to q, k, v and of the output have no bias.

    Args:
        dim, num_heads: C and h; d is even.
        common: as for `Attention`.
    """

    HEAD_MULTIPLE = 2
    SOURCE = "Liao et al. (ViG), 2024, arXiv 2405.18425"
    COMPLEXITY = "3 N d C + 41 N C"
    INJECTIVE = True
    ROW_DIMENSION = "d / 2"
    EXTRA_PARAMETERS = "39 C + 2 d"

    def __init__(self, dim: int, num_heads: int, **common: Any) -> None:
        super().__init__(dim, num_heads, **common)
        self.scale = (dim // num_heads // 2) ** -0.5
        self.in_proj = XavierConv2d(dim, dim, 3, padding=1, groups=dim, gain=GAIN)
        self.gk = Sequential(
            XavierLinear(dim, GATE_WIDTH, bias=False, gain=GAIN), XavierLinear(GATE_WIDTH, dim, gain=GAIN)
        )
        self.gate = XavierLinear(dim, dim, gain=GAIN)
        self.g_norm = RMSNorm(dim // num_heads, eps=1e-5)
        self.l_norm = RMSNorm(dim // num_heads, eps=1e-5)

    def add_projections(self, dim: int, qkv_bias: bool, drop_rate: float) -> None:
        self.qkv = XavierLinear(dim, 2 * dim, bias=False, gain=GAIN)
        self.proj = XavierLinear(dim, dim, bias=False, gain=GAIN)
        self.proj_drop = Dropout(drop_rate)

    def local(self, x: Tensor, size: Size) -> Tensor:
        """Return u, the tokens [B, N, C] of which all is made."""
        return on_patches(
            x, self.prefix_tokens, lambda patches: silu(filter_tokens(self.in_proj, patches, size))
        )

    def parts(self, u: Tensor) -> tuple[Tensor, ...]:
        """Return the heads q and k [B, h, N, d / 2], v [B, h, N, d], and the log gates G and R [B, h, N, d / 2]."""
        dim = u.shape[2]
        q, k, v = split_last(self.qkv(u), [dim // 2, dim // 2, dim])
        gates = split_channels(log_sigmoid(self.gk(u)) / GATE_DIVISOR, 2)
        return tuple(split_heads(part, self.num_heads) for part in (q, k, v, *gates))

    def forward(self, x: Tensor, size: Size) -> Tensor:
        self.check_size(x, size)
        u = self.local(x, size)
        q, k, v, forth, back = self.parts(u)
        out = merge_heads(self.g_norm(gated_attention(q, k, v, forth, back, self.scale)))
        u_normed = merge_heads(self.l_norm(split_heads(u, self.num_heads)))
        share = sigmoid(self.gate(u))
        return self.proj_drop(self.proj(share * out + (1 - share) * u_normed))

    def rows(self, x: Tensor, size: Size) -> Tensor:
        self.check_size(x, size)
        q, k, _, forth, back = self.parts(self.local(x, size))
        return gated_rows(q, k, forth, back, self.scale)
