"""Attention layers that read q, k and v from one Linear (DeiT, Swin).

B batch, N tokens, C channels, h heads, d = C / h, H x W token grid.
"""

from __future__ import annotations

from ..ops.inline_attention import FEATURE_MAPS, inline_attention, local_residual, softmax_attention
from ..ops.tokens import concat_tokens, mean_tokens, merge_heads, split_channels, split_heads
from ..utils.errors import unknown
from .basic import GELU, Conv1d, Dropout, Linear, Module, Sequential


class LocalFilter(Sequential):
    """Predicts one 3x3 filter per image and channel: the mean context [B, C] -> [B, C, 3, 3]."""

    def __init__(self, dim, num_heads):
        super().__init__(
            Conv1d(dim, dim, 1, groups=num_heads), GELU(), Conv1d(dim, 9 * dim, 1, groups=num_heads)
        )

    def forward(self, context):
        kernel = Sequential.forward(self, context.unsqueeze(-1))  # Paddle 2.6 traces no super()
        return kernel.reshape([-1, context.shape[1], 3, 3])


class InLineAttention(Module):
    """Injective linear attention with the local residual (InLine, NeurIPS 2024, section 4).

    Args:
        dim, num_heads: C and h.
        kernel_function: the feature map of q and k, a key of FEATURE_MAPS.
        num_prefix_tokens: leading tokens that attend but stand outside the H x W grid (class token).
    Input [B, prefix + H * W, C] and size (H, W); output as the input.
    """

    def __init__(
        self,
        dim,
        num_heads,
        qkv_bias=True,
        drop_rate=0.0,
        kernel_function="identity",
        num_prefix_tokens=0,
    ):
        super().__init__()
        if kernel_function not in FEATURE_MAPS:
            raise unknown("kernel_function", kernel_function, FEATURE_MAPS)
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.feature_map = FEATURE_MAPS[kernel_function]
        self.num_prefix_tokens = num_prefix_tokens
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = Dropout(drop_rate)
        self.residual = LocalFilter(dim, num_heads)

    def forward(self, x, size):
        prefix = self.num_prefix_tokens
        q, k, v = split_channels(self.qkv(x), 3)
        kernel = self.residual(mean_tokens(x))
        local = local_residual(v[:, prefix:], kernel, size)
        q, k, v = (split_heads(part, self.num_heads) for part in (q, k, v))
        out = merge_heads(inline_attention(self.feature_map(q), self.feature_map(k), v, self.scale))
        out = concat_tokens(out[:, :prefix], out[:, prefix:] + local) if prefix else out + local
        return self.proj_drop(self.proj(out))


class SoftmaxAttention(Module):
    """Plain multi-head softmax attention, the baseline: [B, N, C] -> [B, N, C].

    `bias` is added to the logits, see `softmax_attention`.
    """

    def __init__(self, dim, num_heads, qkv_bias=True, drop_rate=0.0):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = Dropout(drop_rate)

    def forward(self, x, size, bias=None):
        q, k, v = (split_heads(part, self.num_heads) for part in split_channels(self.qkv(x), 3))
        return self.proj_drop(self.proj(merge_heads(softmax_attention(q, k, v, self.scale, bias))))
