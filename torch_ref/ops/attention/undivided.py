"""Forms of attention whose weights are not divided by their sum.

B batch, h heads, N tokens, d head width, C = h * d; q, k and v are heads [B, h, N, d], rows of weights [B, h, N, N].
"""

from __future__ import annotations

import math

import numpy as np

from .divided import mean_outer
from .verbs import (
    Tensor,
    at_least_float32,
    constant,
    elu1,
    length,
    length_of_columns,
    matmul,
    matmul_nt,
    matmul_tn,
    mean_tokens,
    reciprocal,
    relu,
    softmax_last,
    softmax_tokens,
    swap_last,
    times_row,
    typed_like,
)

NORM_EPS = 1e-8


def unit(x: Tensor, least: float = 1e-12) -> Tensor:
    """x / max(|x|, least), of the last dimension, in x's type."""
    return typed_like(at_least_float32(x) / length(x, least), x)


def efficient_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax of q over channels, of k over tokens (Shen et al., WACV 2021): w_ij = a_i . b_j, rows sum to 1.

    b is about 1 / N, which float16 cannot hold: half of it stands on either side of b v^T.
    """
    root = k.shape[2] ** 0.5
    kv = matmul_tn(typed_like(softmax_tokens(k) * root, v), v / root)
    # (N b) (v / N), as sqrt(N) b and v / sqrt(N): both are of float16's size
    return matmul(softmax_last(q), kv)


def efficient_rows(q: Tensor, k: Tensor) -> Tensor:
    """Return the weights of `efficient_attention`, O(N^2)."""
    return matmul_nt(softmax_last(q), softmax_tokens(k))


def hydra_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One head per channel (Hydra attention, Bolya et al., 2022): tokens [B, N, C] three times -> [B, N, C].

    out_i = q_i / |q_i| * sum_j k_j / |k_j| * v_j          elementwise; norms over C
    """
    full = at_least_float32(k) / length(k) * at_least_float32(v)
    total = mean_tokens(full, keepdim=True) * k.shape[1]  # [B, 1, C]
    return typed_like(times_row(at_least_float32(q), total) / length(q), v)


def hydra_rows(q: Tensor, k: Tensor) -> Tensor:
    """Return the weights of `hydra_attention` for each channel, w_ijc, [B, C, N, N], O(N^2)."""
    q, k = (swap_last(unit(x)).unsqueeze(-1) for x in (q, k))  # [B, C, N, 1]
    return matmul_nt(q, k)


def angular_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Linear angular attention (Castling-ViT, You et al., CVPR 2023), without its convolution.

        u_i = v_i / 2 + q^_i^T sum_j k^_j v_j^T / pi,   out_i = u_i / |u_i|          q^ = q / |q|, k^ = k / |k|

    u grows with N; 1 / sqrt(N) of it has the same direction, and float16's size.
    """
    root = k.shape[2] ** -0.5
    kv = matmul_tn(unit(k) * (root / math.pi), v)
    # a difference, as in `inline_attention`
    return unit(matmul(unit(q), kv) - v * (-0.5 * root), 1e-12 * root)


def angular_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the weights of `angular_attention`, O(N^2)."""
    scores = matmul_nt(unit(q), unit(k)) / math.pi + constant(0.5 * np.eye(k.shape[2]), k)
    return scores / length(matmul(scores, v))


def norm_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Linear attention with elu + 1 and no division (TransNormer, Qin et al., EMNLP 2022): the mean over tokens.

        out_i = elu1(q_i)^T (1 / N) sum_j elu1(k_j) v_j^T

    `normalise_channels` is to follow, which makes a sum of the mean.
    """
    return matmul(elu1(q), mean_outer(elu1(k), v))


def normalise_channels(x: Tensor) -> Tensor:
    """N x / (|N x| / sqrt(C) + 1e-8): merged heads [B, N, C] of `norm_attention`; norm over C, in float32 at least."""
    num_tokens, channels = x.shape[1], x.shape[2]
    full = at_least_float32(x)
    return typed_like(full / (length(full, 1e-15) * channels**-0.5 + NORM_EPS / num_tokens), x)


def norm_rows(q: Tensor, k: Tensor) -> Tensor:
    """Return the weights of `norm_attention`'s sum, elu1(q_i) . elu1(k_j), before the norm, O(N^2)."""
    return matmul_nt(elu1(q), elu1(k))


def channel_attention(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    """Attention between channels (XCiT, El-Nouby et al., NeurIPS 2021).

        A = softmax over c' of temperature q^_c . k^_c'  [d, d],   out_ic = sum_c' A_cc' v_ic'

    Args:
        q, k, v: [B, h, N, d]; q^ and k^ have columns over the tokens of length 1.
        temperature: [h, 1, 1].
    """
    q, k = (typed_like(times_row(at_least_float32(x), reciprocal(length_of_columns(x))), x) for x in (q, k))
    return matmul_nt(v, softmax_last(matmul_tn(q, k) * temperature))


def channel_attention_by_channels(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    """`channel_attention` straight from its definition, heads turned into d tokens of N channels."""
    q, k, v = (swap_last(x) for x in (q, k, v))
    out = matmul(softmax_last(matmul_nt(unit(q), unit(k)) * temperature), v)
    return swap_last(out)


def relu_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, power: int) -> Tensor:
    """relu(scale q_i . k_j)^power / N in place of softmax (Wortsman et al., 2023): O(N^2) like it.

    Parts of 1 / N are taken in before the power and beside v, so that float16 holds the squares.
    """
    num_tokens = k.shape[2]
    scores = relu(matmul_nt(q * (scale * num_tokens ** (-0.5 / power)), k))
    return matmul(scores if power == 1 else scores * scores, v * num_tokens**-0.5)


def relu_rows(q: Tensor, k: Tensor, scale: float, power: int) -> Tensor:
    """Return the weights of `relu_attention`."""
    return relu(matmul_nt(q, k) * scale) ** power / k.shape[2]
