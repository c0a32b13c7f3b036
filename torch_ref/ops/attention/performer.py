"""Linear attention with positive random features (Performer, Choromanski et al., ICLR 2021).

B batch, h heads, N tokens, d head width, m features. M [m, d] are the random directions.

    g(t) = M t d^(-1/4),   n(t) = |t|^2 d^(-1/2) / 2
    f(t) = m^(-1/2) (exp(g(t) - n(t) - largest g) + 1e-4)
    w_ij = f_q(q_i) . f_k(k_j) / sum_l f_q(q_i) . f_k(k_l)

The largest g is the query's own, and one for all keys of an image and head; both are constants for the gradient.
Everything is computed in float32 at least, for the smallest features are far below float16's numbers.
"""

from __future__ import annotations

from ...utils.errors import UserError
from .verbs import (
    Tensor,
    at_least_float32,
    exp,
    largest,
    length,
    matmul,
    matmul_nt,
    matmul_tn,
    mean_tokens,
    orthogonal,
    plus,
    random_normal,
    sum_last,
    typed_like,
    without_autocast,
)

FEATURE_EPS = 1e-4
LARGEST_PROJECTION = 1 << 20  # numbers: a claim of a file must not fill the memory


def random_directions(num_features: int, head_dim: int) -> Tensor:
    """Draw M [m, d]: rows of random orthogonal matrices, each made as long as a standard normal vector.

    Raises:
        UserError: more numbers than any sensible model has.
    """
    if max(num_features, head_dim) * head_dim > LARGEST_PROJECTION:
        raise UserError(
            f"{num_features} random features of heads of width {head_dim} are more than {LARGEST_PROJECTION} numbers; "
            "use fewer features, or more heads"
        )
    blocks = orthogonal(random_normal(-(-num_features // head_dim), head_dim, head_dim))
    return blocks.reshape([-1, head_dim])[:num_features] * length(random_normal(num_features, head_dim))


def performer_features(x: Tensor, directions: Tensor, dims: list[int]) -> Tensor:
    """Return f of [B, h, N, d] for directions [m, d] -> [B, h, N, m]; the largest g is taken over `dims`."""
    root = x.shape[-1] ** -0.25
    scores = matmul_nt(x * root, directions)
    lengths = 0.5 * root**2 * sum_last(x * x)
    features = plus(exp(scores - (lengths + largest(scores.detach(), dims))), FEATURE_EPS)
    return features * directions.shape[0] ** -0.5


def _features(q: Tensor, k: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    directions = at_least_float32(directions)
    return (
        performer_features(at_least_float32(q), directions, [3]),
        performer_features(at_least_float32(k), directions, [2, 3]),
    )


def performer_attention(q: Tensor, k: Tensor, v: Tensor, directions: Tensor) -> Tensor:
    """Attention with the features of q and k: heads [B, h, N, d] and M [m, d] -> [B, h, N, d]."""
    with without_autocast(v):
        features, key_features = _features(q, k, directions)
        kv = matmul_tn(key_features, at_least_float32(v))  # [B, h, m, d]
        total = mean_tokens(key_features, keepdim=True) * k.shape[2]
        return typed_like(matmul(features, kv) / matmul_nt(features, total), v)


def performer_rows(q: Tensor, k: Tensor, directions: Tensor) -> Tensor:
    """Return the weights of `performer_attention`, O(N^2)."""
    with without_autocast(k):
        scores = matmul_nt(*_features(q, k, directions))
        return scores / sum_last(scores)
