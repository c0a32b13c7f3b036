"""Linear attention whose weights are divided by their sum: features of q and k, and one d x d product.

B batch, h heads, N tokens, d head width; q, k and v are heads [B, h, N, d], rows of weights [B, h, N, N].

    w_ij = f(q_i) . f(k_j) / (f(q_i) . sum_l f(k_l) + eps)

Sums over tokens are taken as means (numerator, denominator and eps are all divided by N), which float16 holds for
any N: half of 1 / N stands on either side of a product k^T v.
"""

from __future__ import annotations

from .verbs import Tensor, elu1, guarded, matmul, matmul_nt, matmul_tn, mean_tokens, relu, sum_last

RELU_EPS, ELU_EPS = 1e-15, 1e-6


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
