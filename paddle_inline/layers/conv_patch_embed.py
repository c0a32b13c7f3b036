"""Images to tokens through convolutions with batch normalisation (SOFT)."""

from __future__ import annotations

from collections.abc import Iterable

from ..ops.tokens import map_to_tokens
from .basic import Conv2d, Module, ReLU, Sequential, Tensor
from .batch_norm import BatchNorm2d


class ConvPatchEmbed(Module):
    """Conv 3x3, batch norm and ReLU per row of `convolutions`: [B, C, H, W] -> tokens [B, N, C'].

    Args:
        convolutions: (channels in, channels out, stride) of each.
    """

    def __init__(self, convolutions: Iterable[tuple[int, int, int]]) -> None:
        super().__init__()
        layers = []
        for in_chans, out_chans, stride in convolutions:
            conv = Conv2d(in_chans, out_chans, 3, stride=stride, padding=1)
            layers += [conv, BatchNorm2d(out_chans), ReLU()]
        self.proj = Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return map_to_tokens(self.proj(x))
