"""Work on Paddle tensors by the loops that Numba compiles: what Paddle's CPU operators do on one core, or slowly.

Numba is optional, and used where a process trains. `takes` says for which tensors these functions are: float32 on a
CPU in eager mode. `PADDLE_INLINE_NUMBA=0` in the environment leaves all to Paddle. (Above 300 lines: a function for
each of the loops.)
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle import Tensor, _C_ops

from ..utils import compiled

Size = tuple[int, int]  # (height, width)
_FLOAT32 = (paddle.float32,)  # `in` looks for the same object first, which is quicker than to compare types
_locks = {"one": threading.Lock()}  # one of Numba's ways to share work among cores may not be entered twice
if hasattr(os, "register_at_fork"):  # where another thread was in a loop, a child's lock would stay closed
    os.register_at_fork(after_in_child=lambda: _locks.update(one=threading.Lock()))


@cache
def _loops() -> ModuleType | None:
    return compiled.load("paddle_inline.ops.loops")


def version() -> str | None:
    """Load the loops, for all that this process does from now on.

    Returns:
        The Numba that compiles them, or None: there is none, or it is not wanted.
    """
    loops = _loops() if compiled.wanted() else None
    return None if loops is None else loops.numba.__version__


def _trains():
    return paddle.is_grad_enabled() and paddle.base.framework._dygraph_tracer()._train_mode


def takes(*tensors: Tensor | None) -> bool:
    """Return whether the functions here do for these tensors, the first of which `eager.suits`.

    The first forward pass of training loads the loops, or `version`; a process that only infers does without them, and
    without compiling.
    """
    if not compiled.wanted() or not (_loops.cache_info().currsize or _trains()) or _loops() is None:
        return False
    return all([tensor is None or tensor.dtype in _FLOAT32 for tensor in tensors])


def _run(name: str, tensors: tuple[Tensor, ...], *numbers: Any) -> None:
    """Run a loop on tensors, whose memory it reads and writes, and numbers."""
    held = [_contiguous(tensor) for tensor in tensors]
    _call(name, *(tensor.data_ptr() for tensor in held), *numbers)


def _call(name: str, *numbers: Any) -> None:
    """Run a loop, whose caller holds the memory that it reads and writes."""
    with _locks["one"]:
        getattr(_loops(), name)(*numbers)


def _contiguous(x: Tensor) -> Tensor:
    return x if x.is_contiguous() else x.contiguous()


class Columns(NamedTuple):
    """Some columns of tokens, `width` from `start` on of [B, N, T], which are read or written where they stand."""

    whole: Tensor
    start: int
    width: int


def _place(x: Tensor | Columns) -> tuple[Tensor, int, int, list[int]]:
    """Return what holds tokens in memory, their address, the stride from one to the next, and their shape [B, N, C]."""
    if isinstance(x, Columns):
        whole, stride = _contiguous(x.whole), x.whole.shape[-1]
        _fit((0 <= x.start <= stride - x.width and x.width > 0, True))
        return whole, whole.data_ptr() + 4 * x.start, stride, [*whole.shape[:-1], x.width]
    x = _contiguous(x)
    return x, x.data_ptr(), x.shape[-1], list(x.shape)


def _fit(*pairs: tuple[Any, Any]) -> None:
    """Refuse tensors that do not belong together: the loops go by what they are told."""
    for got, needed in pairs:
        if got != needed:
            raise ValueError(f"a tensor of {got} stands where {needed} is needed")


def gelu(x: Tensor, tanh: bool = False) -> Tensor:
    """Return the GELU of every number, exact or by its tanh approximation."""
    out = _like(x)
    _run("gelu", (x, out), math.prod(x.shape), tanh)
    return out


def gelu_backward(x: Tensor, grad: Tensor, tanh: bool = False) -> Tensor:
    """Return the gradient of `gelu`'s x."""
    _fit((grad.shape, x.shape))
    out = _like(x)
    _run("gelu_backward", (x, grad, out), math.prod(x.shape), tanh)
    return out


def gelu_of_sum(x: Tensor, bias: Tensor) -> Tensor:
    """[..., C], [C] -> the exact GELU of x + bias."""
    _fit((bias.shape, x.shape[-1:]))
    out = _like(x)
    _run("gelu_of_sum", (x, bias, out), *_matrix(x))
    return out


def gelu_of_sum_backward(x: Tensor, bias: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of `gelu_of_sum`'s x, which is written over `grad`, and bias."""
    _fit((bias.shape, x.shape[-1:]), (grad.shape, x.shape))
    biases, grad = _like(bias), _contiguous(grad)
    _run("gelu_of_sum_backward", (x, bias, grad, biases), *_matrix(x))
    return grad, biases


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """[..., C], [C], [C] -> [..., C] and each row's mean and 1 / standard deviation, [2, M]."""
    _fit((weight.shape, x.shape[-1:]), (bias.shape, x.shape[-1:]))
    rows, channels = _matrix(x)
    out, moments = _like(x), _empty([2, rows])
    _run("layer_norm", (x, weight, bias, out, moments), rows, channels, epsilon)
    return out, moments


def layer_norm_backward(
    x: Tensor, weight: Tensor, moments: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `layer_norm`'s x, weight and bias."""
    rows, channels = _matrix(x)
    _fit((grad.shape, x.shape), (weight.shape, [channels]), (moments.shape, [2, rows]))
    along, weights, biases = _like(x), _like(weight), _like(weight)
    _run("layer_norm_backward", (x, weight, moments, grad, along, weights, biases), rows, channels)
    return along, weights, biases


def sum_rows(x: Tensor, factor: float = 1.0) -> Tensor:
    """[..., M, C] -> [..., 1, C], times a factor."""
    out = _empty([*x.shape[:-2], 1, x.shape[-1]])
    _run("sum_rows", (x, out), math.prod(x.shape[:-2]), *x.shape[-2:], factor)
    return out


def add_row(
    x: Tensor, row: Tensor, row_factor: float = 1.0, factor: float = 1.0, out: Tensor | None = None
) -> Tensor:
    """(x + row_factor row) factor: [..., M, C] and [..., 1, C] -> [..., M, C], into `out` if given."""
    _fit((math.prod(row.shape), math.prod(x.shape[:-2]) * x.shape[-1]))
    out = _like(x) if out is None else out
    _fit((out.shape, x.shape), (out.is_contiguous(), True))
    _run("add_row", (x, row, out), math.prod(x.shape[:-2]), *x.shape[-2:], row_factor, factor)
    return out


def centre_rows(x: Tensor, factor: float = 1.0) -> Tensor:
    """(x - its mean row) factor: [..., M, C] -> [..., M, C]."""
    out = _like(x)
    _run("centre_rows", (x, out), math.prod(x.shape[:-2]), *x.shape[-2:], factor)
    return out


def repeat_row(row: Tensor, rows: int, factor: float = 1.0) -> Tensor:
    """[..., 1, C] factor -> [..., M, C]."""
    out = _empty([*row.shape[:-2], rows, row.shape[-1]])
    _run("repeat_row", (row, out), math.prod(row.shape[:-2]), rows, row.shape[-1], factor)
    return out


def split_columns(x: Tensor, parts: int) -> list[Tensor]:
    """[..., parts C] -> `parts` tensors [..., C]."""
    rows, columns = _matrix(x)
    _fit((columns % parts, 0))
    width, x = columns // parts, _contiguous(x)
    outs = [_empty([*x.shape[:-1], width]) for _ in range(parts)]
    starts = np.arange(parts + 1) * width
    _call("copy_columns", _addresses(outs), starts, x.data_ptr(), rows, columns, False)
    return outs


def join_columns(parts: Sequence[Tensor]) -> Tensor:
    """Tensors [..., C_i] -> [..., sum of C_i]."""
    rows, held = math.prod(parts[0].shape[:-1]), [_contiguous(part) for part in parts]
    _fit(*((part.shape[:-1], parts[0].shape[:-1]) for part in parts))
    starts = np.cumsum([0, *(part.shape[-1] for part in parts)])
    out = _empty([*parts[0].shape[:-1], int(starts[-1])])
    _call("copy_columns", _addresses(held), starts, out.data_ptr(), rows, out.shape[-1], True)
    return out


def split_heads(parts: Sequence[Tensor | Columns], num_heads: int, size: Size, window: Size) -> list[Tensor]:
    """Tokens of windows to heads: [B, H * W, C] each -> [B * windows, h, n, C / h] each, n tokens a window."""
    images, _, channels = _place(parts[0])[3]
    _, rows, columns, _, _ = _windows(images, size, window)
    _fit((channels % num_heads, 0))
    shape = [images * rows * columns, num_heads, window[0] * window[1], channels // num_heads]
    heads = [_empty(shape) for _ in parts]
    _move_heads(parts, heads, size, window, False)
    return heads


def merge_heads(
    heads: Sequence[Tensor],
    size: Size,
    window: Size,
    outs: Sequence[Tensor | Columns] | None = None,
    onto: Tensor | None = None,
) -> Sequence[Tensor | Columns]:
    """Undo `split_heads`.

    Args:
        heads: [B * windows, h, n, d] each.
        size, window: (H, W) of the grid and of a window.
        outs: where to write them, [B, H * W, h d] each.
        onto: [B, H * W, h d], which is added to the last.
    """
    if outs is None:
        (windows, num_heads, tokens, width), area = heads[0].shape, size[0] * size[1]
        outs = [_empty([windows * tokens // area, area, num_heads * width]) for _ in heads]
    _move_heads(outs, heads, size, window, True, onto)
    return outs


def _move_heads(parts, heads, size, window, merge, onto=None):
    places, held = [_place(part) for part in parts], [_contiguous(each) for each in heads]
    (images, tokens, channels), (num_heads, _, width) = places[0][3], heads[0].shape[1:]
    _, rows, columns, _, _ = _windows(images, size, window)
    shape = [images * rows * columns, num_heads, window[0] * window[1], width]
    _fit((rows * window[0] * columns * window[1], tokens), (num_heads * width, channels))
    _fit(*((place[3], places[0][3]) for place in places), *((each.shape, shape) for each in held))
    if onto is not None:
        _fit((onto.shape, places[-1][3]))
        onto = _contiguous(onto)
    addresses = np.array([(place[1], place[2]) for place in places], np.int64).T.copy()
    onto_at = 0 if onto is None else onto.data_ptr()
    geometry = images, rows, columns, *window, num_heads, width
    _call("move_heads", *addresses, _addresses(held), onto_at, *geometry, merge)


def _addresses(tensors: Sequence[Tensor]) -> np.ndarray:
    return np.array([tensor.data_ptr() for tensor in tensors], np.int64)


def square_sums(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of each tensor's squares, float64."""
    out = np.empty(len(tensors))
    _run_on_many("square_sums", [tensors], out)
    return paddle.to_tensor(out)


def scale(tensors: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply tensors in place by a number [1], which the caller does not wait for."""
    _run_on_many("scale", [tensors], factor)


def adamw(
    lists: Sequence[Sequence[Tensor]],
    rate: Tensor,
    go: Tensor,
    betas: tuple[float, float],
    epsilon: float,
    decay: float,
) -> None:
    """Take a step of AdamW in place, to the bits of Paddle's kernel for AVX-512; other kernels round otherwise.

    Args:
        lists: weights, gradients, first and second moments, and powers of both betas [1]; a place for each tensor.
        rate, go: [1]; where `go` is 0 nothing changes.
    """
    _fit(*((part.shape, weight.shape) for tensors in lists[1:4] for part, weight in zip(tensors, lists[0])))
    _run_on_many("adamw", lists, rate, go, *betas, epsilon, decay)


def _run_on_many(name, lists, *rest):
    """Run a loop on lists of contiguous tensors, however many."""
    addresses = [np.array([tensor.data_ptr() for tensor in tensors], np.int64) for tensors in lists]
    sizes = np.array([math.prod(tensor.shape) for tensor in lists[0]], np.int64)
    with _locks["one"]:
        getattr(_loops(), name)(
            *addresses, sizes, *(r.data_ptr() if isinstance(r, Tensor) else r for r in rest)
        )


def softmax(x: Tensor, factor: float = 1.0, out: Tensor | None = None) -> Tensor:
    """Return the softmax of factor x over the last dimension, in `out` if given, which may be x."""
    out = _like(x) if out is None else out
    _fit((out.shape, x.shape), (out.is_contiguous(), True))
    _run("softmax", (x, out), *_matrix(x), factor)
    return out


def softmax_backward(y: Tensor, grad: Tensor, factor: float = 1.0, out: Tensor | None = None) -> Tensor:
    """Return the gradient of the softmax's x, given its output, in `out` if given, which may be `grad`."""
    out = _like(y) if out is None else out
    _fit((grad.shape, y.shape), (out.shape, y.shape), (out.is_contiguous(), True))
    _run("softmax_backward", (y, grad, out), *_matrix(y), factor)
    return out


def gaussian(a: Tensor, b: Tensor, product: Tensor) -> Tensor:
    """exp(min(product - |a_i|^2 / 2 - |b_j|^2 / 2, 0)), written over a_i . b_j.

    [..., N, d], [..., M, d] and [..., N, M] -> [..., N, M].
    """
    _fit(
        (product.shape, [*a.shape[:-1], b.shape[-2]]),
        (b.shape[:-2], a.shape[:-2]),
        (b.shape[-1], a.shape[-1]),
    )
    _run("gaussian", (a, b, product), math.prod(a.shape[:-2]), a.shape[-2], b.shape[-2], a.shape[-1])
    return product


def gaussian_backward(a: Tensor, b: Tensor, y: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `gaussian`'s product, and of a and b through their norms."""
    _fit((grad.shape, y.shape))
    slope, along_a, along_b = _like(y), _like(a), _like(b)
    sizes = math.prod(a.shape[:-2]), a.shape[-2], b.shape[-2], a.shape[-1]
    _run("gaussian_backward", (a, b, y, grad, slope, along_a, along_b), *sizes)
    return slope, along_a, along_b


def swap(x: Tensor, axis: int) -> Tensor:
    """Swap a dimension with the next one: [..., M, N, ...] -> [..., N, M, ...]."""
    before, (first, second), behind = x.shape[:axis], x.shape[axis : axis + 2], x.shape[axis + 2 :]
    out = _empty([*before, second, first, *behind])
    _run("swap", (x, out), math.prod(before), first, second, math.prod(behind))
    return out


def grid_of(shape: list[int], side: int, stride: int, padding: int) -> Size:
    """Return (rows, columns) of what a convolution makes of images [B, C, H, W]."""
    height, width = shape[2:]
    return (height + 2 * padding - side) // stride + 1, (width + 2 * padding - side) // stride + 1


def cut_patches(x: Tensor, side: int, stride: int, padding: int) -> Tensor:
    """What a convolution of k = side sees from each place, zero padded: [B, C, H, W] -> [B, N, C k k]."""
    images, channels, height, width = x.shape
    rows, columns = grid_of(x.shape, side, stride, padding)
    out = _empty([images, rows * columns, channels * side * side])
    _run("cut_patches", (x, out), images, channels, height, width, side, stride, padding, rows, columns)
    return out


def join_patches(grad: Tensor, shape: list[int], side: int, stride: int, padding: int) -> Tensor:
    """Return the gradient of the images that `cut_patches` was given, [B, C, H, W]."""
    rows, columns = grid_of(shape, side, stride, padding)
    _fit((math.prod(grad.shape), shape[0] * rows * columns * shape[1] * side * side))
    out = _empty(shape)
    _run("join_patches", (grad, out), *shape, side, stride, padding, rows, columns)
    return out


def add_channels(x: Tensor, bias: Tensor) -> Tensor:
    """[B, C, ...] + [C] -> [B, C, ...]."""
    _fit((bias.shape, x.shape[1:2]))
    out = _like(x)
    _run("add_channels", (x, bias, out), *x.shape[:2], math.prod(x.shape[2:]))
    return out


def sum_channels(x: Tensor) -> Tensor:
    """[B, C, ...] -> [C]."""
    out = _empty([x.shape[1]])
    _run("sum_channels", (x, out), *x.shape[:2], math.prod(x.shape[2:]))
    return out


def filter_channels(
    x: Tensor | Columns,
    kernels: Tensor,
    bias: Tensor | None,
    size: Size,
    prefix: int = 0,
    window: Size | None = None,
    onto: Tensor | Columns | None = None,
    out: Tensor | Columns | None = None,
    turned: bool = False,
) -> Tensor | Columns:
    """Filter each channel on its grid, zero padded.

    Args:
        x: [B, P + H * W, C].
        kernels: [G, k * k, C]; window i is filtered by those of i mod G.
        bias: [C].
        size: (H, W).
        prefix: P tokens before the grid's, whose output is 0.
        window: what the grid is cut into, zero padded each; None: it is not.
        onto: [B, P + H * W, C], to which the result is added; it may be `out`.
        out: where to write it; None: into a new tensor.
        turned: by the kernels turned around, which gives the gradient of x.

    Returns:
        [B, P + H * W, C]
    """
    _held, at, stride, shape = _place(x)
    (groups, taps, channels), geometry = kernels.shape, _windows(shape[0], size, window)
    out = _empty(shape) if out is None else out
    _held_out, out_at, out_stride, out_shape = _place(out)
    _held_onto, onto_at, onto_stride, onto_shape = (None, 0, 0, shape) if onto is None else _place(onto)
    _fit(
        (shape, [shape[0], prefix + size[0] * size[1], channels]),
        (out_shape, shape),
        (onto_shape, shape),
        (math.prod(geometry[:3]) % groups, 0),
        (math.isqrt(taps) ** 2, taps),
        (taps % 2, 1),
    )
    if bias is not None:
        _fit((bias.shape, [channels]))
        bias = _contiguous(bias)
    kernels = _contiguous(kernels)
    addresses = at, kernels.data_ptr(), 0 if bias is None else bias.data_ptr(), onto_at, out_at
    numbers = *geometry, channels, prefix, math.isqrt(taps), groups, turned
    _call("filter_channels", *addresses, stride, onto_stride, out_stride, *numbers)
    return out


def filter_channels_backward(
    x: Tensor | Columns,
    grad: Tensor | Columns,
    groups: int,
    side: int,
    size: Size,
    prefix: int = 0,
    window: Size | None = None,
) -> Tensor:
    """Return the gradient of `filter_channels`' kernels, [G, k * k, C]."""
    (_held, at, stride, shape), (_held_grad, grad_at, grad_stride, grad_shape) = _place(x), _place(grad)
    geometry, channels = _windows(shape[0], size, window), shape[2]
    windows = math.prod(geometry[:3])
    _fit((grad_shape, shape), (shape[1], prefix + size[0] * size[1]), (windows % groups, 0), (side % 2, 1))
    out = _empty([windows, side * side, channels])
    addresses = at, grad_at, out.data_ptr(), stride, grad_stride
    _call("filter_channels_backward", *addresses, *geometry, channels, prefix, side)
    return (
        out
        if windows == groups
        else sum_rows(out.reshape([windows // groups, -1])).reshape([groups, side * side, channels])
    )


def _windows(images: int, size: Size, window: Size | None) -> tuple[int, ...]:
    """Return (images, rows and columns of windows, height, width)."""
    height, width = window or size
    _fit((height > 0 and width > 0, True))
    _fit((size[0] % height, 0), (size[1] % width, 0))
    return images, size[0] // height, size[1] // width, height, width


def _empty(shape: list[int]) -> Tensor:
    return _C_ops.empty(shape, paddle.float32, paddle.CPUPlace())  # paddle.empty takes five times as long


def _like(x: Tensor) -> Tensor:
    return _empty(x.shape)


def _matrix(x):
    return math.prod(x.shape[:-1]), x.shape[-1]
