"""The layers every model is made of, with the initialisation of the papers' models.

Linear weights: truncated normal, std 0.02; convolutions: PyTorch's default, uniform within
1 / sqrt(fan_in), weight and bias alike; norms: 1 and 0.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..ops.tokens import Size, map_to_tokens, tokens_to_map

Module, ModuleList, Sequential, Identity = nn.Module, nn.ModuleList, nn.Sequential, nn.Identity
Dropout, GELU, ReLU = nn.Dropout, nn.GELU, nn.ReLU


def meta_init() -> AbstractContextManager:
    """Return a context in which models are built in no time, their parameters with shapes and without values."""
    return torch.device("meta")


def set_mode(module: Any, training: bool) -> None:
    """Put a module and all in it into train or eval mode, past a `train` of its own."""
    nn.Module.train(module, training)


def freeze(part: Any) -> None:
    """Take the gradients off a parameter or off all of a module's."""
    for parameter in part.parameters() if isinstance(part, nn.Module) else [part]:
        parameter.requires_grad_(False)


def rest(part: Any) -> None:
    """Put a module and all in it into eval mode; a parameter has none."""
    if isinstance(part, nn.Module):
        part.eval()


def token_parameter(*shape: int) -> Tensor:
    """Return a learned token, position embedding or bias table: truncated normal, std 0.02."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(*shape), std=0.02))


def learned(values: np.ndarray) -> Tensor:
    """Return a parameter that begins with the given values."""
    return nn.Parameter(torch.tensor(values, dtype=torch.get_default_dtype()))


class TanhGELU(nn.GELU):
    """GELU by its tanh approximation."""

    def __init__(self) -> None:
        super().__init__(approximate="tanh")


class Linear(nn.Linear):
    """x W^T + b over the last dimension; PyTorch stores W as [out, in], Paddle as [in, out]."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        nn.init.trunc_normal_(self.weight, std=0.02)
        if bias:
            nn.init.zeros_(self.bias)


def linear_like(like: Tensor | None, in_features: int, out_features: int) -> Linear:
    """Return a Linear of the precision of a parameter and on its device; None: as any other."""
    layer = Linear(in_features, out_features)
    return layer if like is None else layer.to(like)


class Conv1d(nn.Conv1d):
    """1-d convolution over [B, C, N]."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, groups=groups)


class Conv2d(nn.Conv2d):
    """2-d convolution over [B, C, H, W]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            groups=groups,
            bias=bias,
        )


class SequenceConv(nn.Conv2d):
    """Filters heads [B, h, N, d] along their tokens: one filter of so many taps per head, zero padding, no bias."""

    def __init__(self, num_heads: int, taps: int) -> None:
        super().__init__(
            num_heads, num_heads, (taps, 1), padding=(taps // 2, 0), groups=num_heads, bias=False
        )


def convolve_to_tokens(convolution: Conv2d, x: Tensor) -> Tensor:
    """Take a map through a convolution to tokens, [B, C, H, W] -> [B, N, C']."""
    return map_to_tokens(convolution(x))


def filter_tokens(convolution: Any, x: Tensor, size: Size) -> Tensor:
    """Take tokens through a convolution that keeps their grid (H, W): [B, H * W, C] -> [B, H * W, C]."""
    return map_to_tokens(convolution(tokens_to_map(x, size)))


class LayerNorm(nn.LayerNorm):
    """Normalises the last dimension."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__(dim, eps=eps)
