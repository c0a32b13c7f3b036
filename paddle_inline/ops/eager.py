"""Functions whose operators are slow on Paddle's CPU in eager mode, and their gradients, by quick ones.

There a sum over rows, or a row added to all, takes ten to sixty times as long as a matrix product that gives the
same, and a layer norm's gradient twenty times its forward pass. `suits` says for which tensors these are; all others
(programs, GPUs, 16-bit numbers) take Paddle's own operators. Gradients of gradients are right, too: a backward pass
that is recorded consists of differentiable operators.

M rows, K channels in, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, matmul  # imported by name: what counts multiply-adds replaces paddle.matmul
from paddle.autograd import PyLayer
from paddle.nn.functional import conv2d


def suits(x: Tensor) -> bool:
    """Return whether the functions of this file are for x: in eager mode on the CPU, float32 or float64."""
    return (
        paddle.in_dynamic_mode()
        and x.place.is_cpu_place()
        and x.dtype in (paddle.float32, paddle.float64)
        and x.ndim > 1
        and 0 not in x.shape
    )


def learns(*tensors: Tensor | None) -> bool:
    """Return whether what is made of these tensors is to have a gradient."""
    return paddle.is_grad_enabled() and any(t is not None and not t.stop_gradient for t in tensors)


def affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W + b: [..., K], [K, C], [C] or None -> [..., C]."""
    return _Affine.apply(x, weight, bias) if learns(x, weight, bias) else _affine(x, weight, bias)


def _affine(x, weight, bias):
    rows = _rows(x)
    out = matmul(rows, weight) if bias is None else paddle.addmm(bias, rows, weight)
    return out.reshape([*x.shape[:-1], weight.shape[1]])


class _Affine(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.wanted = [not tensor.stop_gradient for tensor in (x, weight, bias) if tensor is not None]
        ctx.save_for_backward(x, weight)
        return _affine(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensor()
        rows = _rows(grad)
        gradients = (
            lambda: matmul(rows, weight, transpose_y=True).reshape(x.shape),
            lambda: matmul(_rows(x), rows, transpose_x=True),
            lambda: sum_rows(rows),
        )
        return tuple(gradient() if wanted else None for gradient, wanted in zip(gradients, ctx.wanted))


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Normalise the last dimension: [..., C], [C], [C] -> [..., C]."""
    if learns(x, weight, bias):
        return _LayerNorm.apply(x, weight, bias, epsilon)
    return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)


class _LayerNorm(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        ctx.wanted = [not tensor.stop_gradient for tensor in (x, weight, bias)]
        ctx.epsilon = np.float32(epsilon).item()  # as the operator rounds it
        # the one way to the variance that the operator has computed
        out, _, variance = paddle._legacy_C_ops.layer_norm(
            x, weight, bias, "epsilon", epsilon, "begin_norm_axis", x.ndim - 1
        )
        ctx.save_for_backward(x, weight, variance)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, variance = ctx.saved_tensor()
        rows, grad, channels = _rows(x), _rows(grad), x.shape[-1]
        if paddle.is_grad_enabled():
            variance = rows.var(axis=-1, unbiased=False)
        scale = paddle.rsqrt(variance.reshape([-1, 1]) + ctx.epsilon)  # [M, 1]
        normed = F.layer_norm(rows, [channels], epsilon=ctx.epsilon)
        product, column = grad * normed, weight.reshape([-1, 1])
        along = None
        if ctx.wanted[0]:
            # scale * (grad w - mean(grad w) - normed * mean(grad w normed))
            mean = scale * matmul(grad, column) / channels
            slope = scale * matmul(product, column) / channels
            along = grad * matmul(scale, column, transpose_y=True) - normed * slope
            along = paddle.addmm(along, mean, paddle.ones([1, channels], x.dtype), alpha=-1.0).reshape(
                x.shape
            )
        return (
            along,
            sum_rows(product) if ctx.wanted[1] else None,
            sum_rows(grad) if ctx.wanted[2] else None,
        )


def gelu(x: Tensor) -> Tensor:
    """Return the exact GELU, x Phi(x), element by element."""
    return _GELU.apply(x) if learns(x) else F.gelu(x)


class _GELU(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.gelu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensor()
        density = paddle.exp(-0.5 * x * x) * (x * (0.5 / math.pi) ** 0.5)
        return grad * (paddle.erf(x * 0.5**0.5) * 0.5 + 0.5 + density)  # Phi(x) + x phi(x)


def mean_rows(x: Tensor) -> Tensor:
    """[..., M, C] -> [..., 1, C]."""
    return _sum_rows(x) / x.shape[-2]


def sum_rows(x: Tensor) -> Tensor:
    """[M, C] -> [C]."""
    return _sum_rows(x).flatten()


def _sum_rows(x):
    """Products with ones, of blocks of rows and of their sums: in one go over thousands float32 loses a digit."""
    rows, channels = x.shape[-2:]
    blocks = _blocks(rows)
    x = x.reshape([*x.shape[:-2], blocks, rows // blocks, channels])
    sums = matmul(paddle.ones([1, rows // blocks], x.dtype), x).squeeze(-2)
    return matmul(paddle.ones([1, blocks], x.dtype), sums)


@cache
def _blocks(rows: int) -> int:
    """Return the largest number that divides a number of rows and is at most its root."""
    return max(n for n in range(1, math.isqrt(max(rows, 1)) + 1) if rows % n == 0)


def repeat_row(row: Tensor, rows: int) -> Tensor:
    """[..., 1, C] -> [..., M, C]."""
    return matmul(paddle.ones([rows, 1], row.dtype), row)


def is_depthwise(kernel: Tensor, groups: int, stride: Sequence[int], padding: Any) -> bool:
    """Return whether a convolution is one that `depthwise_conv2d` does."""
    side = kernel.shape[-1]
    return (
        kernel.shape == [groups, 1, side, side]
        and groups > 1
        and side % 2 == 1
        and list(stride) == [1, 1]
        and padding == [side // 2, side // 2]
    )


def depthwise_conv2d(convolve: Callable[[Tensor], Tensor], x: Tensor, kernel: Tensor) -> Tensor:
    """Return convolve(x), zero-padded filters of each channel: [B, C, H, W], odd kernels [C, 1, k, k] -> [B, C, H, W].

    The gradient of x is the gradient's filtering by the kernel that is turned around, which Paddle's forward
    operator does three times as fast as its backward operator.
    """
    return _Through.apply(convolve(x.detach()), x, kernel) if learns(x) else convolve(x)


class _Through(PyLayer):
    """Return `out`, a function of x without its gradient, with the gradient of x."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.out_learns = not out.stop_gradient
        # Another name of the same numbers, which a PyLayer does not give a tensor that learned nothing.
        return out.clone() if out.stop_gradient else out.reshape(out.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (kernel,) = ctx.saved_tensor()
        turned = kernel.flip([2, 3])
        along = conv2d(grad, turned, padding=kernel.shape[-1] // 2, groups=kernel.shape[0])
        return grad if ctx.out_learns else None, along, None


def _rows(x):
    return x.reshape([-1, x.shape[-1]])
