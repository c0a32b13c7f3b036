"""Softmax attention through landmarks (Nystromformer, Xiong et al., AAAI 2021).

B batch, h heads, N tokens, m landmarks, d head width. With q and k multiplied by d^(-1/4) and landmarks Ql, Kl:

    F = softmax(q Kl^T) [N, m],   G = softmax(Ql Kl^T) [m, m],   J = softmax(Ql k^T) [m, N],     w = F inv(G) J

`inv` is six steps of an iteration of third order, whose gradient is that of the steps. All of it runs in float32 at
least, whatever autocasting says.
"""

from __future__ import annotations

import numpy as np

from .verbs import (
    Tensor,
    at_least_float32,
    constant,
    join_tokens,
    largest,
    matmul,
    matmul_nt,
    softmax_last,
    sum_tokens,
    swap_last,
    typed_like,
    without_autocast,
)

STEPS = 6


def landmarks_of(x: Tensor, count: int) -> Tensor:
    """Return the means of m segments of the sequence: [B, h, N, d] -> [B, h, m, d].

    With r = floor(N / m), the first m (r + 1) - N segments have r tokens, the others r + 1.
    """
    heads, num_tokens, width = x.shape[1:]
    size = num_tokens // count
    short = count * (size + 1) - num_tokens
    border, parts = short * size, []
    for part, segments, tokens in (
        (x[:, :, :border], short, size),
        (x[:, :, border:], count - short, size + 1),
    ):
        if segments:
            parts.append(sum_tokens(part.reshape([-1, heads, segments, tokens, width])) / tokens)
    parts = [part.reshape([-1, heads, part.shape[2], width]) for part in parts]
    return parts[0] if len(parts) == 1 else join_tokens(*parts)


def iterated_inverse(matrix: Tensor) -> Tensor:
    """Approximate the inverse of G [B, h, m, m], whose entries are at least 0.

        Z = G^T / (largest column sum of G),  then 6 times Z <- Z / 4 (13 I - G Z (15 I - G Z (7 I - G Z)))

    The largest column sum is each matrix's own, so that no image depends on its batch.
    """
    eye = constant(np.eye(matrix.shape[3]), matrix)
    inverse = swap_last(matrix) / largest(sum_tokens(matrix), [2, 3])
    for _ in range(STEPS):
        product = matmul(matrix, inverse)
        inner = 15 * eye - matmul(product, 7 * eye - product)
        inverse = matmul(0.25 * inverse, 13 * eye - matmul(product, inner))
    return inverse


def _factors(q: Tensor, k: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    root = q.shape[3] ** -0.25
    q, k = at_least_float32(q) * root, at_least_float32(k) * root
    q_marks, k_marks = landmarks_of(q, count), landmarks_of(k, count)
    inverse = iterated_inverse(softmax_last(matmul_nt(q_marks, k_marks)))
    return softmax_last(matmul_nt(q, k_marks)), inverse, softmax_last(matmul_nt(q_marks, k))


def nystrom_attention(q: Tensor, k: Tensor, v: Tensor, num_landmarks: int) -> Tensor:
    """Attention of heads [B, h, N, d] through so many landmarks, at most N -> [B, h, N, d]; O(N m d)."""
    with without_autocast(v):
        from_tokens, inverse, to_tokens = _factors(q, k, num_landmarks)
        gathered = matmul(inverse, matmul(to_tokens, at_least_float32(v)))  # [B, h, m, d]
        return typed_like(matmul(from_tokens, gathered), v)


def nystrom_rows(q: Tensor, k: Tensor, num_landmarks: int) -> Tensor:
    """Return the weights of `nystrom_attention`, O(N^2)."""
    with without_autocast(k):
        from_tokens, inverse, to_tokens = _factors(q, k, num_landmarks)
        return matmul(matmul(from_tokens, inverse), to_tokens)
