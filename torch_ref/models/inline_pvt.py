"""InLine-PVT: a pyramid vision transformer with injective linear attention (InLine, section 5.1).

B batch, N tokens, C channels, H x W the image; stage s has a token grid of H / 4s x W / 4s, s = 1, 2, 4, 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..layers.attention import build_attention, check_options, stage_options
from ..layers.basic import Dropout, LayerNorm, Module, ModuleList, Tensor, token_parameter
from ..layers.drop_path import DropPath, depth_rates
from ..layers.mlp import Mlp
from ..layers.patch_embed import PatchEmbed
from ..layers.pvt_attention import PVT_ATTENTION
from ..layers.recompute import run_block
from ..ops.resize import resize_tokens
from ..ops.tokens import Size, add_positions, map_to_tokens, mean_tokens, tokens_to_map
from ..utils.errors import UserError
from .classifier import Classifier
from .pyramid import STRIDES, Pyramid, check_any_size
from .spec import (
    Published,
    attention_forms,
    check_divisible_image,
    check_heads,
    check_spec,
    check_stages,
    image_size,
    stage_parts,
)

PATCH_SIZES = (4, 2, 2, 2)  # of one stage's map


@dataclass(frozen=True)
class PVTSpec:
    """A row of sizes, one per stage in tuples; all but `published` can be overridden in `create_model`."""

    depths: tuple[int, ...]
    embed_dims: tuple[int, ...] = (64, 128, 320, 512)
    num_heads: tuple[int, ...] = (2, 4, 10, 16)
    mlp_ratios: tuple[float, ...] = (8, 8, 4, 4)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)  # of softmax blocks
    la_sr_ratios: tuple[int, ...] = (1, 1, 1, 1)  # of InLine blocks: 1 alone is defined
    img_size: int | tuple[int, int] = 224  # pixels, what the position embeddings are stored for
    in_chans: int = 3
    num_classes: int = 1000  # 0: no head
    attn_type: str = "IIII"  # one letter per stage, I or S, or names of forms of attention
    kernel_function: str = "identity"
    attn_options: dict[str, Any] = field(default_factory=dict)  # of the forms: see list_attentions
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    recompute: bool = False
    published: Published = field(default_factory=Published)


VARIANTS = {
    "inline_pvt_tiny": PVTSpec((2, 2, 2, 2), published=Published(12.0, 12.032, 2.0, 1.976, 78.2)),
    "inline_pvt_small": PVTSpec((3, 4, 6, 3), published=Published(21.6, 21.556, 3.9, 3.915, 82.0)),
    "inline_pvt_medium": PVTSpec((3, 4, 18, 3), published=Published(37.6, 37.619, 6.9, 6.862, 83.2)),
    "inline_pvt_large": PVTSpec((3, 8, 27, 3), published=Published(50.2, 51.154, 10.2, 10.130, 83.6)),
}


class Block(Module):
    """Pre-norm transformer block: tokens [B, N, C] and the grid (H, W) -> tokens.

    Args:
        dim, num_heads: C and h.
        form: its attention, a name in PVT_ATTENTION; options: of the forms.
        grid: the (H, W) that it is built for, or None: any.
        prefix_tokens: tokens in front of the grid's.
        mlp_ratio: hidden channels of the perceptron / C.
        drop_rate, drop_path_rate: of single numbers, and of a branch.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        form: str,
        grid: Size | None = None,
        prefix_tokens: int = 0,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = build_attention(
            PVT_ATTENTION,
            form,
            dim,
            num_heads,
            grid=grid,
            prefix_tokens=prefix_tokens,
            drop_rate=drop_rate,
            options=options,
        )
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop_rate)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PVTPyramid(Pyramid):
    """The stages of InLine-PVT. The position embeddings are stored for `img_size` and resized to other grids."""

    EMBEDDING = ("patch_embed1", "pos_embed1")
    NO_DECAY = ("cls_token",)  # it has none: the authors' rule lets the position embeddings decay

    def __init__(self, spec: PVTSpec, stages: int = len(STRIDES), any_size: bool = False) -> None:
        super().__init__(spec)
        check_spec(spec)
        check_stages(spec, ("depths", "embed_dims", "num_heads", "mlp_ratios", "sr_ratios", "la_sr_ratios"))
        if any(ratio != 1 for ratio in spec.la_sr_ratios):
            raise UserError(
                f"la_sr_ratios {spec.la_sr_ratios!r}: InLine attention is defined for unreduced keys and "
                "values alone; use (1, 1, 1, 1), or attn_type S with sr_ratios in that stage"
            )
        for dim, num_heads in zip(spec.embed_dims, spec.num_heads):
            check_heads(dim, num_heads)
        self.img_size = image_size(spec.img_size, STRIDES[-1])
        self.grids = [(self.img_size[0] // stride, self.img_size[1] // stride) for stride in STRIDES]
        forms = attention_forms(spec.attn_type, spec.depths, PVT_ATTENTION, mixed=False)
        check_options(spec.attn_options, forms, spec.kernel_function)
        if any_size:
            check_any_size(forms, PVT_ATTENTION)
        rates = stage_parts(depth_rates(spec.drop_path_rate, sum(spec.depths)), spec.depths)
        in_chans = (spec.in_chans, *spec.embed_dims)
        self.pos_drop = Dropout(spec.drop_rate)
        for i, dim in enumerate(spec.embed_dims[:stages]):
            pos_embed = token_parameter(1, self.grids[i][0] * self.grids[i][1], dim)
            blocks = [
                Block(
                    dim=dim,
                    num_heads=spec.num_heads[i],
                    form=form,
                    grid=None if any_size else self.grids[i],
                    mlp_ratio=spec.mlp_ratios[i],
                    drop_rate=spec.drop_rate,
                    drop_path_rate=rate,
                    options={
                        "kernel_function": spec.kernel_function,
                        "sr_ratio": spec.sr_ratios[i],
                        **stage_options(spec.attn_options, i, form),
                    },
                )
                for form, rate in zip(forms[i], rates[i])
            ]
            setattr(self, f"pos_embed{i + 1}", pos_embed)
            setattr(self, f"patch_embed{i + 1}", PatchEmbed(PATCH_SIZES[i], in_chans[i], dim, norm_eps=1e-5))
            setattr(self, f"block{i + 1}", ModuleList(blocks))

    def run_stage(self, i: int, x: Tensor, size: Size) -> Tensor:
        if i:
            x = tokens_to_map(x, (PATCH_SIZES[i] * size[0], PATCH_SIZES[i] * size[1]))
        x = getattr(self, f"patch_embed{i + 1}")(x)
        positions = resize_tokens(getattr(self, f"pos_embed{i + 1}"), self.grids[i], size)
        x = self.pos_drop(add_positions(x, positions))
        for block in getattr(self, f"block{i + 1}"):
            x = run_block(block, x, size, recompute=self.spec.recompute)
        return x

    def parts_of_stage(self, i: int) -> Sequence[str]:
        return (f"patch_embed{i + 1}", f"pos_embed{i + 1}", f"block{i + 1}")

    def check_images(self, x: Tensor) -> None:
        check_divisible_image(self, x, STRIDES[-1])


class InLinePVT(PVTPyramid, Classifier):
    """Images [B, in_chans, H, W] of any sides that divide by 32 -> logits [B, num_classes].

    The position embeddings are stored for `img_size` and resized to other grids.
    """

    def __init__(self, spec: PVTSpec) -> None:
        super().__init__(spec)
        self.add_head(spec.embed_dims[-1], spec.num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images -> the last stage's map, [B, C, H / 32, W / 32]; there is no final norm."""
        return self.forward_intermediates(x, (3,))[0]

    def forward_head(self, x: Tensor) -> Tensor:
        """Map of `forward_features` -> logits, [B, num_classes] (without a head: [B, C])."""
        return self.head(mean_tokens(map_to_tokens(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))
