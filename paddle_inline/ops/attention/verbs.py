"""What the forms of attention are written with, so that their text is the same in both packages.

B batch, h heads, N and M tokens, d head width. Heads are [B, h, N, d].
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from ..tokens import mean_tokens as mean_tokens

relu, sigmoid, exp = F.relu, F.sigmoid, paddle.exp


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


def sum_last(x: Tensor) -> Tensor:
    """Sum over the last dimension, which stays: [..., d] -> [..., 1]."""
    return x.sum(axis=-1, keepdim=True)


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


def guarded(denominator: Tensor, eps: float) -> Tensor:
    """denominator + eps; in float16, where such an eps is 0, at least 1e-7."""
    if denominator.dtype == paddle.float16:
        return at_least(denominator, 1e-7)
    return denominator + eps


def guarded_least(denominator: Tensor, least: float) -> Tensor:
    """max(denominator, least); in float16, where less than 1e-7 is 0, at least that."""
    return at_least(denominator, max(least, 1e-7) if denominator.dtype == paddle.float16 else least)
