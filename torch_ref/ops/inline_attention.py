"""Injective linear attention and its local residual (InLine, NeurIPS 2024, sections 4.1 and 4.2).

B batch, h heads, N tokens, d head width, C = h * d channels, H x W token grid.

    weight_ij = scale / N * q_i . (k_j - k_mean) + 1 / N          rows sum to 1: subtraction, not division
    out_i     = sum_j weight_ij v_j
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .tokens import Size, map_to_tokens, mean_tokens, tokens_to_map


def _identity(x):
    return x


def _leaky_relu(x):
    return F.leaky_relu(x, 0.01)


def _exp(x):
    return torch.exp(0.2 * x)


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
    k_centred = (k - mean_tokens(k, keepdim=True)) * root
    v_centred = (v - v_mean) * root
    kv = torch.matmul(k_centred.transpose(2, 3), v_centred)  # [B, h, d, d]
    return torch.matmul(q, kv) + v_mean


def inline_attention_weights(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Return the same attention's weights [B, h, N, N], each row summing to 1: the definition, O(N^2)."""
    num_tokens = k.shape[2]
    k_centred = k - k.mean(dim=2, keepdim=True)
    return (torch.matmul(q, k_centred.transpose(2, 3)) * scale + 1) / num_tokens


def quadratic_inline_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """`inline_attention` straight from its definition: the truth that the linear form is tested against."""
    return torch.matmul(inline_attention_weights(q, k, scale), v)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
    """softmax(scale * q k^T + bias) v: [B, h, N, d] and [B, h, M, d] twice -> [B, h, N, d].

    `bias`: [h, N, M], or [G, h, N, M] for each G batch entries in turn (the G windows of one image). On a GPU by the
    framework's fused kernel, which keeps no [N, M], where `fuses` says so.
    """
    if fuses(q, bias):
        return fused_softmax_attention(q, k, v, scale)
    return torch.matmul(softmax_attention_weights(q, k, scale, bias), v)


def use_fused_attention(wanted: bool) -> None:
    """Let softmax attention on GPUs go through the framework's fused kernel, or not; at first it does."""
    _switches["fused"] = wanted


def uses_fused_attention() -> bool:
    """Return what `use_fused_attention` was last told: whether softmax attention on GPUs may go through it."""
    return _switches["fused"]


def fuses(q: Tensor, bias: Tensor | None = None) -> bool:
    """Whether attention with these queries [B, h, N, d] goes through the fused kernel: on a GPU that has it."""
    if not (_switches["fused"] and q.is_cuda):
        return False
    capability = torch.cuda.get_device_capability(q.device)
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
    return F.scaled_dot_product_attention(q, k, v)


def softmax_attention_weights(q: Tensor, k: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
    """Return the same attention's weights, softmax(scale * q k^T + bias), [B, h, N, M]."""
    logits = torch.matmul(q * scale, k.transpose(2, 3))
    if bias is not None:
        logits = (logits.reshape([-1, *bias.shape]) + bias).reshape([-1, *bias.shape[-3:]])
    return F.softmax(logits, dim=-1)


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
    batch, _, channels = v.shape
    if batch == 0:
        return v if onto is None else onto  # an empty batch, and no convolution has 0 groups
    out = F.conv2d(
        tokens_to_map(v[:, prefix:], size).reshape([1, batch * channels, *size]),
        kernel.reshape([batch * channels, 1, 3, 3]),
        padding=1,
        groups=batch * channels,
    )
    local = F.pad(map_to_tokens(out.reshape([batch, channels, *size])), (0, 0, prefix, 0))
    return local if onto is None else onto + local
