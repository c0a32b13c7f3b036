"""InLine-CSwin: a CSWin transformer whose early stages use injective linear attention (InLine, section 5.1).

B batch, N tokens, C channels, H x W token grid: in stage s of 0 .. 3 the image's size / STRIDES[s].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..layers.attention import build_attention, check_options, stage_options
from ..layers.basic import (
    Conv2d,
    Dropout,
    LayerNorm,
    Linear,
    Module,
    ModuleList,
    Sequential,
    Tensor,
)
from ..layers.drop_path import DropPath, depth_rates
from ..layers.mlp import Mlp
from ..layers.patch_embed import MapToTokens
from ..layers.recompute import run_block
from ..layers.window_attention import BRANCH_ATTENTION, WindowSides, attend_branches
from ..ops.tokens import Size, map_to_tokens, mean_tokens, tokens_to_map
from ..utils.errors import UserError
from .classifier import Classifier
from .cswin_windows import any_windows, stage_windows
from .pyramid import STRIDES, Pyramid, check_any_size, grid_of_call
from .spec import (
    Published,
    attention_forms,
    check_heads,
    check_image,
    check_spec,
    check_stages,
    image_size,
    stage_parts,
)

EPS = 1e-5  # of every LayerNorm


@dataclass(frozen=True)
class CSwinSpec:
    """A row of sizes, one per stage in tuples; all but `published` can be overridden in `create_model`."""

    embed_dim: int  # of the first stage; it doubles at each next one
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    attn_type: str = "IISS"  # I, S or M per stage, and M's number of InLine blocks; or names of forms
    img_size: int | tuple[int, int] = 224  # pixels; (height, width) if not square
    softmax_split: tuple[int, ...] | None = None  # stripes' width in tokens; None: 1, 2, img_size / 32 twice
    inline_split: tuple[int, ...] | None = None  # None: the whole grids, which alone are defined
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    in_chans: int = 3
    num_classes: int = 1000  # 0: no head
    kernel_function: str = "identity"
    attn_options: dict[str, Any] = field(default_factory=dict)  # of the forms: see list_attentions
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    recompute: bool = False
    published: Published = field(default_factory=Published)


_SMALL, _BASE = (2, 4, 8, 16), (4, 8, 16, 32)  # heads

VARIANTS = {
    "inline_cswin_tiny": CSwinSpec(
        64, (2, 4, 18, 1), _SMALL, published=Published(25.0, 20.605, 4.3, 4.312, 83.2)
    ),
    "inline_cswin_small": CSwinSpec(
        64, (3, 6, 29, 2), _SMALL, published=Published(43.0, 33.033, 6.8, 6.773, 83.8)
    ),
    "inline_cswin_base": CSwinSpec(
        96, (3, 6, 29, 2), _BASE, published=Published(96.0, 73.414, 14.9, 14.885, 84.5)
    ),
    "inline_cswin_base_384": CSwinSpec(
        96, (3, 6, 29, 2), _BASE, img_size=384, published=Published(None, 73.414, None, 46.220)
    ),
}


class Block(Module):
    """Pre-norm transformer block of one branch over the whole grid, or of two, each with half the channels
    and heads, over vertical and horizontal stripes.

    Args:
        dim, num_heads: C and h.
        form: its attention, a name in BRANCH_ATTENTION; options: of the forms.
        grid: the (H, W) that it is built for, or None: any.
        windows: one window (height, width) per branch; a side of None is the grid's own.
        mlp_ratio: hidden channels of the perceptron / C; qkv_bias: of the projection to q, k and v.
        drop_rate, drop_path_rate: of single numbers, and of a branch.

    Input: tokens [B, H * W, C] and their grid (None: that of `grid`); output: tokens.

    Raises:
        UserError: two branches and an odd number of heads.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        form: str,
        grid: Size | None,
        windows: Sequence[WindowSides],
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.grid = grid
        branches = len(windows)
        if num_heads % branches:
            raise UserError(
                f"num_heads {num_heads} is odd, and stripes in two directions take half of the heads each; "
                f"use an even number, or a split of the whole grid{f' {grid}' if grid else ''}"
            )
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.norm1 = LayerNorm(dim, EPS)
        self.proj = Linear(dim, dim)
        self.proj_drop = Dropout(drop_rate)
        self.attns = ModuleList(
            [
                build_attention(
                    BRANCH_ATTENTION,
                    form,
                    dim // branches,
                    num_heads // branches,
                    grid=grid,
                    window=window,
                    options=options,
                )
                for window in windows
            ]
        )
        self.drop_path = DropPath(drop_path_rate)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop_rate)
        self.norm2 = LayerNorm(dim, EPS)

    def attend(self, x: Tensor, size: Size | None = None) -> Tensor:
        """Tokens through the branches' attention, [B, N, C] -> [B, N, C]."""
        size = grid_of_call(size, self.grid)
        # the branches' context is the mean of x, before norm1, unlike the other families'
        return self.proj_drop(self.proj(attend_branches(self.attns, self.qkv(self.norm1(x)), x, size)))

    def forward(self, x: Tensor, size: Size | None = None) -> Tensor:
        x = x + self.drop_path(self.attend(x, size))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ConvMerging(Module):
    """Halves both sides of the grid by a convolution: [B, H * W, C] -> [B, H / 2 * W / 2, out_dim].

    Input: tokens and their grid (H, W).
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv = Conv2d(dim, out_dim, 3, stride=2, padding=1)
        self.norm = LayerNorm(out_dim, EPS)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        return self.norm(map_to_tokens(self.conv(tokens_to_map(x, size))))


class CSwinPyramid(Pyramid):
    """The stages of InLine-CSwin.

    For images of any size, stripes keep the width that they have at the spec's own size, and blocks that see the
    whole grid there see the whole grid.
    """

    EMBEDDING = ("stage1_conv_embed",)
    NO_DECAY = ("pos_embed", "cls_token")  # the authors' rule; it has neither

    def __init__(self, spec: CSwinSpec, stages: int = len(STRIDES), any_size: bool = False) -> None:
        super().__init__(spec)
        check_spec(spec)
        check_stages(spec, ("depths", "num_heads"))
        splits = ("softmax_split", "inline_split")
        check_stages(spec, [name for name in splits if getattr(spec, name) is not None])
        self.img_size = image_size(spec.img_size, STRIDES[-1])
        self.grids = [(self.img_size[0] // stride, self.img_size[1] // stride) for stride in STRIDES]
        forms = attention_forms(spec.attn_type, spec.depths, BRANCH_ATTENTION)
        check_options(spec.attn_options, forms, spec.kernel_function)
        if any_size:
            check_any_size(forms, BRANCH_ATTENTION)
        windows_of = any_windows if any_size else stage_windows
        rates = stage_parts(depth_rates(spec.drop_path_rate, sum(spec.depths)), spec.depths)
        self.stage1_conv_embed = Sequential(
            Conv2d(spec.in_chans, spec.embed_dim, 7, stride=4, padding=2),
            MapToTokens(),
            LayerNorm(spec.embed_dim, EPS),
        )
        for i, grid in enumerate(self.grids[:stages]):
            dim = spec.embed_dim * 2**i
            check_heads(dim, spec.num_heads[i])
            if i:
                setattr(self, f"merge{i}", ConvMerging(dim // 2, dim))
            blocks = [
                Block(
                    dim=dim,
                    num_heads=spec.num_heads[i],
                    form=form,
                    grid=None if any_size else grid,
                    windows=windows_of(spec, i, grid, form),
                    mlp_ratio=spec.mlp_ratio,
                    qkv_bias=spec.qkv_bias,
                    drop_rate=spec.drop_rate,
                    drop_path_rate=rate,
                    options={
                        "kernel_function": spec.kernel_function,
                        **stage_options(spec.attn_options, i, form),
                    },
                )
                for form, rate in zip(forms[i], rates[i])
            ]
            setattr(self, f"stage{i + 1}", ModuleList(blocks))

    def run_stage(self, i: int, x: Tensor, size: Size) -> Tensor:
        x = getattr(self, f"merge{i}")(x, (2 * size[0], 2 * size[1])) if i else self.stage1_conv_embed(x)
        for block in getattr(self, f"stage{i + 1}"):
            x = run_block(block, x, size, recompute=self.spec.recompute)
        return x

    def parts_of_stage(self, i: int) -> Sequence[str]:
        return (f"merge{i}" if i else "stage1_conv_embed", f"stage{i + 1}")

    def check_images(self, x: Tensor) -> None:
        check_image(self, x)


class InLineCSwin(CSwinPyramid, Classifier):
    """Images [B, in_chans, *img_size] -> logits [B, num_classes].

    Raises:
        UserError: in `forward`, for images of another size than it was built for.
    """

    def __init__(self, spec: CSwinSpec) -> None:
        super().__init__(spec)
        dim = spec.embed_dim * 2 ** (len(STRIDES) - 1)
        self.norm = LayerNorm(dim, EPS)
        self.add_head(dim, spec.num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images -> the last stage's normed tokens, [B, H / 32 * W / 32, C]."""
        self.check_images(x)
        for i, grid in enumerate(self.grids):
            x = self.run_stage(i, x, grid)
        return self.norm(x)

    def forward_head(self, x: Tensor) -> Tensor:
        """Tokens of `forward_features` -> logits, [B, num_classes] (without a head: [B, C])."""
        return self.head(mean_tokens(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))
