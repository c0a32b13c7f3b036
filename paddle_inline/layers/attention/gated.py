"""Linear attention whose outputs are multiplied by a gate, one more projection: PolaFormer, MALA, RALA, MLLA.

B batch, N = P + H * W tokens, P prefix tokens (class token), H x W token grid, C channels, h heads, d = C / h.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...ops.attention.focused import pola_attention, pola_rows
from ...ops.attention.normalised import (
    augmented_keys,
    mala_attention,
    mala_rows,
    normalised_attention,
    normalised_rows,
)
from ...ops.attention.rotary import Tables, head_frequencies, rotary_tables, turn, width_frequencies
from ...ops.attention.verbs import elu1, join, silu, softplus
from ...ops.tokens import Size, merge_heads, split_channels, split_heads
from ...utils.errors import UserError, counted
from ..basic import Conv2d, Dropout, Linear, Tensor, filter_tokens, learned
from ..initialised import NormalConv2d
from .base import Attention, check_flag
from .grid import on_patches, patches_of
from .local import TableAttention


class PolaAttention(TableAttention):
    """Polarity-aware linear attention: products of like and of unlike signs apart, a table of positions, a local term.

    Args:
        dim, num_heads: C and h; d is even.
        common: as for `Attention`; `grid` is needed.
    """

    HEAD_MULTIPLE = 2
    SOURCE = "Meng et al. (PolaFormer), ICLR 2025, arXiv 2501.15061"
    COMPLEXITY = "4 N d C + 25 N C + N C^2"
    INJECTIVE = False
    ROW_DIMENSION = "d - 1"
    EXTRA_PARAMETERS = "C^2 + H W C + 3 C + 26 d"

    def __init__(self, dim: int, num_heads: int, **common: Any) -> None:
        super().__init__(dim, num_heads, **common)
        self.scale = learned(np.zeros((1, 1, dim)))
        self.power = learned(np.zeros((1, num_heads, 1, dim // num_heads)))

    def add_projections(self, dim: int, qkv_bias: bool, drop_rate: float) -> None:
        self.qkvg = Linear(dim, 4 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = Dropout(drop_rate)

    def features(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        scale = softplus(self.scale)
        return q / scale, k / scale

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return pola_attention(q, k, v, self.power)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        self.check_size(x, size)
        q, k, v, gate = split_channels(self.qkvg(x), 4)
        return self.proj_drop(self.proj(self.attend(q, k, v, None, size) * gate))

    def project(self, x: Tensor, size: Size) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, _ = split_channels(self.qkvg(x), 4)
        return q, k, v

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As in `Attention`, but [B, 2 h, N, N]: every head's first d / 2 channels, then every head's others."""
        return join(1, *pola_rows(q, k, self.power))


class RotaryAttention(Attention):
    """A base of linear forms with features elu + 1 that rotary positions turn, a local term and a gate.

    Args:
        dim, num_heads: C and h; d is a multiple of 4.
        rope: False leaves the positions out.
        common: as for `Attention`.
    """

    OPTIONS = ("rope",)

    def __init__(self, dim: int, num_heads: int, *, rope: bool = True, **common: Any) -> None:
        super().__init__(dim, num_heads, **common)
        self.rope = check_flag("rope", rope)
        if rope:
            self.check_turned(dim, num_heads)
        self.add_convolutions(dim)

    def check_turned(self, dim: int, num_heads: int) -> None:
        """Refuse a width C that h heads do not divide into fours."""
        if dim // num_heads % 4:
            raise UserError(
                "rotary positions need heads of a width that is a multiple of 4, and "
                f"{counted(dim, 'channel')} in {counted(num_heads, 'head')} make {dim // num_heads}; try width "
                f"{-(-dim // (4 * num_heads)) * 4 * num_heads}, or rope=False"
            )

    def add_convolutions(self, dim: int) -> None:
        """Add the local term."""
        self.lepe = NormalConv2d(dim, dim, 5, padding=2, groups=dim)

    def add_projections(self, dim: int, qkv_bias: bool, drop_rate: float) -> None:
        self.qkvo = Linear(dim, 4 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = Dropout(drop_rate)

    def tables(self, x: Tensor, size: Size) -> Tables:
        """Return the cosines and sines of the tokens' angles, for heads [B, h, N, d] of the input [B, N, C]."""
        return rotary_tables(size, head_frequencies(x.shape[2] // self.num_heads), self.prefix_tokens, x)

    def turned(self, x: Tensor, size: Size, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return features q and k [B, h, N, d] of the input [B, N, C], turned if there are rotary positions."""
        if not self.rope:
            return q, k
        tables = self.tables(x, size)
        return turn(q, tables), turn(k, tables)

    def parts(self, x: Tensor, size: Size) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return q, k, v and the gate of tokens, [B, N, C] each."""
        q, k, v, gate = split_channels(self.qkvo(x), 4)
        return q, k, v, gate

    def features(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of q and k, heads [B, h, N, d]."""
        return elu1(split_heads(q, self.num_heads)), elu1(split_heads(k, self.num_heads))

    def combine(self, q: Tensor, k: Tensor, v: Tensor, turned: tuple[Tensor, Tensor]) -> Tensor:
        """Compute the form itself for heads of features q and k, these turned, and v: [B, h, N, d] each."""
        return normalised_attention(q, k, v, turned)

    def combine_rows(self, q: Tensor, k: Tensor, turned: tuple[Tensor, Tensor]) -> Tensor:
        """Return the weights [B, h, N, N] of `combine`."""
        return normalised_rows(q, k, turned)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        self.check_size(x, size)
        q, k, v, gate = self.parts(x, size)
        q, k = self.features(q, k)
        out = merge_heads(self.combine(q, k, split_heads(v, self.num_heads), self.turned(x, size, q, k)))
        local = filter_tokens(self.lepe, patches_of(v, self.prefix_tokens), size)
        out = on_patches(out, self.prefix_tokens, lambda patches: patches + local)
        return self.proj_drop(self.proj(out * gate))

    def rows(self, x: Tensor, size: Size) -> Tensor:
        self.check_size(x, size)
        q, k, _, _ = self.parts(x, size)
        q, k = self.features(q, k)
        return self.combine_rows(q, k, self.turned(x, size, q, k))


class MALAAttention(RotaryAttention):
    """Magnitude-aware linear attention; arguments as for `RotaryAttention`.

    With rotary positions more than half of the weights are negative at random, and rows do not sum to 1.
    """

    SOURCE = "Fan et al. (MALA), ICCV 2025, arXiv 2507.00698"
    COMPLEXITY = "2 N d C + 25 N C + N C^2"
    INJECTIVE = True
    ROW_DIMENSION = "d"
    EXTRA_PARAMETERS = "C^2 + 27 C"

    def combine(self, q: Tensor, k: Tensor, v: Tensor, turned: tuple[Tensor, Tensor]) -> Tensor:
        return mala_attention(q, k, v, turned, self.scale)

    def combine_rows(self, q: Tensor, k: Tensor, turned: tuple[Tensor, Tensor]) -> Tensor:
        return mala_rows(q, k, turned, self.scale)


class RALAAttention(RotaryAttention):
    """Rank-augmented linear attention, of keys weighted by what the mean query asks for.

    Arguments as for `RotaryAttention`.
    """

    SOURCE = "Fan et al. (RALA), CVPR 2025, arXiv 2411.07635"
    COMPLEXITY = "2 N d C + 27 N C + N C^2"
    INJECTIVE = False
    ROW_DIMENSION = "d - 1"
    EXTRA_PARAMETERS = "C^2 + 27 C"

    def features(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q, k = elu1(split_heads(q, self.num_heads)), elu1(split_heads(k, self.num_heads))
        return q, augmented_keys(q, k, self.scale)


class MLLAAttention(RotaryAttention):
    """Mamba-like linear attention: q, k and v from a convolution of the tokens; arguments as for `RotaryAttention`.

    Its rotary angles are those of the whole width, so that heads turn at different speeds.
    """

    SOURCE = "Han et al. (MLLA), NeurIPS 2024, arXiv 2405.16605"
    COMPLEXITY = "2 N d C + 18 N C + N C^2"
    INJECTIVE = False
    ROW_DIMENSION = "d - 1"
    EXTRA_PARAMETERS = "C^2 + 21 C"

    def check_turned(self, dim: int, num_heads: int) -> None:
        """Refuse a width C that is no multiple of 4."""
        if dim % 4:
            step = math.lcm(4, num_heads)
            raise UserError(
                f"width {dim} must be a multiple of 4 for the rotary positions of the whole width; try width "
                f"{-(-dim // step) * step}, or rope=False"
            )

    def add_convolutions(self, dim: int) -> None:
        """Add the one before q, k and v, and the local term."""
        self.dwc = Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.lepe = Conv2d(dim, dim, 3, padding=1, groups=dim)

    def add_projections(self, dim: int, qkv_bias: bool, drop_rate: float) -> None:
        self.in_proj = Linear(dim, dim)
        self.act_proj = Linear(dim, dim)
        self.qk = Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = Dropout(drop_rate)

    def tables(self, x: Tensor, size: Size) -> Tables:
        return rotary_tables(size, width_frequencies(x.shape[2]), self.prefix_tokens, x)

    def turned(self, x: Tensor, size: Size, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        if not self.rope:
            return q, k
        cosines, sines = self.tables(x, size)
        if q.shape[3] % 2:  # a pair of channels may belong to two heads
            q, k = (
                split_heads(turn(merge_heads(part).unsqueeze(1), (cosines, sines)).squeeze(1), self.num_heads)
                for part in (q, k)
            )
            return q, k
        tables = (
            split_heads(cosines.unsqueeze(0), self.num_heads),
            split_heads(sines.unsqueeze(0), self.num_heads),
        )
        return turn(q, tables), turn(k, tables)

    def parts(self, x: Tensor, size: Size) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        v = on_patches(
            self.in_proj(x), self.prefix_tokens, lambda patches: silu(filter_tokens(self.dwc, patches, size))
        )
        q, k = split_channels(self.qk(v), 2)
        return q, k, v, silu(self.act_proj(x))
