"""Bidirectional gated linear attention (ViG, 2024; gated linear attention: Yang et al., 2023), in chunks.

B batch, h heads, N tokens in sequence order, f key width, d value width, c tokens of a chunk, n = N / c chunks,
M = B * h. G and R are log gates, never positive, of the forward and the backward direction, [B, h, N, f]:

    w_ij = scale / 2 sum_m q_im k_jm exp(sum_{j < l <= i} G_lm)    for j <= i
         + scale / 2 sum_m q_im k_jm exp(sum_{i <= l < j} R_lm)    for j >= i      so a token counts itself twice

Inside a chunk the exponents of all pairs of tokens are made. Between chunks two states of f x d numbers carry what came
before and what comes after; they are joined over pairs of chunks, pairs of pairs and so on: log2(n) steps, O(N), and no
loop over tokens. Every exponent is a sum of log gates, none of which is positive, so that nothing overflows.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .verbs import (
    Tensor,
    as_written,
    at_least_float32,
    constant,
    exp,
    join,
    join_last,
    matmul,
    matmul_nt,
    matmul_tn,
    split_last,
    stack,
    swap_last,
    typed_like,
    where,
    without_autocast,
    zeros_like,
)

CHUNK = 8  # tokens: the pairs of a chunk take N c f numbers, the states 2 N f d / c


def gated_attention(
    q: Tensor, k: Tensor, v: Tensor, forward: Tensor, backward: Tensor, scale: float
) -> Tensor:
    """Bidirectional gated linear attention in O(N f (c + d)), in float32 at least.

    Args:
        q, k: [B, h, N, f].
        v: [B, h, N, d].
        forward, backward: the log gates G and R, [B, h, N, f].
        scale: usually f ** -0.5.

    Returns:
        [B, h, N, d]
    """
    _, num_heads, num_tokens, width = v.shape
    chunk = min(CHUNK, num_tokens)
    with without_autocast(v):
        q, k, values, forward, backward = (at_least_float32(x) for x in (q, k, v, forward, backward))
        values = _chunks(values, chunk)  # [M, n, c, d]
        q, k, forward, backward = (
            swap_last(_chunks(x, chunk)) for x in (q * (scale / 2), k, forward, backward)
        )  # [M, n, f, c]
        sums = matmul(join_last(forward, backward), constant(exponent_sums(chunk), values))
        pairs, q_before, k_before, q_behind, k_behind, before, behind = split_last(
            sums, [chunk * chunk, chunk, chunk, chunk, chunk, 1, 1]
        )
        # every q_i and k_j beside one another, by products with constants: broadcasting is slow in Paddle
        q_pairs, k_pairs = (
            matmul(x, constant(spread, values)) for x, spread in zip((q, k), pair_spreads(chunk))
        )
        weights = (exp(pairs) * q_pairs * k_pairs).sum(2)  # [M, n, c^2]
        out = matmul(weights.reshape([-1, weights.shape[1], chunk, chunk]), values)  # [M, n, c, d]
        for q_sums, k_sums, through, reverse in (
            (q_before, k_before, before, False),
            (q_behind, k_behind, behind, True),
        ):
            states = _states_before(matmul(k * exp(k_sums), values), through, reverse)  # [M, n, f, d]
            out = out + matmul_tn(q * exp(q_sums), states)
        out = out.reshape([-1, num_heads, out.shape[1] * chunk, width])
        return typed_like(out[:, :, :num_tokens], v)


def _chunks(x, chunk):
    """[B, h, N, f] -> [B * h, n, c, f], the last chunk filled up with zeros: keys and log gates that do nothing."""
    missing = -x.shape[2] % chunk
    if missing:
        x = join(2, x, zeros_like(x[:, :, :missing]))
    return x.reshape([-1, x.shape[2] // chunk, chunk, x.shape[3]])


@cache
def exponent_sums(chunk: int) -> np.ndarray:
    """Return the matrix [2 c, c^2 + 4 c + 2] of zeros and ones that sums G and R of a chunk's tokens to exponents.

    Its columns: of the pairs of i and j; of G up to i; of G behind j; of R from i on; of R before j; of all G; of all
    R.
    """
    t, i, j = np.ogrid[:chunk, :chunk, :chunk]
    token, other = t[:, :, 0], i[:, :, 0]  # [c, 1] and [1, c]
    every, none = np.ones((chunk, 1), bool), np.zeros((chunk, 1), bool)
    nothing = np.zeros((chunk, chunk), bool)
    of_g = [
        ((j < t) & (t <= i)).reshape(chunk, -1),
        token <= other,
        token > other,
        nothing,
        nothing,
        every,
        none,
    ]
    of_r = [
        ((i <= t) & (t < j)).reshape(chunk, -1),
        nothing,
        nothing,
        token >= other,
        token < other,
        none,
        every,
    ]
    return np.concatenate([np.concatenate(part, axis=1) for part in (of_g, of_r)]).astype("float64")


@cache
def pair_spreads(chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two matrices [c, c^2] that put a chunk's tokens beside each other as i and as j of all pairs.

    The first counts a token twice beside itself.
    """
    eye, ones = np.eye(chunk), np.ones((1, chunk))
    return np.kron(eye, ones) * (1 + eye.reshape(1, -1)), np.kron(ones, eye)


@as_written
def _states_before(states, through, reverse):
    """Return the state of all chunks before each chunk, or with `reverse` of those behind it, [M, n, f, d].

    states: what each chunk adds, seen from its end (with `reverse`, from its beginning), [M, n, f, d].
    through: the exponents of the decay over a whole chunk, [M, n, f, 1].
    """
    chunks = states.shape[1]
    if chunks == 1:
        return zeros_like(states)
    if chunks % 2:
        states, through = _one_more(states), _one_more(through)
    first, second = _pairs(states)
    through_first, through_second = _pairs(through)
    if reverse:
        first, second, through_first, through_second = second, first, through_second, through_first
    joined = first * exp(through_second) + second
    outside = _states_before(joined, through_first + through_second, reverse)
    inside = outside * exp(through_first) + first
    both = stack(2, inside, outside) if reverse else stack(2, outside, inside)
    return both.reshape([-1, *states.shape[1:]])[:, :chunks]


def _one_more(x):
    """[M, n, f, d] -> [M, n + 1, f, d], the last of them 0."""
    return join(1, x, zeros_like(x[:, :1]))


def _pairs(x):
    """[M, 2 n, f, d] -> the first and the second of each two, [M, n, f, d]."""
    x = x.reshape([-1, x.shape[1] // 2, 2, *x.shape[2:]])
    return x[:, :, 0], x[:, :, 1]


def gated_rows(q: Tensor, k: Tensor, forward: Tensor, backward: Tensor, scale: float) -> Tensor:
    """Return the weights [B, h, N, N] of `gated_attention`: the definition, O(N^2 f)."""
    token = np.arange(q.shape[2])
    lower = constant(token[:, None] >= token, q) > 0  # j <= i
    times = constant(scale / 2 * (1 + np.eye(len(token))), q)
    up_to, before = forward.cumsum(2), backward.cumsum(2) - backward
    weights = []
    for m in range(q.shape[3]):
        by_g = _differences(up_to[:, :, :, m])
        by_r = _differences(-before[:, :, :, m])
        decays = exp(where(lower, by_g, by_r))
        weights.append(matmul_nt(q[:, :, :, m : m + 1], k[:, :, :, m : m + 1]) * decays)
    return sum(weights[1:], weights[0]) * times


def _differences(x):
    """x_i - x_j: [B, h, N] -> [B, h, N, N]."""
    return x.unsqueeze(3) - x.unsqueeze(2)


def gated_recurrence(
    q: Tensor, k: Tensor, v: Tensor, forward: Tensor, backward: Tensor, scale: float
) -> Tensor:
    """`gated_attention` token after token, both ways, as it is defined: what the chunks are tested against."""
    total = zeros_like(v)
    for gates, order in ((forward, 1), (backward, -1)):
        state, outs = zeros_like(matmul_tn(k, v)), {}  # [B, h, f, d]
        for i in range(q.shape[2])[::order]:
            one = slice(i, i + 1)
            state = swap_last(exp(gates[:, :, one])) * state + matmul_tn(k[:, :, one], v[:, :, one])
            outs[i] = matmul(q[:, :, one], state)
        total = total + join(2, *(outs[i] for i in sorted(outs)))
    return total * (scale / 2)
