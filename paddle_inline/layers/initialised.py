"""Layers and tables that begin otherwise than those of basic.py.

Normal: truncated normal, std 0.02, as a Linear. Xavier: uniform within gain sqrt(6 / (fan_in + fan_out)).
"""

from __future__ import annotations

import math

import paddle
from paddle import Tensor, nn

from .basic import TRUNCATED_NORMAL, Module


def uniform_parameter(bound: float, *shape: int) -> Tensor:
    """Return a learned table that begins uniform within +-bound."""
    return paddle.create_parameter(
        list(shape), paddle.get_default_dtype(), default_initializer=nn.initializer.Uniform(-bound, bound)
    )


class XavierLinear(nn.Linear):
    """A Linear whose weight begins uniform within gain sqrt(6 / (in + out)), and its bias at 0."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, gain: float = 1.0) -> None:
        super().__init__(
            in_features,
            out_features,
            weight_attr=_xavier(in_features, out_features, gain),
            bias_attr=None if bias else False,
        )


class NormalConv2d(nn.Conv2D):
    """A Conv2d that begins as a Linear does: weight truncated normal, std 0.02, bias 0. Arguments as for `Conv2d`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            padding=padding,
            groups=groups,
            weight_attr=paddle.ParamAttr(initializer=TRUNCATED_NORMAL),
            bias_attr=paddle.ParamAttr(initializer=nn.initializer.Constant(0.0)) if bias else False,
        )


class XavierConv2d(nn.Conv2D):
    """A Conv2d without bias whose weight begins uniform within gain sqrt(6 / (fan_in + fan_out))."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        padding: int = 0,
        groups: int = 1,
        gain: float = 1.0,
    ) -> None:
        fan_in, fan_out = in_channels // groups * kernel_size**2, out_channels * kernel_size**2
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            padding=padding,
            groups=groups,
            weight_attr=_xavier(fan_in, fan_out, gain),
            bias_attr=False,
        )


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, in float32 at least."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = self.create_parameter([dim], default_initializer=nn.initializer.Constant(1.0))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.astype("float32") if x.dtype in (paddle.float16, paddle.bfloat16) else x
        # a tensor: a number that is added is rounded to float32 by Paddle 2.6
        root = (
            (wide * wide).mean(axis=-1, keepdim=True) + paddle.to_tensor(self.eps, dtype=wide.dtype)
        ).sqrt()
        return (wide / root).astype(x.dtype) * self.weight


def _xavier(fan_in: int, fan_out: int, gain: float) -> paddle.ParamAttr:
    bound = gain * math.sqrt(6 / (fan_in + fan_out))
    return paddle.ParamAttr(initializer=nn.initializer.Uniform(-bound, bound))
