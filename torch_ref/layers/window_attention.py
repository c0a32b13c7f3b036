"""Attention inside windows of the token grid (Swin, CSwin).

B batch, N tokens of the H x W grid, C channels, h heads. Sizes and windows are pairs (height, width).
"""

from __future__ import annotations

from ..ops.inline_attention import FEATURE_MAPS, inline_attention, local_residual, softmax_attention
from ..ops.tokens import map_to_tokens, merge_heads, split_heads, tokens_to_map
from ..ops.windows import cut_windows, join_windows, relative_position_bias, relative_position_index
from ..utils.errors import unknown
from .attention import LocalFilter, SoftmaxAttention
from .basic import Conv2d, Module, token_parameter


class WindowSoftmaxAttention(SoftmaxAttention):
    """Softmax attention inside w x w windows, with a learned relative position bias (Swin, section 3.2).

    Input [B * windows, w * w, C] and, where windows are shifted, the mask [windows, w * w, w * w] that is
    added to the logits; output as the input.
    """

    def __init__(self, dim, num_heads, window, qkv_bias=True, drop_rate=0.0):
        super().__init__(dim, num_heads, qkv_bias, drop_rate)
        self.relative_position_bias_table = token_parameter((2 * window - 1) ** 2, num_heads)
        self.register_buffer("relative_position_index", relative_position_index(window))

    def forward(self, x, size, mask=None):
        bias = relative_position_bias(self.relative_position_bias_table, self.relative_position_index)
        if mask is not None:
            bias = bias + mask.unsqueeze(1)
        return SoftmaxAttention.forward(self, x, size, bias)  # Paddle 2.6 traces no super()


class StripeSoftmaxAttention(Module):
    """Softmax attention inside windows of the grid, with LePE: a depthwise 3x3 convolution of the values,
    zero padded at the window's border (CSwin, CVPR 2022, section 3.3).

    Args:
        dim, num_heads: C and h; size, window: the grid and its windows, which divide it.
    Input q, k, v [B, N, C] and the context [B, C], which it does not use; output [B, N, C].
    """

    def __init__(self, dim, num_heads, size, window):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.size = size
        self.window = window
        self.get_v = Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, q, k, v, context):
        q, k, v = (cut_windows(part, self.size, self.window) for part in (q, k, v))
        positions = map_to_tokens(self.get_v(tokens_to_map(v, self.window)))
        q, k, v = (split_heads(part, self.num_heads) for part in (q, k, v))
        out = merge_heads(softmax_attention(q, k, v, self.scale)) + positions
        return join_windows(out, self.size, self.window)


class GridInLineAttention(Module):
    """Injective linear attention over the whole grid, with the local residual and LePE.

    Args:
        dim, num_heads, size: C, h and the grid.
        kernel_function: the feature map of q and k, a key of FEATURE_MAPS.
    Input q, k, v [B, N, C] and the context [B, C] that predicts the residual's filter; output [B, N, C].
    """

    def __init__(self, dim, num_heads, size, kernel_function="identity"):
        super().__init__()
        if kernel_function not in FEATURE_MAPS:
            raise unknown("kernel_function", kernel_function, FEATURE_MAPS)
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.size = size
        self.feature_map = FEATURE_MAPS[kernel_function]
        self.get_v = Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.residual = LocalFilter(dim, num_heads)

    def forward(self, q, k, v, context):
        local = local_residual(v, self.residual(context), self.size)
        positions = map_to_tokens(self.get_v(tokens_to_map(v, self.size)))
        q, k, v = (split_heads(part, self.num_heads) for part in (q, k, v))
        out = inline_attention(self.feature_map(q), self.feature_map(k), v, self.scale)
        return merge_heads(out) + local + positions
