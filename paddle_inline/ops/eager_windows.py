"""Softmax attention inside stripes, with LePE, as one function of the projection, for tensors that `kernels` takes.

B batch, N = H * W tokens, C channels; a branch has C' = C / branches of them, and h heads of d = C' / h.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor, matmul  # imported by name: what counts multiply-adds replaces paddle.matmul

from . import eager, eager_filters, kernels
from .kernels import Columns, Size


def branch_attention(
    qkv: Tensor,
    num_heads: int,
    size: Size,
    windows: Sequence[Size],
    scale: float,
    filters: Sequence[Tensor],
    biases: Sequence[Tensor],
) -> Tensor:
    """softmax(scale q k^T) v + LePE of all branches (CSwin, CVPR 2022, sections 3.2 and 3.3).

    Args:
        qkv: [B, N, 3 C], the q's of all branches, their k's, their v's.
        num_heads: h of a branch.
        size: (H, W); windows: of each branch, which divide it.
        scale: of the logits.
        filters, biases: of each branch's LePE, [C', 1, k, k] and [C'].

    Returns:
        [B, N, C]
    """
    taps = [eager.swap(each.reshape([1, len(each), -1]), 1) for each in filters]  # [1, k * k, C']
    if eager.learns(qkv, *taps, *biases):
        return _BranchAttention.of((qkv, *taps, *biases), num_heads, size, windows, scale)
    return _attend((num_heads, size, windows, scale), qkv, taps, biases)[0]


def _attend(how, qkv, taps, biases):
    """The attention, and of each branch (q, k, v, weights)."""
    num_heads, size, windows, scale = how
    width = qkv.shape[2] // 3 // len(windows)
    out, kept = paddle.empty([*qkv.shape[:2], width * len(windows)], qkv.dtype), []
    for i, window in enumerate(windows):
        places, own = _places(qkv, len(windows), i), Columns(out, i * width, width)
        q, k, v = kernels.split_heads(places, num_heads, size, window)
        logits = matmul(q, k, transpose_y=True)
        weights = kernels.softmax(logits, scale, out=logits)
        kernels.merge_heads([matmul(weights, v)], size, window, [own])
        kernels.filter_channels(places[2], taps[i], biases[i], size, 0, window, onto=own, out=own)
        kept.append((q, k, v, weights))
    return out, kept


def _places(qkv, branches, i):
    """A branch's q, k and v."""
    width = qkv.shape[2] // 3 // branches
    return [Columns(qkv, (part * branches + i) * width, width) for part in range(3)]


class _BranchAttention(eager.Function):
    @staticmethod
    def run(ctx: Any, qkv: Tensor, *rest: Any) -> Tensor:
        *parameters, num_heads, size, windows, scale = rest
        branches = len(windows)
        ctx.how, ctx.by_kernel = (num_heads, size, windows, scale), True
        out, ctx.kept = _attend(ctx.how, qkv, parameters[:branches], parameters[branches:])
        ctx.save_for_backward(qkv, *parameters[:branches])
        return out

    @staticmethod
    def gradients(ctx: Any, grad: Tensor) -> Sequence[Tensor | None]:
        qkv, *taps = ctx.saved_tensor()
        if eager.by_kernel(ctx):
            along, slopes = _gradients(ctx.how, qkv, taps, ctx.kept, grad)
        else:
            along, slopes = _recorded_gradients(ctx.how, qkv, taps, grad)
        sums = eager.sum_rows(eager.rows_of(grad)).split(len(taps))
        return tuple(g if wanted else None for g, wanted in zip((along, *slopes, *sums), ctx.wanted))


def _gradients(how, qkv, taps, kept, grad):
    """The gradients of the projection and of each branch's taps."""
    num_heads, size, windows, scale = how
    along, slopes, width = paddle.empty_like(qkv), [], grad.shape[2] // len(windows)
    for i, (window, (q, k, v, weights)) in enumerate(zip(windows, kept)):
        places, given = _places(along, len(windows), i), Columns(grad, i * width, width)
        (slope,) = kernels.split_heads([given], num_heads, size, window)
        given_weights = matmul(slope, v, transpose_y=True)
        logits = kernels.softmax_backward(weights, given_weights, scale, out=given_weights)
        heads = (
            matmul(logits, k),
            matmul(logits, q, transpose_x=True),
            matmul(weights, slope, transpose_x=True),
        )
        kernels.merge_heads(heads, size, window, places)
        kernels.filter_channels(
            given, taps[i], None, size, 0, window, onto=places[2], out=places[2], turned=True
        )
        values, side = _places(qkv, len(windows), i)[2], math.isqrt(taps[i].shape[1])
        slopes.append(kernels.filter_channels_backward(values, given, 1, side, size, 0, window))
    return along, slopes


def _recorded_gradients(how, qkv, taps, grad):
    """`_gradients` of differentiable operators."""
    num_heads, size, windows, scale = how
    branches = len(windows)
    parts, grads = qkv.split(3 * branches, axis=-1), grad.split(branches, axis=-1)
    along, slopes = list(parts), []
    for i, (window, given) in enumerate(zip(windows, grads)):
        q, k, v = eager.split_heads(parts[i::branches], num_heads, size, window)
        (slope,) = eager.split_heads([given], num_heads, size, window)
        weights = F.softmax(matmul(q, k, transpose_y=True) * scale, axis=-1)
        logits = matmul(slope, v, transpose_y=True)
        logits = weights * (logits - (weights * logits).sum(axis=-1, keepdim=True)) * scale
        heads = (
            matmul(logits, k),
            matmul(logits, q, transpose_x=True),
            matmul(weights, slope, transpose_x=True),
        )
        along[i::branches] = (eager.merge_heads(each, size, window) for each in heads)
        turned, side = taps[i].flip(1), math.isqrt(taps[i].shape[1])
        local = eager_filters.filter_by_taps(given, turned, size, window)
        along[2 * branches + i] = along[2 * branches + i] + local
        slopes.append(eager_filters.tap_slopes(parts[2 * branches + i], given, 1, side, size, 0, window))
    return paddle.concat(along, axis=-1), slopes
