"""Linear attention whose weights are divided by their sum: features of q and k, and one d x d product.

B batch, h heads, N tokens, d head width; q, k and v are heads [B, h, N, d], rows of weights [B, h, N, N].

    w_ij = f(q_i) . f(k_j) / (f(q_i) . sum_l f(k_l) + eps)

Sums over tokens are taken as means (numerator, denominator and eps are all divided by N), which float16 holds for
any N: half of 1 / N stands on either side of a product k^T v.
"""

from __future__ import annotations

import math

import numpy as np

from .verbs import (
    Tensor,
    at_least,
    constant,
    elu1,
    guarded,
    guarded_least,
    join_last,
    matmul,
    matmul_nt,
    matmul_tn,
    mean_tokens,
    relu,
    softmax_last,
    sum_last,
)

RELU_EPS, ELU_EPS, HEDGEHOG_EPS = 1e-15, 1e-6, 1e-12
COSFORMER_LEAST = 1e-6  # of a sum of weights
L2_BOUND = 100.0  # on a sum of weights, from which on they are divided by it


def mean_outer(k: Tensor, v: Tensor) -> Tensor:
    """Return the mean over tokens of k_j v_j^T: [B, h, N, d], [B, h, N, e] -> [B, h, d, e]."""
    root = k.shape[2] ** -0.5
    return matmul_tn(k * root, v * root)


def divided_attention(q: Tensor, k: Tensor, v: Tensor, eps: float) -> Tensor:
    """Attention of features q and k, all at least 0, with values v -> [B, h, N, d]; eps beside the sum."""
    denominator = guarded(matmul_nt(q, mean_tokens(k, keepdim=True)), eps / k.shape[2])  # [B, h, N, 1]
    return matmul(q, mean_outer(k, v)) / denominator


def divided_rows(q: Tensor, k: Tensor, eps: float) -> Tensor:
    """Return the weights of `divided_attention`, O(N^2)."""
    scores = matmul_nt(q, k)
    return scores / (sum_last(scores) + eps)


def linear_relu_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Linear attention with ReLU (EfficientViT, Cai et al., ICCV 2023); a query without a positive channel gives 0."""
    return divided_attention(relu(q), relu(k), v, RELU_EPS)


def linear_relu_rows(q: Tensor, k: Tensor) -> Tensor:
    """Return the weights of `linear_relu_attention`, O(N^2)."""
    return divided_rows(relu(q), relu(k), RELU_EPS)


def linear_elu_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Linear attention with elu + 1 (Katharopoulos et al., ICML 2020)."""
    return divided_attention(elu1(q), elu1(k), v, ELU_EPS)


def linear_elu_rows(q: Tensor, k: Tensor) -> Tensor:
    """Return the weights of `linear_elu_attention`, O(N^2)."""
    return divided_rows(elu1(q), elu1(k), ELU_EPS)


def hedgehog_features(x: Tensor, matrix: Tensor) -> Tensor:
    """Softmax of x W beside softmax of -x W: [B, h, N, d], a matrix [h, d, d] for each head -> [B, h, N, 2 d]."""
    x = matmul(x, matrix.unsqueeze(0))  # Paddle has no gradient of a product of four dimensions with three
    return at_least(join_last(softmax_last(x), softmax_last(-x)), HEDGEHOG_EPS)


def hedgehog_attention(q: Tensor, k: Tensor, v: Tensor, q_matrix: Tensor, k_matrix: Tensor) -> Tensor:
    """Linear attention with learned softmax features (Hedgehog, Zhang et al., ICLR 2024); matrices [h, d, d]."""
    return divided_attention(hedgehog_features(q, q_matrix), hedgehog_features(k, k_matrix), v, HEDGEHOG_EPS)


def hedgehog_rows(q: Tensor, k: Tensor, q_matrix: Tensor, k_matrix: Tensor) -> Tensor:
    """Return the weights of `hedgehog_attention`, O(N^2)."""
    return divided_rows(hedgehog_features(q, q_matrix), hedgehog_features(k, k_matrix), HEDGEHOG_EPS)


def l2_attention(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    """ReLU attention whose division begins at a bound (L2ViT, Zheng, 2025).

        w_ij = temperature relu(q_i) . relu(k_j) / max(100, relu(q_i) . sum_l relu(k_l))

    Args:
        q, k, v: [B, h, N, d].
        temperature: [h, 1, 1].
    """
    q, k = relu(q), relu(k)
    denominator = at_least(matmul_nt(q, mean_tokens(k, keepdim=True)), L2_BOUND / k.shape[2])
    return matmul(q, mean_outer(k, v)) * (temperature / denominator)


def l2_rows(q: Tensor, k: Tensor, temperature: Tensor) -> Tensor:
    """Return the weights of `l2_attention`, O(N^2)."""
    scores = matmul_nt(relu(q), relu(k))
    return temperature * scores / at_least(sum_last(scores), L2_BOUND)


def token_angles(num_tokens: int) -> np.ndarray:
    """Return b_i = pi i / (2 N) for the tokens i = 1 .. N of a sequence, [N, 1]."""
    return np.arange(1, num_tokens + 1)[:, None] * (math.pi / (2 * num_tokens))


def cosformer_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """ReLU attention that fades along the sequence (cosFormer, Qin et al., ICLR 2022).

    w_ij = (Q_i . K_j) cos(b_i - b_j) / max(1e-6, sum_l (Q_i . K_l) cos(b_i - b_l)),     Q = relu(q), K = relu(k)
    """
    angles = token_angles(k.shape[2])
    sine, cosine = constant(np.sin(angles), k), constant(np.cos(angles), k)
    q, k = relu(q), relu(k)
    q, k = join_last(q * sine, q * cosine), join_last(k * sine, k * cosine)
    denominator = matmul_nt(q, mean_tokens(k, keepdim=True))
    return matmul(q, mean_outer(k, v)) / guarded_least(denominator, COSFORMER_LEAST / k.shape[2])


def cosformer_rows(q: Tensor, k: Tensor) -> Tensor:
    """Return the weights of `cosformer_attention`, O(N^2)."""
    angles = token_angles(k.shape[2])
    scores = matmul_nt(relu(q), relu(k)) * constant(np.cos(angles - angles.T), k)
    return scores / at_least(sum_last(scores), COSFORMER_LEAST)
