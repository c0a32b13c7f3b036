"""Images to tokens."""

from __future__ import annotations

from ..ops.tokens import map_to_tokens
from .basic import Conv2d, Identity, LayerNorm, Module, Tensor, convolve_to_tokens


class PatchEmbed(Module):
    """Cut an image into patches and project each: [B, in_chans, H * p, W * p] -> [B, H * W, C].

    Args:
        patch_size: p, pixels; in_chans, dim: channels of the image and C.
        norm_eps: the epsilon of a LayerNorm over C behind the projection; None: no norm.
    """

    def __init__(self, patch_size: int, in_chans: int, dim: int, norm_eps: float | None = None) -> None:
        super().__init__()
        self.proj = Conv2d(in_chans, dim, patch_size, stride=patch_size)
        self.norm = LayerNorm(dim, norm_eps) if norm_eps else Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(convolve_to_tokens(self.proj, x))


class MapToTokens(Module):
    """`map_to_tokens` as a layer, for a Sequential: [B, C, H, W] -> [B, H * W, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return map_to_tokens(x)
