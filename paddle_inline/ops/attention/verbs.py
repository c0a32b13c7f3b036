"""What the forms of attention are written with, so that their text is the same in both packages.

B batch, h heads, N and M tokens, d head width. Heads are [B, h, N, d].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from ..tokens import mean_tokens as mean_tokens

relu, sigmoid, exp, reciprocal = F.relu, F.sigmoid, paddle.exp, paddle.reciprocal
log, silu, log_sigmoid = paddle.log, F.silu, F.log_sigmoid


def softplus(x: Tensor) -> Tensor:
    """ln(1 + e^x), by a function that paddle2onnx knows."""
    return -log_sigmoid(-x)


def elu1(x: Tensor) -> Tensor:
    """elu(x) + 1: x + 1 above 0, e^x below."""
    return F.elu(x) + 1


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a b: [..., N, M], [..., M, d] -> [..., N, d]."""
    return paddle.matmul(a, b)


def matmul_nt(a: Tensor, b: Tensor) -> Tensor:
    """a b^T: [..., N, d], [..., M, d] -> [..., N, M]."""
    return paddle.matmul(a, b, transpose_y=True)


def matmul_tn(a: Tensor, b: Tensor) -> Tensor:
    """a^T b: [..., N, d], [..., N, e] -> [..., d, e]."""
    return paddle.matmul(a, b, transpose_x=True)


def plus(x: Tensor, number: float) -> Tensor:
    """x + number, in x's precision: Paddle 2.6 rounds a number that is added to float32."""
    return x + paddle.full([1], number, x.dtype) if x.dtype == paddle.float64 else x + number


def sum_last(x: Tensor) -> Tensor:
    """Sum over the last dimension, which stays: [..., d] -> [..., 1]."""
    return x.sum(axis=-1, keepdim=True)


def sum_tokens(x: Tensor) -> Tensor:
    """Sum over the last dimension but one, which stays: [..., N, d] -> [..., 1, d]. Short ones: for all tokens of an
    image `mean_tokens` is faster and more exact."""
    return x.sum(axis=-2, keepdim=True)


def times_row(x: Tensor, row: Tensor) -> Tensor:
    """[..., N, d] times [..., 1, d]: one row by all. As for `subtract_row`, copied first where that is faster."""
    if paddle.in_dynamic_mode() and x.place.is_cpu_place():
        row = row.expand(x.shape)
    return x * row


def softmax_last(x: Tensor) -> Tensor:
    """Softmax over the last dimension."""
    return F.softmax(x, axis=-1)


def softmax_tokens(x: Tensor) -> Tensor:
    """Softmax over the tokens of [B, h, N, d], in float32 at least."""
    return F.softmax(at_least_float32(x), axis=-2)


def join_last(*parts: Tensor) -> Tensor:
    """Concatenate along the last dimension."""
    return paddle.concat(parts, axis=-1)


def join_tokens(*parts: Tensor) -> Tensor:
    """Concatenate the tokens of [B, h, N_i, d]."""
    return paddle.concat(parts, axis=-2)


def at_least(x: Tensor, least: float) -> Tensor:
    """max(x, least), elementwise."""
    return paddle.clip(x, min=least)


def at_most(x: Tensor, most: float) -> Tensor:
    """min(x, most), elementwise."""
    return paddle.clip(x, max=most)


def largest(x: Tensor, dims: list[int]) -> Tensor:
    """Maximum over dimensions, which stay. Eagerly by `amax`, whose gradient is shared by equal elements as PyTorch's
    is; for programs by `max`, the same number, which paddle2onnx can translate."""
    return (paddle.amax if paddle.in_dynamic_mode() else paddle.max)(x, axis=dims, keepdim=True)


def constant(values: np.ndarray, like: Tensor) -> Tensor:
    """Return numbers as a tensor of the type and place of another."""
    return paddle.to_tensor(values, dtype=like.dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """float16 and bfloat16 -> float32; others as they are."""
    return x.astype("float32") if x.dtype in (paddle.float16, paddle.bfloat16) else x


def typed_like(x: Tensor, other: Tensor) -> Tensor:
    """Return x in the type of `other`."""
    return x if x.dtype == other.dtype else x.astype(other.dtype)


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Return a context in which products stay in the type of their factors, on x's device."""
    return paddle.amp.auto_cast(enable=False)


def length(x: Tensor, least: float = 1e-12) -> Tensor:
    """Euclidean norm over the last dimension, which stays, not below `least`: [..., d] -> [..., 1], in float32 at
    least. The bound stands under the root, so that the gradient at 0 is 0."""
    x = at_least_float32(x)
    return at_least(sum_last(x * x), least**2).sqrt()


def length_of_columns(x: Tensor, least: float = 1e-12) -> Tensor:
    """Euclidean norm over the tokens of [B, h, N, d], not below `least`: [B, h, 1, d], in float32 at least."""
    x = at_least_float32(x)
    return at_least(mean_tokens(x * x, keepdim=True) * x.shape[-2], least**2).sqrt()


def guarded(denominator: Tensor, eps: float) -> Tensor:
    """denominator + eps, of a denominator that is at least 0; in float16, where such an eps is 0, see `_half`."""
    return _half(denominator, 0.0) if denominator.dtype == paddle.float16 else plus(denominator, eps)


def guarded_least(denominator: Tensor, least: float) -> Tensor:
    """max(denominator, least), of a denominator that is at least 0; in float16 see `_half`."""
    return _half(denominator, least) if denominator.dtype == paddle.float16 else at_least(denominator, least)


def _half(denominator, least):
    # Not below 1e-7, the least that float16 divides by. 0 becomes 1: what it divides is 0 as well, whatever the
    # number, but a gradient that is divided by 1e-7 passes 65504, and infinity times the query's 0 is NaN.
    return where(denominator > 0, at_least(denominator, max(least, 1e-7)), paddle.ones_like(denominator))


def random_normal(*shape: int) -> Tensor:
    """Return standard normal numbers from the framework's generator."""
    return paddle.randn(shape)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return the orthogonal factor Q of each square matrix of [..., d, d]."""
    return paddle.linalg.qr(matrix)[0]


def zeros_like(x: Tensor) -> Tensor:
    """Zeros of x's shape, type and place."""
    return paddle.zeros_like(x)


def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Elements of x where the condition holds, of y elsewhere."""
    return paddle.where(condition, x, y)


def swap_last(x: Tensor) -> Tensor:
    """[..., N, d] -> [..., d, N]."""
    return x.transpose([*range(x.ndim - 2), x.ndim - 1, x.ndim - 2])


def split_last(x: Tensor, widths: list[int]) -> Sequence[Tensor]:
    """Cut the last dimension into parts of these widths."""
    return paddle.split(x, widths, axis=-1)


def join(dim: int, *parts: Tensor) -> Tensor:
    """Concatenate along a dimension."""
    return paddle.concat(parts, axis=dim)


def stack(dim: int, *parts: Tensor) -> Tensor:
    """Put tensors of one shape side by side along a new dimension."""
    return paddle.stack(parts, axis=dim)


def filter_heads(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Filter every head of a map [B, h * d, H, W] with the same filters, one per channel of the head.

    weight: [d, 1, k, k], k odd; bias: [d]; zero padding.
    """
    heads, kernel = x.shape[1] // weight.shape[0], weight.shape[2]
    weight, bias = paddle.tile(weight, [heads, 1, 1, 1]), paddle.tile(bias, [heads])
    return F.conv2d(x, weight, bias, padding=kernel // 2, groups=x.shape[1])


def as_written(function: Callable) -> Callable:
    """Leave a function with Python's own branches and recursion to Python where a program is traced: a decorator."""
    return paddle.jit.not_to_static(function)
