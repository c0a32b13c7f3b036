"""InLine-DeiT: a plain vision transformer with injective linear attention (InLine, section 5.1).

B batch, N patch tokens (H x W grid), C channels. The class token comes first and attends like the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..layers.attention import InLineAttention, SoftmaxAttention
from ..layers.basic import Dropout, Identity, LayerNorm, Linear, Module, ModuleList, token_parameter
from ..layers.drop_path import DropPath, depth_rates
from ..layers.mlp import Mlp
from ..layers.patch_embed import PatchEmbed
from ..layers.recompute import run_block
from ..ops.tokens import prepend_token, tokens_to_map
from .spec import (
    Published,
    check_heads,
    check_image,
    check_spec,
    chosen_blocks,
    image_size,
    one_attention_type,
)


@dataclass(frozen=True)
class DeiTSpec:
    """A row of sizes; every field but `published` can be overridden in `create_model`."""

    embed_dim: int
    num_heads: int
    img_size: int | tuple[int, int] = 224  # pixels; (height, width) if not square
    patch_size: int = 16
    depth: int = 12
    mlp_ratio: float = 4.0
    in_chans: int = 3
    num_classes: int = 1000  # 0: no head
    attn_type: str = "I"  # I or S, once or four times
    kernel_function: str = "identity"
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    recompute: bool = False
    published: Published = field(default_factory=Published)


VARIANTS = {
    "inline_deit_tiny": DeiTSpec(192, 6, 224, published=Published(6.5, 6.478, 1.1, 1.109, 74.5)),
    "inline_deit_small": DeiTSpec(320, 10, 288, published=Published(16.7, 16.735, 5.0, 4.966, 80.2)),
    "inline_deit_base": DeiTSpec(384, 12, 448, published=Published(23.8, 23.797, 17.2, 17.169, 82.3)),
    # Not a published model: small enough to learn handwritten digits in minutes on a CPU.
    "inline_deit_digits": DeiTSpec(64, 4, 32, patch_size=4, depth=4, num_classes=10),
}


class Block(Module):
    """Pre-norm transformer block: tokens [B, 1 + N, C] and the grid (H, W) -> tokens."""

    def __init__(self, dim, num_heads, mlp_ratio, attn_type, kernel_function, drop_rate, drop_path_rate):
        super().__init__()
        self.norm1 = LayerNorm(dim)
        if attn_type == "I":
            self.attn = InLineAttention(
                dim,
                num_heads,
                drop_rate=drop_rate,
                kernel_function=kernel_function,
                num_prefix_tokens=1,
            )
        else:
            self.attn = SoftmaxAttention(dim, num_heads, drop_rate=drop_rate)
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop_rate)

    def forward(self, x, size):
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class InLineDeiT(Module):
    """Images [B, in_chans, *img_size] -> logits [B, num_classes].

    Raises ValueError for an image of another size than it was built for.
    """

    NO_DECAY = ("pos_embed", "cls_token")

    def __init__(self, spec):
        super().__init__()
        check_spec(spec)
        check_heads(spec.embed_dim, spec.num_heads)
        self.spec = spec
        self.img_size = image_size(spec.img_size, spec.patch_size)
        self.grid = tuple(side // spec.patch_size for side in self.img_size)
        letter = one_attention_type(spec.attn_type)
        self.cls_token = token_parameter(1, 1, spec.embed_dim)
        self.pos_embed = token_parameter(1, 1 + self.grid[0] * self.grid[1], spec.embed_dim)
        self.patch_embed = PatchEmbed(spec.patch_size, spec.in_chans, spec.embed_dim)
        self.pos_drop = Dropout(spec.drop_rate)
        self.blocks = ModuleList(
            [
                Block(
                    spec.embed_dim,
                    spec.num_heads,
                    spec.mlp_ratio,
                    letter,
                    spec.kernel_function,
                    spec.drop_rate,
                    rate,
                )
                for rate in depth_rates(spec.drop_path_rate, spec.depth)
            ]
        )
        self.norm = LayerNorm(spec.embed_dim)
        self.head = Linear(spec.embed_dim, spec.num_classes) if spec.num_classes else Identity()

    def embed(self, x):
        """Images -> class and patch tokens with their positions, [B, 1 + N, C]."""
        check_image(x, (self.spec.in_chans, *self.img_size))
        x = prepend_token(self.cls_token, self.patch_embed(x))
        return self.pos_drop(x + self.pos_embed)

    def forward_features(self, x):
        """Images -> normed class and patch tokens, [B, 1 + N, C]."""
        x = self.embed(x)
        for block in self.blocks:
            x = run_block(block, x, self.grid, recompute=self.spec.recompute)
        return self.norm(x)

    def forward_head(self, x):
        """Tokens of `forward_features` -> logits, [B, num_classes] (without a head: [B, C])."""
        return self.head(x[:, 0])

    def forward_intermediates(self, x, indices=None):
        """Images -> the patch tokens after the chosen blocks, as maps [B, C, H, W].

        `indices` defaults to four evenly spaced blocks, the last among them.
        """
        indices = chosen_blocks(indices, self.spec.depth)
        x, maps = self.embed(x), {}
        for i, block in enumerate(self.blocks):
            x = run_block(block, x, self.grid, recompute=self.spec.recompute)
            if i in indices:
                maps[i] = tokens_to_map(x[:, 1:], self.grid)
        return [maps[i] for i in indices]

    def forward(self, x):
        return self.forward_head(self.forward_features(x))
