"""Linear attention whose weights are divided by N times their mean and an eps, which decides where rows are short.

B batch, h heads, N tokens, f feature width, d head width; q and k are features [B, h, N, f], v is [B, h, N, d].

    w_ij = turned q_i . turned k_j / (N (q_i . mean_l k_l + eps))

`turned` are the features themselves or, where an attention has rotary positions, the features turned by them. What is
divided by stands in float32 at least: there the eps is exact, and no mean of a float16 is 0.
"""

from __future__ import annotations

from .divided import mean_outer
from .verbs import (
    Tensor,
    at_least_float32,
    matmul,
    matmul_nt,
    mean_tokens,
    plus,
    reciprocal,
    softmax_tokens,
    sum_last,
    typed_like,
    without_autocast,
)

EPS = 1e-6  # of all the forms here
Pair = tuple[Tensor, Tensor]


def mean_similarity(q: Tensor, k: Tensor) -> Tensor:
    """q_i . mean_l k_l in float32 at least: [B, h, N, f] twice -> [B, h, N, 1]."""
    with without_autocast(q):
        return matmul_nt(at_least_float32(q), mean_tokens(at_least_float32(k), keepdim=True))


def normalised_attention(q: Tensor, k: Tensor, v: Tensor, turned: Pair | None = None) -> Tensor:
    """Return the outputs [B, h, N, d] in O(N f d); `turned`: q and k in the numerator, where they differ."""
    turned_q, turned_k = turned or (q, k)
    out = matmul(turned_q, mean_outer(turned_k, v))
    with without_autocast(q):
        return typed_like(at_least_float32(out) / plus(mean_similarity(q, k), EPS), v)


def normalised_rows(q: Tensor, k: Tensor, turned: Pair | None = None) -> Tensor:
    """Return the weights [B, h, N, N] of `normalised_attention`: the definition, O(N^2)."""
    turned_q, turned_k = turned or (q, k)
    return matmul_nt(turned_q, turned_k) / (sum_last(matmul_nt(q, k)) + k.shape[2] * EPS)


def mala_attention(q: Tensor, k: Tensor, v: Tensor, turned: Pair, scale: float) -> Tensor:
    """Magnitude-aware linear attention (Fan et al., ICCV 2025), of features elu + 1, in O(N d^2).

        z_i = scale q_i . mean_l k_l
        w_ij = scale / N turned q_i . turned k_j (1 + 1 / (z_i + 1e-6)) - z_i / N

    Args:
        q, k, v: [B, h, N, d].
        turned: q and k with rotary positions; without, the same two.
        scale: usually d ** -0.5.

    Returns:
        [B, h, N, d]
    """
    out = matmul(turned[0], mean_outer(turned[1] * scale, v))
    with without_autocast(v):
        z = scale * mean_similarity(q, k)
        v_mean = mean_tokens(at_least_float32(v), keepdim=True)
        return typed_like(at_least_float32(out) * (1 + reciprocal(plus(z, EPS))) - matmul(z, v_mean), v)


def mala_rows(q: Tensor, k: Tensor, turned: Pair, scale: float) -> Tensor:
    """Return the weights [B, h, N, N] of `mala_attention`, negative ones among them: the definition, O(N^2)."""
    num_tokens = k.shape[2]
    z = scale / num_tokens * sum_last(matmul_nt(q, k))
    return (scale * matmul_nt(*turned) * (1 + 1 / (z + EPS)) - z) / num_tokens


def augmented_keys(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """RALA's keys (Fan et al., CVPR 2025), N e_j k_j with e the softmax over tokens of scale mean_i q_i . k_j.

    q and k: features elu + 1, [B, h, N, d] -> [B, h, N, d].
    """
    with without_autocast(k):
        query = mean_tokens(at_least_float32(q), keepdim=True)  # [B, h, 1, d]
        keys = at_least_float32(k)
        shares = softmax_tokens(scale * matmul_nt(keys, query))  # [B, h, N, 1]
        return typed_like(keys * (k.shape[2] * shares), k)
