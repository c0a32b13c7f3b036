"""InLine-Swin: a Swin transformer whose early stages use injective linear attention (InLine, section 5.1).

B batch, N tokens, C channels, H x W token grid: in stage s of 0 .. 3 the image's size / STRIDES[s].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..layers.attention import build_attention, check_options, stage_options
from ..layers.basic import Dropout, Identity, LayerNorm, Linear, Module, ModuleList, Tensor
from ..layers.drop_path import DropPath, depth_rates
from ..layers.mlp import Mlp
from ..layers.patch_embed import PatchEmbed
from ..layers.recompute import run_block
from ..layers.window_attention import WINDOW_ATTENTION
from ..ops.padding import crop_tokens, pad_tokens
from ..ops.tokens import Size, mean_tokens
from ..ops.windows import cut_windows, gather_neighbours, join_windows, roll_tokens, shift_mask
from ..utils.errors import UserError
from .classifier import Classifier
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
from .swin_windows import block_window, buffer_shapes, call_window, check_windows

EPS = 1e-5  # of every LayerNorm


@dataclass(frozen=True)
class SwinSpec:
    """A row of sizes, one per stage in tuples; all but `published` can be overridden in `create_model`."""

    embed_dim: int  # of the first stage; it doubles at each next one
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    attn_type: str = "IIIS"  # I, S or M per stage, and M's number of InLine blocks; or names of forms
    img_size: int | tuple[int, int] = 224  # pixels; (height, width) if not square
    window_size: int | None = None  # tokens; None: the smaller side of the first stage's grid
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


_SMALL, _BASE = (3, 6, 12, 24), (4, 8, 16, 32)  # heads

VARIANTS = {
    "inline_swin_tiny": SwinSpec(
        96, (2, 2, 6, 2), _SMALL, "IIIS", published=Published(30.0, 29.224, 4.5, 4.459, 82.4)
    ),
    "inline_swin_small": SwinSpec(
        96, (2, 2, 18, 2), _SMALL, "IISS", published=Published(50.0, 49.793, 8.7, 8.719, 83.6)
    ),
    "inline_swin_base": SwinSpec(
        128, (2, 2, 18, 2), _BASE, "IIMS2", published=Published(88.0, 88.350, 15.4, 15.398, 84.1)
    ),
    "inline_swin_base_384": SwinSpec(
        128, (2, 2, 18, 2), _BASE, "IIMS2", 384, published=Published(None, 88.465, None, 46.200)
    ),
}


class Block(Module):
    """Pre-norm transformer block that attends inside windows.

    Args:
        dim, num_heads: C and h.
        form: its attention, a name in WINDOW_ATTENTION; options: of the forms.
        grid: the (H, W) that it is built for, or None: any, which is then padded with zeros to whole windows.
        window: the side of its square windows, or None: the whole grid.
        shift: rows and columns by which the windows are displaced, where there is more than one.
        mlp_ratio: hidden channels of the perceptron / C; qkv_bias: of the projection to q, k and v.
        drop_rate, drop_path_rate: of single numbers, and of a branch.

    Input: tokens [B, H * W, C] and their grid (None: that of `grid`); output: tokens.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        form: str,
        grid: Size | None,
        window: int | None,
        shift: int = 0,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.window = None if window is None else (window, window)
        self.shift = shift
        if grid is not None and self.window is not None and shift > 0:
            # blocks that do not mask keep the mask too: checkpoints have it
            self.register_buffer("attn_mask", shift_mask(grid, self.window, shift))
        self.norm1 = LayerNorm(dim, EPS)
        self.attn = build_attention(
            WINDOW_ATTENTION,
            form,
            dim,
            num_heads,
            grid=self.window,
            qkv_bias=qkv_bias,
            drop_rate=drop_rate,
            options=options,
        )
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = LayerNorm(dim, EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop_rate)

    def attend(self, x: Tensor, size: Size | None = None) -> Tensor:
        """Take the normed tokens through the windows' attention, [B, N, C] -> [B, N, C]."""
        size = grid_of_call(size, self.grid)
        padded, window, shift = call_window(size, self.window, self.shift)
        x = pad_tokens(x, size, padded)
        x = cut_windows(roll_tokens(x, padded, -shift), padded, window)
        x = (
            self.attn(x, window, self.mask(padded, window, shift))
            if shift and self.attn.windowed
            else self.attn(x, window)
        )
        x = roll_tokens(join_windows(x, padded, window), padded, shift)
        return crop_tokens(x, padded, size)

    def mask(self, size: Size, window: Size, shift: int) -> Tensor:
        """Return what shifted windows add to their logits: what the block keeps, or made for this grid."""
        return self.attn_mask if self.grid else shift_mask(size, window, shift, self.norm1.weight)

    def forward(self, x: Tensor, size: Size | None = None) -> Tensor:
        x = x + self.drop_path(self.attend(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(Module):
    """Halves both sides of the grid and doubles the channels: [B, H * W, C] -> [B, H / 2 * W / 2, 2 * C].

    Input: tokens and their grid (H, W).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = Linear(4 * dim, 2 * dim, bias=False)
        self.norm = LayerNorm(4 * dim, EPS)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        return self.reduction(self.norm(gather_neighbours(x, size)))


class Stage(Module):
    """Blocks on one grid, [B, H * W, C] and (H, W) -> [B, H * W, C]; `downsample` leads on to the next stage."""

    def __init__(self, blocks: list[Block], downsample: Module, recompute: bool = False) -> None:
        super().__init__()
        self.blocks = ModuleList(blocks)
        self.downsample = downsample
        self.recompute = recompute

    def forward(self, x: Tensor, size: Size) -> Tensor:
        for block in self.blocks:
            x = run_block(block, x, size, recompute=self.recompute)
        return x


class SwinPyramid(Pyramid):
    """The stages of InLine-Swin.

    For images of any size, windowed forms (softmax) keep the windows of the spec's own size, and the others see the
    whole grid.
    """

    EMBEDDING = ("patch_embed", "pos_drop")
    NO_DECAY = ("absolute_pos_embed", "relative_position_bias_table")

    @staticmethod
    def buffer_shapes(spec: SwinSpec) -> dict[str, tuple[int, ...]]:
        """Return {name: shape} of a model's buffers, before it is built."""
        forms = attention_forms(spec.attn_type, spec.depths, WINDOW_ATTENTION)
        return buffer_shapes(image_size(spec.img_size, STRIDES[-1]), spec.window_size, forms)

    def __init__(self, spec: SwinSpec, stages: int = len(STRIDES), any_size: bool = False) -> None:
        super().__init__(spec)
        check_spec(spec)
        check_stages(spec, ("depths", "num_heads"))
        window_size = spec.window_size
        if window_size is not None and (not isinstance(window_size, int) or window_size < 1):
            raise UserError(f"window_size {window_size!r} must be a positive int, or None: the whole grid")
        self.img_size = image_size(spec.img_size, STRIDES[-1])
        self.grids = [(self.img_size[0] // stride, self.img_size[1] // stride) for stride in STRIDES]
        forms = attention_forms(spec.attn_type, spec.depths, WINDOW_ATTENTION)
        check_options(spec.attn_options, forms, spec.kernel_function)
        if any_size:
            whole = {form: layer for form, layer in WINDOW_ATTENTION.items() if not layer.windowed}
            check_any_size([[form for form in stage if form in whole] for stage in forms], whole)
        else:
            check_windows(self.img_size, window_size, forms)
        rates = stage_parts(depth_rates(spec.drop_path_rate, sum(spec.depths)), spec.depths)
        self.patch_embed = PatchEmbed(STRIDES[0], spec.in_chans, spec.embed_dim, norm_eps=EPS)
        self.pos_drop = Dropout(spec.drop_rate)
        self.layers = ModuleList()
        for i, grid in enumerate(self.grids[:stages]):
            dim = spec.embed_dim * 2**i
            check_heads(dim, spec.num_heads[i])
            blocks = []
            for j, (form, rate) in enumerate(zip(forms[i], rates[i])):
                window, shift = block_window(grid, window_size or min(self.grids[0]), form, j)
                if any_size and WINDOW_ATTENTION[form].windowed:
                    shift = window // 2 if j % 2 else 0  # where the grid is larger
                blocks.append(
                    Block(
                        dim=dim,
                        num_heads=spec.num_heads[i],
                        form=form,
                        grid=None if any_size else grid,
                        window=window if WINDOW_ATTENTION[form].windowed or not any_size else None,
                        shift=shift,
                        mlp_ratio=spec.mlp_ratio,
                        qkv_bias=spec.qkv_bias,
                        drop_rate=spec.drop_rate,
                        drop_path_rate=rate,
                        options={
                            "kernel_function": spec.kernel_function,
                            **stage_options(spec.attn_options, i, form),
                        },
                    )
                )
            downsample = PatchMerging(dim) if i < stages - 1 else Identity()
            self.layers.append(Stage(blocks, downsample, spec.recompute))

    def run_stage(self, i: int, x: Tensor, size: Size) -> Tensor:
        if i == 0:
            return self.layers[0](self.pos_drop(self.patch_embed(x)), size)
        x = self.layers[i - 1].downsample(x, (2 * size[0], 2 * size[1]))
        return self.layers[i](x, size)

    def parts_of_stage(self, i: int) -> Sequence[str]:
        return (f"layers.{i}",) if i else (*self.EMBEDDING, "layers.0")

    def check_images(self, x: Tensor) -> None:
        check_image(self, x)


class InLineSwin(SwinPyramid, Classifier):
    """Images [B, in_chans, *img_size] -> logits [B, num_classes].

    Raises:
        UserError: in `forward`, for images of another size than it was built for.
    """

    def __init__(self, spec: SwinSpec) -> None:
        super().__init__(spec)
        dim = spec.embed_dim * 2 ** (len(STRIDES) - 1)
        self.norm = LayerNorm(dim, EPS)
        self.add_head(dim, spec.num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images -> the last stage's normed tokens, [B, H / 32 * W / 32, C]."""
        self.check_images(x)
        for i, grid in enumerate(self.grids):
            x = self.run_stage(i, x, grid)
        return self.norm(self.layers[-1].downsample(x))

    def forward_head(self, x: Tensor) -> Tensor:
        """Tokens of `forward_features` -> logits, [B, num_classes] (without a head: [B, C])."""
        return self.head(mean_tokens(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))
