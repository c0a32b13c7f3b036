"""Images to tokens."""

from __future__ import annotations

from ..ops.tokens import map_to_tokens
from .basic import Conv2d, Module


class PatchEmbed(Module):
    """Cut an image into patches and project each: [B, in_chans, H * p, W * p] -> [B, H * W, C]."""

    def __init__(self, patch_size, in_chans, dim):
        super().__init__()
        self.proj = Conv2d(in_chans, dim, patch_size, stride=patch_size)

    def forward(self, x):
        return map_to_tokens(self.proj(x))
