"""Injective linear attention and its local residual (InLine, NeurIPS 2024, sections 4.1 and 4.2).

B batch, h heads, N tokens, d head width, C = h * d channels, H x W token grid.

    weight_ij = scale / N * q_i . (k_j - k_mean) + 1 / N          rows sum to 1: subtraction, not division
    out_i     = sum_j weight_ij v_j
"""

from __future__ import annotations

from collections.abc import Callable

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from . import eager, eager_filters, kernels
from .tokens import (
    Size,
    centre_tokens,
    concat_tokens,
    map_to_tokens,
    mean_tokens,
    subtract_row,
    tokens_to_map,
)


def _identity(x):
    return x


def _leaky_relu(x):
    return F.leaky_relu(x, 0.01)


def _exp(x):
    return paddle.exp(0.2 * x)


FEATURE_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": _identity,
    "relu": F.relu,
    "leaky_relu": _leaky_relu,
    "exp": _exp,
}

_switches = {"fused": True}  # of the whole process


def inline_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Injective linear attention in O(N d^2).

    Centring the keys and the values leaves one d x d product. Its factor scale / N goes in before the sum
    over tokens, half of it on either side, so that float16 neither overflows nor underflows there.

    Args:
        q, k, v: [B, h, N, d].
        scale: usually d ** -0.5.

    Returns:
        [B, h, N, d]
    """
    root = (scale / k.shape[2]) ** 0.5
    v_mean = mean_tokens(v, keepdim=True)  # [B, h, 1, d]
    k_centred, v_centred = centre_tokens(k, root), centre_tokens(v, root)
    kv = paddle.matmul(k_centred, v_centred, transpose_x=True)  # [B, h, d, d]
    # Not `+ v_mean`: Paddle 3.3's oneDNN passes fuse a sum into the product before it, which then takes
    # forty times as long and, with the transpose of `merge_heads` fused as well, is wrong. A difference
    # is left alone.
    return subtract_row(paddle.matmul(q, kv), -v_mean)


def inline_attention_weights(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Return the same attention's weights [B, h, N, N], each row summing to 1: the definition, O(N^2)."""
    num_tokens = k.shape[2]
    k_centred = k - k.mean(axis=2, keepdim=True)
    # 1 is exact in float32, to which Paddle 2.6 rounds a number that is added; 1 / num_tokens is not
    return (paddle.matmul(q, k_centred, transpose_y=True) * scale + 1) / num_tokens


def quadratic_inline_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """`inline_attention` straight from its definition: the truth that the linear form is tested against."""
    return paddle.matmul(inline_attention_weights(q, k, scale), v)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
    """softmax(scale * q k^T + bias) v: [B, h, N, d] and [B, h, M, d] twice -> [B, h, N, d].

    `bias`: [h, N, M], or [G, h, N, M] for each G batch entries in turn (the G windows of one image). On a GPU by the
    framework's fused kernel, which keeps no [N, M], where `fuses` says so.
    """
    if fuses(q, bias):
        return fused_softmax_attention(q, k, v, scale)
    return paddle.matmul(softmax_attention_weights(q, k, scale, bias), v)


def use_fused_attention(wanted: bool) -> None:
    """Let softmax attention on GPUs go through the framework's fused kernel, or not; at first it does."""
    _switches["fused"] = wanted


def uses_fused_attention() -> bool:
    """Return what `use_fused_attention` was last told: whether softmax attention on GPUs may go through it."""
    return _switches["fused"]


def fuses(q: Tensor, bias: Tensor | None = None) -> bool:
    """Whether attention with these queries [B, h, N, d] goes through the fused kernel: on a GPU that has it."""
    if not (_switches["fused"] and paddle.in_dynamic_mode() and q.place.is_gpu_place()):
        return False
    capability = paddle.device.cuda.get_device_capability(q.place.gpu_device_id())
    return fused_kernel_takes(str(q.dtype), q.shape[-1], bias is not None, capability[0])


def fused_kernel_takes(dtype: str, head_dim: int, biased: bool, capability: int) -> bool:
    """Whether the fused kernel takes heads of this type and width on a GPU of this compute capability.

    Source: Dao, arXiv 2307.08691: 16-bit types, from compute capability 8; widths that need no padding, backward too.
    """
    half = dtype.rpartition(".")[2] in ("float16", "bfloat16")
    return half and not biased and head_dim % 8 == 0 and head_dim <= 128 and capability >= 8


def fused_softmax_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """`softmax_attention` without a bias by the framework's own operator, whose scale is d ** -0.5."""
    factor = scale * q.shape[-1] ** 0.5
    q = q if abs(factor - 1) < 1e-9 else q * factor
    q, k, v = (part.transpose([0, 2, 1, 3]) for part in (q, k, v))  # the kernel's layout
    return F.scaled_dot_product_attention(q, k, v).transpose([0, 2, 1, 3])


def softmax_attention_weights(q: Tensor, k: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
    """Return the same attention's weights, softmax(scale * q k^T + bias), [B, h, N, M]."""
    if bias is None and eager.suits(q):
        return eager.softmax(paddle.matmul(q, k, transpose_y=True), scale)
    logits = paddle.matmul(q * scale, k, transpose_y=True)
    if bias is not None:
        logits = (logits.reshape([-1, *bias.shape]) + bias).reshape([-1, *bias.shape[-3:]])
    return eager.softmax(logits) if eager.suits(logits) else F.softmax(logits, axis=-1)


def local_residual(
    v: Tensor, kernel: Tensor, size: Size, prefix: int = 0, onto: Tensor | None = None
) -> Tensor:
    """Filter each image and channel with its own 3x3 kernel, zero padding 1.

    Args:
        v: tokens [B, P + H * W, C].
        kernel: [B, C, 3, 3] (cross-correlation).
        size: the grid (H, W).
        prefix: P, tokens that are not on the grid, where the residual is 0.
        onto: [B, P + H * W, C], to which it is added.

    Returns:
        [B, P + H * W, C]
    """
    if eager.suits(v) and kernels.takes(v, kernel, onto):
        return eager_filters.filter_tokens(v, kernel, None, size, prefix, onto=onto)
    form = _filter_grouped if paddle.in_dynamic_mode() else _filter_shifted
    if prefix == 0:
        local = form(v, kernel, size)
    else:
        local = concat_tokens(paddle.zeros_like(v[:, :prefix]), form(v[:, prefix:], kernel, size))
    return local if onto is None else onto + local


def _filter_grouped(v: Tensor, kernel: Tensor, size: Size) -> Tensor:
    """One convolution with a group per image and channel: the fastest eagerly. Not for programs: it fixes
    the batch, and oneDNN in Paddle 3.3 takes a filter for a constant and keeps the first call's."""
    batch, _, channels = v.shape
    if batch == 0:
        return v  # an empty batch, and no convolution has 0 groups
    images = tokens_to_map(v, size).reshape([1, batch * channels, *size])
    kernel = kernel.reshape([batch * channels, 1, 3, 3])

    def convolve(images):
        return F.conv2d(images, kernel, padding=1, groups=batch * channels)

    out = eager_filters.depthwise_conv2d(convolve, images, kernel) if eager.suits(v) else convolve(images)
    return map_to_tokens(out.reshape([batch, channels, *size]))


def _filter_shifted(v: Tensor, kernel: Tensor, size: Size) -> Tensor:
    """Nine shifted products, summed, for programs of any batch. Channels stay last, which every engine
    multiplies fastest; and no `pad` operator, which paddle2onnx 2.1 exports with an undefined fill value."""
    (height, width), channels = size, v.shape[2]
    v = v.reshape([-1, height, width * channels])  # three dimensions: OpenVINO takes the last of four for W
    row = paddle.zeros_like(v[:, :1])
    v = paddle.concat([row, v, row], axis=1)
    column = paddle.zeros_like(v[:, :, :channels])
    v = paddle.concat([column, v, column], axis=2)
    weights = paddle.split(kernel.reshape([-1, channels, 9]).transpose([0, 2, 1]), 9, axis=1)
    taps = []
    for y in range(3):
        for x in range(3):
            tap = v[:, y : y + height, x * channels : (x + width) * channels]
            taps.append(tap.reshape([-1, height * width, channels]) * weights[3 * y + x])
    return paddle.add_n(taps)
