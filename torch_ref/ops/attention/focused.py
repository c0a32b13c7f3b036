"""Feature maps that sharpen: focused (FLatten, ICCV 2023) and polarity-aware linear attention (PolaFormer, ICLR 2025).

B batch, h heads, N tokens, C channels, d head width.
"""

from __future__ import annotations

from .divided import mean_outer
from .normalised import EPS, normalised_rows
from .verbs import (
    Tensor,
    at_least,
    at_least_float32,
    exp,
    join_last,
    join_tokens,
    largest,
    length,
    log,
    matmul,
    matmul_nt,
    mean_tokens,
    plus,
    relu,
    sigmoid,
    softplus,
    split_last,
    typed_like,
    without_autocast,
)

TINY = 1e-30  # float32 holds it


def focus(x: Tensor, scale: Tensor) -> Tensor:
    """FLatten's feature map: t = (relu(x) + 1e-6) / softplus(scale) -> |t| t^3 / |t^3|, norms over all channels.

    t inside the quotient is first divided by its largest channel, which changes nothing but that its cubes stay between
    0 and 1. In float32 at least.

    Args:
        x: [B, N, C].
        scale: [1, 1, C].

    Returns:
        [B, N, C], positive.
    """
    with without_autocast(x):
        t = plus(relu(at_least_float32(x)), EPS) / softplus(at_least_float32(scale))
        c = t / largest(t, [2]).detach()
        cube = c * c * c
        return typed_like(cube * (length(t) / length(cube)), x)


def polar_features(q: Tensor, k: Tensor, power: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """PolaFormer's features, of relu(x)^p and relu(-x)^p with p = 1 + 4 sigmoid(power).

    Args:
        q, k: [B, h, N, d].
        power: [1, h, 1, d].

    Returns:
        (q+, q-), whose products with the third pair like signs with like; (q-, q+), unlike ones; and (k+, k-):
        [B, h, N, 2 d] each.
    """
    exponent = 1 + 4 * sigmoid(power)
    q_positive, q_negative = _powers(q, exponent)
    keys = join_last(*_powers(k, exponent))
    return join_last(q_positive, q_negative), join_last(q_negative, q_positive), keys


def _powers(x, exponent):
    # 0 is raised as TINY, and taken out: its power is 0 with derivatives of 0, where log(0) would make NaN
    raised = exp(exponent * log(at_least(x.abs(), TINY)))
    return raised * typed_like(x > 0, x), raised * typed_like(x < 0, x)


def pola_attention(q: Tensor, k: Tensor, v: Tensor, power: Tensor) -> Tensor:
    """Polarity-aware linear attention in O(N d^2): the first d / 2 channels of v are weighted by products of like
    signs, the others by those of unlike signs. In float32 at least: a fifth power soon passes float16's largest number.

    Args:
        q, k, v: [B, h, N, d], d even.
        power: [1, h, 1, d].

    Returns:
        [B, h, N, d]
    """
    with without_autocast(v):
        q, _, k = polar_features(*(at_least_float32(x) for x in (q, k, power)))
        width, half = v.shape[3], v.shape[3] // 2
        products = mean_outer(k, at_least_float32(v))  # [B, h, 2 d, d]: of k+, then of k-
        of_positive, of_negative = products[:, :, :width], products[:, :, width:]
        # q+ and q- meet k+ and k- for the first channels, k- and k+ for the last
        products = join_tokens(
            join_last(of_positive[:, :, :, :half], of_negative[:, :, :, half:]),
            join_last(of_negative[:, :, :, :half], of_positive[:, :, :, half:]),
        )
        mean = mean_tokens(k, keepdim=True)  # [B, h, 1, 2 d]
        opposite = join_last(mean[:, :, :, width:], mean[:, :, :, :width])
        first, last = split_last(matmul(q, products), [half, half])
        out = join_last(first / plus(matmul_nt(q, mean), EPS), last / plus(matmul_nt(q, opposite), EPS))
        return typed_like(out, v)


def pola_rows(q: Tensor, k: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights [B, h, N, N] of the first and of the last d / 2 channels: the definition, O(N^2)."""
    same, opposite, keys = polar_features(q, k, power)
    return normalised_rows(same, keys), normalised_rows(opposite, keys)
