"""Attention as a flow from sources to sinks that conserves what flows (Flowformer, Wu et al., ICML 2022).

B batch, h heads, N tokens, d head width. Q = sigmoid(q), K = sigmoid(k), e = 1e-6 on every channel:

    in_i   = 1 / ((Q_i + e) . (sum K + e) + e)               out_j    = 1 / ((K_j + e) . (sum Q + e) + e)
    sink_i = (Q_i + e) . (sum_j K_j out_j + e) + e           source_j = (K_j + e) . (sum_i Q_i in_i + e) + e, in [-1, 1]
    w_ij   = in_i sigmoid(sink_i) (Q_i . K_j) N softmax_j(source_j)

Sums are written as means, N in_i and N out_j, and e beside a sum as e / N: a sum over tokens passes float16's range.
"""

from __future__ import annotations

from .divided import mean_outer
from .verbs import (
    Tensor,
    at_least,
    at_least_float32,
    at_most,
    matmul,
    matmul_nt,
    mean_tokens,
    reciprocal,
    sigmoid,
    softmax_tokens,
    sum_last,
    sum_tokens,
    typed_like,
    without_autocast,
)

EPS = 1e-6


def _flow(x: Tensor, total: Tensor, eps: float, beside: float) -> Tensor:
    """(x + e) . (total + eps) + beside: [B, h, N, d], [B, h, 1, d] -> [B, h, N, 1]."""
    return matmul_nt(x + EPS, total + eps) + beside


def flow_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Flow attention of heads [B, h, N, d] -> [B, h, N, d], linear in N; all but its products with v in float32."""
    num_tokens = k.shape[2]
    each = EPS / num_tokens
    with without_autocast(v):
        q, k = sigmoid(at_least_float32(q)), sigmoid(at_least_float32(k))
        incoming = reciprocal(_flow(q, mean_tokens(k, keepdim=True), each, each))  # N in
        outgoing = reciprocal(_flow(k, mean_tokens(q, keepdim=True), each, each))  # N out
        sink = _flow(q, mean_tokens(k * outgoing, keepdim=True), EPS, EPS)
        source = _flow(k, mean_tokens(q * incoming, keepdim=True), EPS, EPS)
        competition = softmax_tokens(at_most(at_least(source, -1.0), 1.0)) * num_tokens
    kv = mean_outer(typed_like(k, v), typed_like(v * competition, v))
    return matmul(typed_like(q, v), kv) * typed_like(incoming * sigmoid(sink), v)


def flow_rows(q: Tensor, k: Tensor) -> Tensor:
    """Return the weights of `flow_attention`, O(N^2)."""
    q, k = sigmoid(at_least_float32(q)), sigmoid(at_least_float32(k))
    incoming = reciprocal(sum_last((q + EPS) * (sum_tokens(k) + EPS)) + EPS)  # [B, h, N, 1]
    outgoing = reciprocal(sum_last((k + EPS) * (sum_tokens(q) + EPS)) + EPS)
    sink = sum_last((q + EPS) * (sum_tokens(k * outgoing) + EPS)) + EPS
    source = sum_last((k + EPS) * (sum_tokens(q * incoming) + EPS)) + EPS
    competition = k.shape[2] * softmax_tokens(at_most(at_least(source, -1.0), 1.0))
    return incoming * sigmoid(sink) * matmul_nt(q, k * competition)
