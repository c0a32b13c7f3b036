"""InLine-DeiT: a plain vision transformer with injective linear attention (InLine, section 5.1).

B batch, N patch tokens (H x W grid), C channels. The class token comes first and attends like the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..layers.attention import ATTENTION, build_attention, check_options
from ..layers.basic import Dropout, LayerNorm, Module, ModuleList, Tensor, token_parameter
from ..layers.drop_path import DropPath, depth_rates
from ..layers.mlp import Mlp
from ..layers.patch_embed import PatchEmbed
from ..layers.recompute import run_block
from ..ops.tokens import Size, add_positions, prepend_token, tokens_to_map
from .classifier import Classifier
from .spec import (
    Published,
    attention_form,
    check_heads,
    check_image,
    check_spec,
    chosen_blocks,
    image_size,
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
    attn_type: str = "I"  # I, S or the name of a form of attention, once or four times
    kernel_function: str = "identity"
    attn_options: dict[str, Any] = field(default_factory=dict)  # of the forms: see list_attentions
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    recompute: bool = False
    published: Published = field(default_factory=Published)


BASE_WIDTH = 384  # channels from which on Agent Attention has 81 agents (its DeiT-B; 49 in -T and -S)

VARIANTS = {
    "inline_deit_tiny": DeiTSpec(192, 6, 224, published=Published(6.5, 6.478, 1.1, 1.109, 74.5)),
    "inline_deit_small": DeiTSpec(320, 10, 288, published=Published(16.7, 16.735, 5.0, 4.966, 80.2)),
    "inline_deit_base": DeiTSpec(384, 12, 448, published=Published(23.8, 23.797, 17.2, 17.169, 82.3)),
    # Not a published model: small enough to learn handwritten digits in minutes on a CPU.
    "inline_deit_digits": DeiTSpec(64, 4, 32, patch_size=4, depth=4, num_classes=10),
}


class Block(Module):
    """Pre-norm transformer block: tokens [B, 1 + N, C] and the grid (H, W) -> tokens.

    Args:
        dim, num_heads: C and h.
        form: its attention, a name in ATTENTION; options: of the forms.
        grid: (H, W).
        mlp_ratio: hidden channels of the perceptron / C.
        drop_rate, drop_path_rate: of single numbers, and of a branch.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        form: str,
        grid: Size,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = build_attention(
            ATTENTION, form, dim, num_heads, grid=grid, prefix_tokens=1, drop_rate=drop_rate, options=options
        )
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop_rate)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class InLineDeiT(Classifier):
    """Images [B, in_chans, *img_size] -> logits [B, num_classes].

    Raises:
        UserError: in `forward`, for images of another size than it was built for.
    """

    NO_DECAY = ("pos_embed", "cls_token")

    def __init__(self, spec: DeiTSpec) -> None:
        super().__init__()
        check_spec(spec)
        check_heads(spec.embed_dim, spec.num_heads)
        self.spec = spec
        self.img_size = image_size(spec.img_size, spec.patch_size)
        self.grid = (self.img_size[0] // spec.patch_size, self.img_size[1] // spec.patch_size)
        form = attention_form(spec.attn_type, ATTENTION)
        check_options(spec.attn_options, [[form]], spec.kernel_function)
        agents = 81 if spec.embed_dim >= BASE_WIDTH else 49
        options = {"kernel_function": spec.kernel_function, "num_agents": agents, **spec.attn_options}
        self.cls_token = token_parameter(1, 1, spec.embed_dim)
        self.pos_embed = token_parameter(1, 1 + self.grid[0] * self.grid[1], spec.embed_dim)
        self.patch_embed = PatchEmbed(spec.patch_size, spec.in_chans, spec.embed_dim)
        self.pos_drop = Dropout(spec.drop_rate)
        self.blocks = ModuleList(
            [
                Block(
                    dim=spec.embed_dim,
                    num_heads=spec.num_heads,
                    form=form,
                    grid=self.grid,
                    mlp_ratio=spec.mlp_ratio,
                    drop_rate=spec.drop_rate,
                    drop_path_rate=rate,
                    options=options,
                )
                for rate in depth_rates(spec.drop_path_rate, spec.depth)
            ]
        )
        self.norm = LayerNorm(spec.embed_dim)
        self.add_head(spec.embed_dim, spec.num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """Images -> class and patch tokens with their positions, [B, 1 + N, C]."""
        check_image(self, x)
        x = prepend_token(self.cls_token, self.patch_embed(x))
        return self.pos_drop(add_positions(x, self.pos_embed))

    def forward_features(self, x: Tensor) -> Tensor:
        """Images -> normed class and patch tokens, [B, 1 + N, C]."""
        x = self.embed(x)
        for block in self.blocks:
            x = run_block(block, x, self.grid, recompute=self.spec.recompute)
        return self.norm(x)

    def forward_head(self, x: Tensor) -> Tensor:
        """Tokens of `forward_features` -> logits, [B, num_classes] (without a head: [B, C])."""
        return self.head(x[:, 0])

    def forward_intermediates(self, x: Tensor, indices: Iterable[int] | None = None) -> list[Tensor]:
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

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))
