"""Functions whose operators are slow on Paddle's CPU in eager mode, and their gradients, by quick ones.

There a sum over rows, or a row added to all, takes ten to sixty times as long as a matrix product that gives the
same, and a layer norm's gradient twenty times its forward pass; whatever is not a matrix product runs on one core.
`suits` says for which tensors these are; all others (programs, GPUs, 16-bit numbers) take Paddle's own operators.
float32 goes through `kernels` where Numba is installed; else, and in float64, it is operators that are quick.
Gradients of gradients are right, too: a backward pass that is recorded consists of differentiable operators.

(Above 300 lines: a function and its gradient, one after another.)

M rows, K channels in, C channels.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, matmul, nn  # imported by name: what counts multiply-adds replaces paddle.matmul
from paddle.autograd import PyLayer

from ..utils.environment import parse_version
from ..utils.errors import UserError
from . import kernels
from .kernels import Size

LISTS = parse_version(paddle.__version__) >= (3,)  # Paddle 2.6 forgets the gradients of a PyLayer's lists
TANH_SCALE = math.sqrt(2 / math.pi)  # of the GELU's approximation


_switches = {"plain": False}  # of the whole process


@contextmanager
def plain_operators() -> Iterator[None]:
    """Let models make their graphs of Paddle's own operators inside the block: slower, for what a PyLayer cannot do.

    That is a second backward pass over one graph (`retain_graph=True`), which Paddle 3.3 ends with a crash and these
    functions with an error, and hooks on tensors between layers that return another gradient, which it does not heed.
    SOFT's inverse stays a PyLayer.
    """
    before, _switches["plain"] = _switches["plain"], True
    try:
        yield
    finally:
        _switches["plain"] = before


class _Once:
    """A hook on a PyLayer's output, which refuses the second backward pass: Paddle would read what is freed."""

    def __init__(self) -> None:
        self.used = False

    def __call__(self, grad: Tensor) -> None:
        # `paddle.grad` goes through a copy of the graph, as often as one likes
        if sys._getframe(1).f_code.co_name == "grad":
            return
        if self.used:
            raise UserError(
                "a second backward pass over one graph: Paddle's PyLayer keeps nothing for it. Add up the losses and "
                "call backward() once, make the forward pass again, use paddle.grad(..., retain_graph=True), or make "
                "the forward pass inside `with paddle_inline.ops.eager.plain_operators():`"
            )
        self.used = True


def once(out: Tensor) -> Tensor:
    """Return a PyLayer's output, from which a backward pass may start or pass once."""
    if not out.stop_gradient:
        out.register_hook(_Once())
    return out


def suits(x: Tensor) -> bool:
    """Return whether the functions of this file are for x: in eager mode on the CPU, float32 or float64."""
    return (
        not _switches["plain"]
        and paddle.in_dynamic_mode()
        and x.place.is_cpu_place()
        and x.dtype in (paddle.float32, paddle.float64)
        and x.ndim > 1
        and 0 not in x.shape
    )


# of convolutions; layers add their own
PLAIN_FORWARDS: list[Callable[..., Any]] = [nn.Conv2D.forward]


def watched(*layers: Any) -> bool:
    """Return whether someone wants to be told when a layer is called, or has given it another forward pass."""
    return any(
        layer._forward_pre_hooks or layer._forward_post_hooks or "forward" in vars(layer) for layer in layers
    )


def is_plain_convolution(layer: Any) -> bool:
    """Return whether a loop may stand for a convolution: it is no other class's, and nobody watches it."""
    return type(layer).forward in PLAIN_FORWARDS and not watched(layer)


def learns(*tensors: Tensor | None) -> bool:
    """Return whether what is made of these tensors is to have a gradient."""
    return paddle.is_grad_enabled() and any(t is not None and not t.stop_gradient for t in tensors)


class Function(PyLayer):
    """The base of functions of several tensors, whose gradient may be asked for some of them alone.

    Paddle takes it for an error that a PyLayer returns a gradient for a tensor that `paddle.grad` was not asked for;
    but not among the tensors of one list, if the first of them learns. So these are given to Paddle in one list. A
    subclass defines `run(ctx, *tensors, *rest)`, and `gradients(ctx, *grads)`, which returns one for each of the
    tensors, in their order; None for those that are None or do not learn.
    """

    run: Callable[..., Any]
    gradients: Callable[..., Sequence[Tensor | None]]

    @classmethod
    def of(cls, tensors: Sequence[Tensor | None], *rest: Any) -> Any:
        """Return the function of tensors, of which some may be None."""
        order = sorted(
            (i for i, tensor in enumerate(tensors) if tensor is not None),
            key=lambda i: tensors[i].stop_gradient,  # type: ignore[union-attr]
        )
        given = [tensors[i] for i in order]
        return cls.apply(order, len(tensors), rest, *([given] if LISTS else given))

    @staticmethod
    def forward(ctx: Any, order: Sequence[int], count: int, rest: tuple[Any, ...], *given: Any) -> Any:
        tensors: list[Tensor | None] = [None] * count
        for i, tensor in zip(order, given[0] if LISTS else given):
            tensors[i] = tensor
        ctx.order, ctx.wanted = order, [tensor is not None and not tensor.stop_gradient for tensor in tensors]
        return ctx._forward_cls.run(ctx, *tensors, *rest)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Sequence[Tensor | None]:
        gradients = ctx._forward_cls.gradients(ctx, *grads)
        found = [gradients[i] for i in ctx.order]
        return found if LISTS else tuple(found)


def affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W + b: [..., K], [K, C], [C] or None -> [..., C]."""
    return once(_Affine.of((x, weight, bias))) if learns(x, weight, bias) else _affine(x, weight, bias)


def _affine(x, weight, bias):
    rows = rows_of(x)
    if bias is not None and kernels.takes(x, bias):
        out = matmul(rows, weight)
        kernels.add_row(out, bias, out=out)
        return out.reshape([*x.shape[:-1], weight.shape[1]])
    out = matmul(rows, weight) if bias is None else paddle.addmm(bias, rows, weight)
    return out.reshape([*x.shape[:-1], weight.shape[1]])


class _Affine(Function):
    @staticmethod
    def run(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _affine(x, weight, bias)

    @staticmethod
    def gradients(ctx: Any, grad: Tensor) -> Sequence[Tensor | None]:
        x, weight = ctx.saved_tensor()
        rows = rows_of(grad)
        gradients = (
            lambda: matmul(rows, weight, transpose_y=True).reshape(x.shape),
            lambda: matmul(rows_of(x), rows, transpose_x=True),
            lambda: sum_rows(rows),
        )
        return tuple(gradient() if wanted else None for gradient, wanted in zip(gradients, ctx.wanted))


def gaussian(a: Tensor, b: Tensor) -> Tensor:
    """exp(-|a_i - b_j|^2 / 2), at most 1, for tensors that `kernels` takes: [..., N, d], [..., M, d] -> [..., N, M]."""
    return _Gaussian.of((a, b)) if learns(a, b) else _gaussian(a, b)


def _gaussian(a, b):
    return kernels.gaussian(a, b, matmul(a, b, transpose_y=True))


class _Gaussian(Function):
    @staticmethod
    def run(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        out = _gaussian(a, b)
        ctx.save_for_backward(a, b, out.detach())  # as in `_Softmax`
        return out

    @staticmethod
    def gradients(ctx: Any, grad: Tensor) -> Sequence[Tensor | None]:
        a, b, out = ctx.saved_tensor()
        if paddle.is_grad_enabled():
            slope = grad * gaussian(a, b)
            along_a, along_b = -a * slope.sum(axis=-1, keepdim=True), -b * slope.sum(axis=-2).unsqueeze(-1)
        else:
            slope, along_a, along_b = kernels.gaussian_backward(a, b, out, grad)
        return (
            matmul(slope, b) + along_a if ctx.wanted[0] else None,
            matmul(slope, a, transpose_x=True) + along_b if ctx.wanted[1] else None,
        )


def split_columns(x: Tensor, parts: int) -> Sequence[Tensor]:
    """[..., parts C] -> `parts` tensors [..., C]."""
    if not kernels.takes(x):
        return paddle.split(x, parts, axis=-1)
    return _SplitColumns.apply(x, parts) if learns(x) else kernels.split_columns(x, parts)


class _SplitColumns(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return tuple(kernels.split_columns(x, parts))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return join_columns(grads)


def join_columns(parts: Sequence[Tensor]) -> Tensor:
    """Tensors [..., C_i] -> [..., sum of C_i]."""
    if not kernels.takes(*parts):
        return paddle.concat(parts, axis=-1)
    return _JoinColumns.of(parts) if learns(*parts) else kernels.join_columns(parts)


class _JoinColumns(Function):
    @staticmethod
    def run(ctx: Any, *parts: Tensor) -> Tensor:
        ctx.widths = [part.shape[-1] for part in parts]
        return kernels.join_columns(parts)

    @staticmethod
    def gradients(ctx: Any, grad: Tensor) -> Sequence[Tensor | None]:
        equal = len(set(ctx.widths)) == 1
        parts = split_columns(grad, len(ctx.widths)) if equal else paddle.split(grad, ctx.widths, axis=-1)
        return tuple(part if wanted else None for part, wanted in zip(parts, ctx.wanted))


def grouped_affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each group of channels by a matrix of its own: [B, G K, 1], [G C, K, 1], [G C] -> [B, G C, 1]."""
    inputs = weight.shape[1]
    groups = x.shape[1] // inputs
    out = matmul(
        swap(x.reshape([-1, groups, inputs]), 0), weight.reshape([groups, -1, inputs]), transpose_y=True
    )
    return (swap(out, 0).reshape([-1, bias.shape[0]]) + bias).unsqueeze(-1)


def patches(x: Tensor, side: int, stride: int, padding: int) -> Tensor:
    """What a convolution of k = side sees from each place, zero padded: [B, C, H, W] -> [B, N, C k k]."""
    if kernels.takes(x):
        return (
            _Patches.apply(x, side, stride, padding)
            if learns(x)
            else kernels.cut_patches(x, side, stride, padding)
        )
    return F.unfold(x, side, stride, padding).transpose([0, 2, 1])


class _Patches(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, side: int, stride: int, padding: int) -> Tensor:
        ctx.shape, ctx.geometry = x.shape, (side, stride, padding)
        return kernels.cut_patches(x, side, stride, padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        if not learns(grad):
            return kernels.join_patches(grad, ctx.shape, *ctx.geometry)
        return F.fold(grad.transpose([0, 2, 1]), ctx.shape[2:], *ctx.geometry)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Normalise the last dimension: [..., C], [C], [C] -> [..., C]."""
    if learns(x, weight, bias):
        return once(_LayerNorm.of((x, weight, bias), epsilon))
    if kernels.takes(x, weight, bias):
        return kernels.layer_norm(x, weight, bias, epsilon)[0]
    return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)


class _LayerNorm(Function):
    @staticmethod
    def run(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        ctx.epsilon = np.float32(epsilon).item()  # as the operator rounds it
        ctx.by_kernel = kernels.takes(x, weight, bias)
        if ctx.by_kernel:
            out, moments = kernels.layer_norm(x, weight, bias, ctx.epsilon)
            ctx.save_for_backward(x, weight, moments)
            return out
        # the one way to the variance that the operator has computed
        out, _, variance = paddle._legacy_C_ops.layer_norm(
            x, weight, bias, "epsilon", epsilon, "begin_norm_axis", x.ndim - 1
        )
        ctx.save_for_backward(x, weight, variance)
        return out

    @staticmethod
    def gradients(ctx: Any, grad: Tensor) -> Sequence[Tensor | None]:
        x, weight, variance = ctx.saved_tensor()
        if by_kernel(ctx):
            gradients = kernels.layer_norm_backward(x, weight, variance, grad)
            return tuple(gradient if wanted else None for gradient, wanted in zip(gradients, ctx.wanted))
        rows, grad, channels = rows_of(x), rows_of(grad), x.shape[-1]
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


def gelu(x: Tensor, tanh: bool = False) -> Tensor:
    """Return the GELU of every number, x Phi(x), or its approximation by tanh."""
    if learns(x) and (kernels.takes(x) or not tanh):
        return _GELU.apply(x, tanh)
    return kernels.gelu(x, tanh) if kernels.takes(x) else F.gelu(x, approximate=tanh)


class _GELU(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, tanh: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.tanh, ctx.by_kernel = tanh, kernels.takes(x)
        return kernels.gelu(x, tanh) if ctx.by_kernel else F.gelu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensor()
        if by_kernel(ctx):
            return kernels.gelu_backward(x, grad, ctx.tanh)
        return grad * _gelu_slope(x, ctx.tanh)


def _gelu_slope(x, tanh=False):
    """The GELU's derivative, of differentiable operators."""
    if tanh:
        bend = paddle.tanh(TANH_SCALE * (x + 0.044715 * x * x * x))
        return 0.5 * (1 + bend + x * (1 - bend * bend) * TANH_SCALE * (1 + 0.134145 * x * x))
    density = paddle.exp(-0.5 * x * x) * (x * (0.5 / math.pi) ** 0.5)
    return paddle.erf(x * 0.5**0.5) * 0.5 + 0.5 + density  # Phi(x) + x phi(x)


def perceptron(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    """GELU(x W1 + b1) W2 + b2, for tensors that `kernels` takes: [..., C], [C, K], [K], [K, C'], [C'] -> [..., C']."""
    if learns(x, weight1, bias1, weight2, bias2):
        return once(_Perceptron.of((x, weight1, bias1, weight2, bias2)))
    return _affine(kernels.gelu_of_sum(matmul(x, weight1), bias1), weight2, bias2)


class _Perceptron(Function):
    @staticmethod
    def run(ctx: Any, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
        hidden = matmul(rows_of(x), weight1)
        active = kernels.gelu_of_sum(hidden, bias1)
        ctx.kept = hidden, active
        ctx.save_for_backward(x, weight1, bias1, weight2)
        return _affine(active, weight2, bias2).reshape([*x.shape[:-1], weight2.shape[1]])

    @staticmethod
    def gradients(ctx: Any, grad: Tensor) -> Sequence[Tensor | None]:
        x, weight1, bias1, weight2 = ctx.saved_tensor()
        rows, grad = rows_of(x), rows_of(grad)
        inner = matmul(grad, weight2, transpose_y=True)
        if paddle.is_grad_enabled():
            hidden = affine(rows, weight1, bias1)
            active = gelu(hidden)
            inner = inner * _gelu_slope(hidden)
            bias_slope = sum_rows(inner)
        else:
            hidden, active = ctx.kept
            inner, bias_slope = kernels.gelu_of_sum_backward(hidden, bias1, inner)
        gradients: tuple[Callable[[], Tensor], ...] = (
            lambda: matmul(inner, weight1, transpose_y=True).reshape(x.shape),
            lambda: matmul(rows, inner, transpose_x=True),
            lambda: bias_slope,
            lambda: matmul(active, grad, transpose_x=True),
            lambda: sum_rows(grad),
        )
        return tuple(gradient() if wanted else None for gradient, wanted in zip(gradients, ctx.wanted))


def softmax(x: Tensor, factor: float = 1.0) -> Tensor:
    """Return the softmax of factor x over the last dimension."""
    if not kernels.takes(x):
        return F.softmax(x if factor == 1 else x * factor, axis=-1)
    return _Softmax.apply(x, factor) if learns(x) else kernels.softmax(x, factor)


class _Softmax(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.by_kernel, ctx.factor = True, factor
        out = kernels.softmax(x, factor)
        # Detached: its own output would keep itself in memory where no backward pass follows.
        ctx.save_for_backward(x, out.detach())
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, out = ctx.saved_tensor()
        if by_kernel(ctx):
            return kernels.softmax_backward(out, grad, ctx.factor)
        out = F.softmax(x * ctx.factor, axis=-1)
        return out * (grad - (out * grad).sum(axis=-1, keepdim=True)) * ctx.factor


def swap(x: Tensor, axis: int) -> Tensor:
    """Swap a dimension with the next one: [..., M, N, ...] -> [..., N, M, ...]."""
    if 1 in x.shape[axis : axis + 2]:
        return x.reshape([*x.shape[:axis], x.shape[axis + 1], x.shape[axis], *x.shape[axis + 2 :]])
    if kernels.takes(x):
        return _Swap.apply(x, axis) if learns(x) else kernels.swap(x, axis)
    return x.transpose([*range(axis), axis + 1, axis, *range(axis + 2, x.ndim)])


class _Swap(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int) -> Tensor:
        ctx.axis = axis
        return kernels.swap(x, axis)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return swap(grad, ctx.axis)


def split_heads(
    parts: Sequence[Tensor], num_heads: int, size: Size, window: Size, keep: bool = False
) -> list[Tensor]:
    """Tokens of windows to heads, for tensors that `kernels` takes: [B, H * W, C] -> [B * windows, h, n, C / h] each.

    `keep`: the last part's tokens come after them, as they are, so that both gradients of it are added up on the way.
    """
    if learns(*parts):
        heads = list(_SplitHeads.of(parts, num_heads, size, window, keep))
        return [*heads[:-1], heads[-1].squeeze(0)] if keep else heads
    return kernels.split_heads(parts, num_heads, size, window) + ([parts[-1]] if keep else [])


class _SplitHeads(Function):
    @staticmethod
    def run(ctx: Any, *parts_and_rest: Any) -> tuple[Tensor, ...]:
        *parts, num_heads, size, window, keep = parts_and_rest
        ctx.where, ctx.keep = (size, window), keep
        heads = kernels.split_heads(parts, num_heads, size, window)
        # A PyLayer takes an output of an input's own shape for that input, changed in place.
        return (*heads, parts[-1].unsqueeze(0)) if keep else tuple(heads)

    @staticmethod
    def gradients(ctx: Any, *grads: Tensor) -> Sequence[Tensor | None]:
        size, window = ctx.where
        heads, onto = (grads[:-1], grads[-1].squeeze(0)) if ctx.keep else (grads, None)
        if learns(*grads):
            merged = [merge_heads(grad, size, window) for grad in heads]
            if onto is not None:
                merged[-1] = merged[-1] + onto
        else:
            merged = list(kernels.merge_heads(heads, size, window, onto=onto))
        return tuple(grad if wanted else None for grad, wanted in zip(merged, ctx.wanted))


def merge_heads(x: Tensor, size: Size, window: Size) -> Tensor:
    """Undo `split_heads`, for a tensor that `kernels` takes: [B * windows, h, n, d] -> [B, H * W, h d]."""
    return _MergeHeads.apply(x, size, window) if learns(x) else kernels.merge_heads([x], size, window)[0]


class _MergeHeads(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: Size, window: Size) -> Tensor:
        ctx.num_heads, ctx.where = x.shape[1], (size, window)
        return kernels.merge_heads([x], size, window)[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return split_heads([grad], ctx.num_heads, *ctx.where)[0]


def mean_rows(x: Tensor) -> Tensor:
    """[..., M, C] -> [..., 1, C]."""
    if kernels.takes(x):
        return _MeanRows.apply(x) if learns(x) else kernels.sum_rows(x, 1 / x.shape[-2])
    return _sum_rows(x) / x.shape[-2]


class _MeanRows(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = x.shape[-2]
        return kernels.sum_rows(x, 1 / ctx.rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        if kernels.takes(grad) and not learns(grad):
            return kernels.repeat_row(grad, ctx.rows, 1 / ctx.rows)
        return repeat_row(grad, ctx.rows) / ctx.rows


def sum_rows(x: Tensor) -> Tensor:
    """[M, C] -> [C]."""
    summed = kernels.sum_rows(x) if kernels.takes(x) and not learns(x) else _sum_rows(x)
    return summed.reshape([x.shape[1]])


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


def add_row(x: Tensor, row: Tensor, factor: float = 1.0) -> Tensor:
    """[..., M, C] + factor [..., 1, C]: one row to all."""
    if kernels.takes(x, row):
        return _AddRow.of((x, row), factor) if learns(x, row) else kernels.add_row(x, row, factor)
    row = repeat_row(row, x.shape[-2])
    return x + row if factor == 1 else x + row * factor


class _AddRow(Function):
    @staticmethod
    def run(ctx: Any, x: Tensor, row: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return kernels.add_row(x, row, factor)

    @staticmethod
    def gradients(ctx: Any, grad: Tensor) -> Sequence[Tensor | None]:
        summed = None
        if ctx.wanted[1]:
            plain = learns(grad) or not kernels.takes(grad)
            summed = _sum_rows(grad) * ctx.factor if plain else kernels.sum_rows(grad, ctx.factor)
        return grad if ctx.wanted[0] else None, summed


def centre_rows(x: Tensor, factor: float) -> Tensor:
    """(x - its mean row) factor: [..., M, C] -> [..., M, C]."""
    if kernels.takes(x):
        return _CentreRows.apply(x, factor) if learns(x) else kernels.centre_rows(x, factor)
    return add_row(x, mean_rows(x), -1.0) * factor


class _CentreRows(PyLayer):
    """Its matrix is symmetric: the gradient takes the same way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return kernels.centre_rows(x, factor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return centre_rows(grad, ctx.factor)


def add_bias(x: Tensor, bias: Tensor) -> Tensor:
    """[B, C, ...] + [C] -> [B, C, ...]."""
    if kernels.takes(x, bias):
        return _AddBias.of((x, bias)) if learns(x, bias) else kernels.add_channels(x, bias)
    return x + bias.reshape([1, -1, *[1] * (x.ndim - 2)])


class _AddBias(Function):
    @staticmethod
    def run(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        return kernels.add_channels(x, bias)

    @staticmethod
    def gradients(ctx: Any, grad: Tensor) -> Sequence[Tensor | None]:
        summed = None
        if ctx.wanted[1]:
            whole = learns(grad) or not kernels.takes(grad)
            summed = grad.sum(axis=[0, *range(2, grad.ndim)]) if whole else kernels.sum_channels(grad)
        return grad if ctx.wanted[0] else None, summed


def by_kernel(ctx: Any) -> bool:
    """Return whether a backward pass goes through `kernels`, as the forward pass did: not one that is recorded."""
    return ctx.by_kernel and not paddle.is_grad_enabled()


def rows_of(x: Tensor) -> Tensor:
    """[..., C] -> [M, C]."""
    return x.reshape([-1, x.shape[-1]])
