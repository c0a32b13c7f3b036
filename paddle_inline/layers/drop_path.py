"""Stochastic depth (Huang et al., 2016): drops a residual branch for whole samples."""

from __future__ import annotations

import paddle

from .basic import Module, Tensor


class DropPath(Module):
    """In training, zeroes each sample with probability `rate` and divides the others by 1 - rate.

    Args:
        rate: 0 <= rate < 1.

    Input and output: [B, ...].
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0 or not self.training:
            return x
        keep = 1 - self.rate
        shape = [x.shape[0]] + [1] * (x.ndim - 1)
        return x * (paddle.bernoulli(paddle.full(shape, keep, "float32")) / keep).astype(x.dtype)


def depth_rates(rate: float, depth: int) -> list[float]:
    """Return the rates of `depth` blocks: linear from 0 at the first to `rate` at the last block."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]
