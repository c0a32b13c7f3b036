"""Depthwise filters on a CPU in eager mode, and their gradients, where Paddle's own operator is slow.

I images, H x W places with C channels each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor
from paddle.nn.functional import conv2d  # imported by name: what counts multiply-adds replaces F.conv2d

from . import kernels
from .eager import Function, by_kernel, learns, rows_of, sum_rows, swap
from .kernels import Size
from .windows import cut_windows


def filter_tokens(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    size: Size,
    prefix: int = 0,
    window: Size | None = None,
    onto: Tensor | None = None,
) -> Tensor:
    """Filter each channel of tokens on their grid, zero padded; for tensors that `kernels` takes.

    Args:
        x: [I, P + H * W, C].
        kernel: [G, C, k, k], k odd; image or window i is filtered by those of i mod G.
        bias: [C].
        size: (H, W).
        prefix: P tokens before the grid's, whose output is 0 (without a bias).
        window: what the grid is cut into, zero padded each; None: it is not.
        onto: [I, P + H * W, C], to which the result is added.

    Returns:
        [I, P + H * W, C]
    """
    groups, channels, side, _ = kernel.shape
    taps = swap(kernel.reshape([groups, channels, side * side]), 1)
    if learns(x, kernel, bias, onto):
        return _FilterTokens.of((x, taps, bias, onto), size, prefix, window)
    return kernels.filter_channels(x, taps, bias, size, prefix, window, onto)


class _FilterTokens(Function):
    @staticmethod
    def run(
        ctx: Any,
        x: Tensor,
        taps: Tensor,
        bias: Tensor | None,
        onto: Tensor | None,
        size: Size,
        prefix: int,
        window: Size | None,
    ) -> Tensor:
        ctx.where, ctx.by_kernel = (size, prefix, window), True
        ctx.save_for_backward(x, taps)
        return kernels.filter_channels(x, taps, bias, size, prefix, window, onto)

    @staticmethod
    def gradients(ctx: Any, grad: Tensor) -> Sequence[Tensor | None]:
        x, taps = ctx.saved_tensor()
        (groups, count, _), (size, prefix, window) = taps.shape, ctx.where
        side = math.isqrt(count)
        gradients: tuple[Callable[[], Tensor], ...] = (
            lambda: kernels.filter_channels(grad, taps, None, size, prefix, window, turned=True),
            lambda: kernels.filter_channels_backward(x, grad, groups, side, size, prefix, window),
            lambda: sum_rows(rows_of(grad)),
            lambda: grad,
        )
        if not by_kernel(ctx):
            gradients = (
                lambda: _FilterTokens.of((grad, taps.flip(1), None, None), *ctx.where),
                lambda: tap_slopes(x, grad, groups, side, *ctx.where),
                *gradients[2:],
            )
        return [gradient() if wanted else None for gradient, wanted in zip(gradients, ctx.wanted)]


def filter_by_taps(x: Tensor, taps: Tensor, size: Size, window: Size | None) -> Tensor:
    """`filter_tokens` by filters [G, k * k, C], for tensors that learn."""
    return _FilterTokens.of((x, taps, None, None), size, 0, window)


def tap_slopes(
    x: Tensor, grad: Tensor, groups: int, side: int, size: Size, prefix: int, window: Size | None
) -> Tensor:
    """`kernels.filter_channels_backward` of differentiable operators."""
    x, grad = x[:, prefix:], grad[:, prefix:]
    if window is not None:
        x, grad = (cut_windows(each, size, window) for each in (x, grad))
    images, _, channels = x.shape
    height, width = window or size
    half = side // 2
    padded = F.pad(x.reshape([images, height, width, channels]), [half] * 4, data_format="NHWC")
    grad = grad.reshape([images, height, width, channels])
    taps = [
        (padded[:, y : y + height, z : z + width] * grad).sum(axis=[1, 2])
        for y in range(side)
        for z in range(side)
    ]
    return paddle.stack(taps, axis=1).reshape([-1, groups, side * side, channels]).sum(axis=0)


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
    return _Through.of((convolve(x.detach()), x, kernel)) if learns(x) else convolve(x)


class _Through(Function):
    """Return `out`, a function of x without its gradient, with the gradient of x."""

    @staticmethod
    def run(ctx: Any, out: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.out_learns = not out.stop_gradient
        # Another name of the same numbers, which a PyLayer does not give a tensor that learned nothing.
        return out.clone() if out.stop_gradient else out.reshape(out.shape)

    @staticmethod
    def gradients(ctx: Any, grad: Tensor) -> Sequence[Tensor | None]:
        (kernel,) = ctx.saved_tensor()
        turned = kernel.flip([2, 3])
        along = conv2d(grad, turned, padding=kernel.shape[-1] // 2, groups=kernel.shape[0])
        return grad if ctx.out_learns else None, along, None
