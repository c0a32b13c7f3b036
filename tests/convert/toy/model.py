"""Toy mixer: a family for the test that adds one. The same text serves both packages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..layers.basic import Identity, LayerNorm, Linear, Module, ModuleList, Tensor
from ..layers.drop_path import DropPath, depth_rates
from ..layers.mlp import Mlp
from ..layers.patch_embed import PatchEmbed
from ..layers.recompute import run_block
from ..ops.tokens import mean_tokens, tokens_to_map
from .spec import Published, check_image, check_spec, chosen_blocks, image_size


@dataclass(frozen=True)
class ToySpec:
    """A toy mixer: `depth` perceptrons of width `embed_dim` on patches."""

    embed_dim: int
    depth: int
    patch_size: int = 4
    mlp_ratio: float = 2
    img_size: int | tuple[int, int] = 32
    in_chans: int = 3
    num_classes: int = 10
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    recompute: bool = False
    published: Published = field(default_factory=Published)


VARIANTS = {"toy_tiny": ToySpec(16, 2), "toy_small": ToySpec(32, 3)}


class Block(Module):
    """Pre-norm perceptron: tokens [B, N, C] -> tokens."""

    def __init__(self, dim: int, mlp_ratio: float, drop_rate: float, drop_path_rate: float) -> None:
        super().__init__()
        self.norm = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mlp(self.norm(x)))


class Toy(Module):
    """Images [B, in_chans, *img_size] -> logits [B, num_classes]."""

    NO_DECAY = ()

    def __init__(self, spec: ToySpec) -> None:
        super().__init__()
        check_spec(spec)
        self.spec = spec
        self.img_size = image_size(spec.img_size, spec.patch_size)
        self.grid = (self.img_size[0] // spec.patch_size, self.img_size[1] // spec.patch_size)
        self.patch_embed = PatchEmbed(spec.patch_size, spec.in_chans, spec.embed_dim)
        self.mixers = ModuleList(
            [
                Block(spec.embed_dim, spec.mlp_ratio, spec.drop_rate, rate)
                for rate in depth_rates(spec.drop_path_rate, spec.depth)
            ]
        )
        self.norm = LayerNorm(spec.embed_dim)
        self.head = Linear(spec.embed_dim, spec.num_classes) if spec.num_classes else Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Images -> normed tokens, [B, N, C]."""
        check_image(self, x)
        x = self.patch_embed(x)
        for block in self.mixers:
            x = run_block(block, x, recompute=self.spec.recompute)
        return self.norm(x)

    def forward_head(self, x: Tensor) -> Tensor:
        """Tokens -> logits, [B, num_classes]."""
        return self.head(mean_tokens(x))

    def forward_intermediates(self, x: Tensor, indices: Iterable[int] | None = None) -> list[Tensor]:
        """Images -> the tokens after the chosen blocks, as maps [B, C, H, W]."""
        indices = chosen_blocks(indices, self.spec.depth)
        x, maps = self.patch_embed(x), {}
        for i, block in enumerate(self.mixers):
            x = run_block(block, x, recompute=self.spec.recompute)
            if i in indices:
                maps[i] = tokens_to_map(x, self.grid)
        return [maps[i] for i in indices]

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))
