"""Layers and tables that begin otherwise than those of basic.py.

Normal: truncated normal, std 0.02, as a Linear. Xavier: uniform within gain sqrt(6 / (fan_in + fan_out)).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .basic import Conv2d, Module


def uniform_parameter(bound: float, *shape: int) -> Tensor:
    """Return a learned table that begins uniform within +-bound."""
    return nn.Parameter(nn.init.uniform_(torch.empty(*shape), -bound, bound))


class XavierLinear(nn.Linear):
    """A Linear whose weight begins uniform within gain sqrt(6 / (in + out)), and its bias at 0."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, gain: float = 1.0) -> None:
        super().__init__(in_features, out_features, bias=bias)
        nn.init.xavier_uniform_(self.weight, gain=gain)
        if bias:
            nn.init.zeros_(self.bias)


class NormalConv2d(Conv2d):
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
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, groups=groups, bias=bias)
        nn.init.trunc_normal_(self.weight, std=0.02)
        if bias:
            nn.init.zeros_(self.bias)


class XavierConv2d(Conv2d):
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
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, groups=groups, bias=False)
        nn.init.xavier_uniform_(self.weight, gain=gain)


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, in float32 at least."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        root = torch.sqrt((wide * wide).mean(dim=-1, keepdim=True) + self.eps)
        return (wide / root).to(x.dtype) * self.weight
