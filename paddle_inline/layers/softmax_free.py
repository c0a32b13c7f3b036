"""Softmax-free attention layers (SOFT and SOFT-Norm).

B batch, N tokens, C channels, h heads, d = C / h, m landmarks, H x W token grid (N = H * W).
"""

from __future__ import annotations

from functools import partial

from ..ops.softmax_free import (
    filter_heads,
    head_images,
    heads_of_images,
    newton_inverse,
    normalised_newton_inverse,
    softmax_free_attention,
)
from ..ops.tokens import Size, merge_heads, split_heads
from .basic import GELU, Conv2d, LayerNorm, Linear, Module, Sequential, Tensor, convolve_to_tokens


class SoftmaxFreeAttention(Module):
    """Gaussian-kernel attention through landmarks, plus a depthwise convolution of v.

    Args:
        num_heads, head_dim: h and d.
        ratio: a convolution of this kernel and stride makes the landmarks, m = N / ratio^2.
        conv_kernel: size of the depthwise convolution, odd.
        normed, per_matrix_alpha: SOFT-Norm's inverse instead of SOFT's, and its own option.

    Input q and v [B, h, N, d] and size (H, W), both divisible by ratio; output [B, h, N, d].
    """

    def __init__(
        self,
        num_heads: int,
        head_dim: int,
        ratio: int,
        conv_kernel: int,
        normed: bool,
        per_matrix_alpha: bool,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.invert = newton_inverse
        if normed:
            self.invert = partial(normalised_newton_inverse, per_matrix_alpha=per_matrix_alpha)
        self.Qlandmark_op = Conv2d(head_dim, head_dim, ratio, stride=ratio, bias=False)
        self.Qnorm_act = Sequential(LayerNorm(head_dim, eps=1e-5), GELU())
        self.conv = Conv2d(
            num_heads, num_heads, conv_kernel, padding=conv_kernel // 2, groups=num_heads, bias=False
        )

    def forward(self, q: Tensor, v: Tensor, size: Size) -> Tensor:
        landmarks = self.Qnorm_act(convolve_to_tokens(self.Qlandmark_op, head_images(q, size)))
        landmarks = heads_of_images(landmarks, self.num_heads)  # [B, h, m, d]
        out = softmax_free_attention(q, landmarks, v, self.invert)
        return out + filter_heads(self.conv, v, size)


class MultiHeadSoftmaxFree(Module):
    """`SoftmaxFreeAttention` between projections; keys are the queries: [B, N, C], (H, W) -> [B, N, C]."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        ratio: int,
        conv_kernel: int,
        normed: bool = False,
        per_matrix_alpha: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.25
        self.W_q = Linear(dim, dim)
        self.W_v = Linear(dim, dim)
        self.attn = SoftmaxFreeAttention(
            num_heads=num_heads,
            head_dim=dim // num_heads,
            ratio=ratio,
            conv_kernel=conv_kernel,
            normed=normed,
            per_matrix_alpha=per_matrix_alpha,
        )
        self.ff = Linear(dim, dim)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        q = split_heads(self.W_q(x), self.num_heads)
        v = split_heads(self.W_v(x), self.num_heads)
        return self.ff(merge_heads(self.attn(q * self.scale, v, size)))
