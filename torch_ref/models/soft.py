"""SOFT and SOFT-Norm: softmax-free pyramids (SOFT, NeurIPS 2021; SOFT-Norm, IJCV 2024).

B batch, N tokens, C channels, H x W the image; stage s has a token grid of H / 4s x W / 4s, s = 1, 2, 4, 8.
Stages 1 to 3 are softmax-free; stage 4 is a small transformer with a class token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..layers.basic import (
    Dropout,
    LayerNorm,
    Linear,
    Module,
    ModuleList,
    TanhGELU,
    Tensor,
    token_parameter,
)
from ..layers.conv_patch_embed import ConvPatchEmbed
from ..layers.drop_path import depth_rates
from ..layers.recompute import run_block
from ..layers.softmax_free import MultiHeadSoftmaxFree
from ..ops.resize import resize_tokens
from ..ops.tokens import Size, add_positions, concat_tokens, prepend_token, tokens_to_map
from ..utils.errors import UserError
from .classifier import Classifier
from .inline_pvt import Block as SoftmaxBlock
from .pyramid import STRIDES, Pyramid
from .spec import (
    Published,
    check_divisible_image,
    check_heads,
    check_spec,
    check_stages,
    image_size,
    stage_parts,
)

POSITION_GRIDS = ((56, 56), (28, 28), (14, 14), (7, 7))  # what positions are stored for, whatever the input
CONV_KERNELS = (9, 5, 3)  # of the convolution over v in stages 1 to 3
MLP_RATIO = 4
STEM_DIM = 32  # channels of the first two convolutions


@dataclass(frozen=True)
class SoftSpec:
    """A row of sizes, one per stage in tuples; all but `published` can be overridden in `create_model`."""

    depths: tuple[int, ...]
    embed_dims: tuple[int, ...] = (64, 128, 320, 512)
    num_heads: tuple[int, ...] = (2, 4, 10, 16)
    normed: bool = False  # SOFT-Norm
    per_matrix_alpha: bool = False  # SOFT-Norm: results independent of the batch, as SOFT's always are
    landmark_ratios: tuple[int, ...] = (8, 4, 2)  # of stages 1 to 3: tokens per landmark, on each side
    img_size: int | tuple[int, int] = 224  # pixels, of a usual input: no tensor depends on it
    in_chans: int = 3
    num_classes: int = 1000  # 0: no head
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    recompute: bool = False
    published: Published = field(default_factory=Published)


MEDIUM: dict[str, Any] = {"embed_dims": (64, 128, 288, 512), "num_heads": (2, 4, 9, 16)}
HUGE: dict[str, Any] = {"embed_dims": (64, 128, 352, 512), "num_heads": (2, 4, 11, 16)}

# The built multiply-adds count the Gaussian kernel as three products and K1 inv(K2), N x m x m, as one. Here
# the kernel is one product and inv(K2) meets K1^T v, m x m x d: 2.12, 7.40, 8.68, 13.18 and 18.65 for SOFT.
# Those of the larger SOFT-Norm were never recorded.
VARIANTS = {
    "soft_tiny": SoftSpec((1, 2, 3, 2), published=Published(13, 13.069, 1.9, 2.221, 79.3)),
    "soft_small": SoftSpec((1, 3, 20, 4), published=Published(24, 38.858, 3.3, 7.717, 82.2)),
    "soft_medium": SoftSpec((1, 3, 29, 5), **MEDIUM, published=Published(45, 45.813, 7.2, 9.072, 82.9)),
    "soft_large": SoftSpec((1, 3, 40, 5), published=Published(64, 64.701, 11.0, 13.732, 83.1)),
    "soft_huge": SoftSpec((1, 5, 49, 5), **HUGE, published=Published(87, 87.108, 16.3, 19.404, 83.3)),
    "soft_norm_tiny": SoftSpec((1, 2, 3, 2), normed=True, published=Published(13, 13.069, 1.9, 2.260, 79.4)),
    "soft_norm_small": SoftSpec((1, 3, 20, 4), normed=True, published=Published(24, 38.858, 3.3, None, 82.4)),
    "soft_norm_medium": SoftSpec(
        (1, 3, 29, 5), normed=True, **MEDIUM, published=Published(45, 45.813, 7.2, None, 83.1)
    ),
    "soft_norm_large": SoftSpec(
        (1, 3, 40, 5), normed=True, published=Published(64, 64.701, 11.0, None, 83.3)
    ),
    "soft_norm_huge": SoftSpec(
        (1, 5, 49, 5), normed=True, **HUGE, published=Published(87, 87.108, 16.3, None, 83.4)
    ),
    # Not a published model: small enough to learn handwritten digits in minutes on a CPU.
    "soft_digits": SoftSpec(
        (1, 1, 1, 1), (32, 48, 64, 96), (2, 3, 4, 6), landmark_ratios=(2, 2, 1), img_size=32, num_classes=10
    ),
}


class SoftmaxFreeLayer(Module):
    """Post-norm attention and perceptron: tokens [B, N, C] and the grid (H, W) -> tokens.

    Args:
        dim: C.
        drop_rate: of the single numbers of both branches.
        attention: the other arguments of `MultiHeadSoftmaxFree`.
    """

    def __init__(self, *, dim: int, drop_rate: float = 0.0, **attention: Any) -> None:
        super().__init__()
        self.mha = MultiHeadSoftmaxFree(dim, **attention)
        self.norm1 = LayerNorm(dim, eps=1e-5)
        self.ff1 = Linear(dim, MLP_RATIO * dim)
        self.act = TanhGELU()
        self.ff2 = Linear(MLP_RATIO * dim, dim)
        self.norm2 = LayerNorm(dim, eps=1e-5)
        self.drop = Dropout(drop_rate)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        x = self.norm1(x + self.drop(self.mha(x, size)))
        return self.norm2(x + self.drop(self.ff2(self.act(self.ff1(x)))))


class SoftmaxFreeBlock(Module):
    """A `SoftmaxFreeLayer` by the name that it has in the authors' checkpoints."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.att = SoftmaxFreeLayer(**arguments)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        return self.att(x, size)


class SoftPyramid(Pyramid):
    """The stages of SOFT; in the last one a class token comes first."""

    EMBEDDING = ("patch_embed1", "pos_embed1")
    NO_DECAY = ("cls_token",)
    PREFIX_TOKENS = (0, 0, 0, 1)

    def __init__(self, spec: SoftSpec, stages: int = len(STRIDES), any_size: bool = False) -> None:
        super().__init__(spec)
        check_spec(spec)
        check_stages(spec, ("depths", "embed_dims", "num_heads"))
        for dim, num_heads in zip(spec.embed_dims, spec.num_heads):
            check_heads(dim, num_heads)
        if [most % ratio for most, ratio in zip((8, 4, 2), spec.landmark_ratios) if ratio > 0] != [0, 0, 0]:
            raise UserError(
                f"landmark_ratios {spec.landmark_ratios!r} must be three divisors of 8, 4 and 2, for they "
                "must divide every stage's grid"
            )
        self.img_size = image_size(spec.img_size, STRIDES[-1])
        rates = stage_parts(depth_rates(spec.drop_path_rate, sum(spec.depths)), spec.depths)
        dims = spec.embed_dims[:stages]
        for i, (dim, grid) in enumerate(zip(dims, POSITION_GRIDS)):
            num_tokens = self.PREFIX_TOKENS[i] + grid[0] * grid[1]
            setattr(self, f"pos_embed{i + 1}", token_parameter(1, num_tokens, dim))
        if stages == len(STRIDES):
            self.cls_token = token_parameter(1, 1, dim)
        self.pos_drop = Dropout(spec.drop_rate)
        stem = ((spec.in_chans, STEM_DIM, 2), (STEM_DIM, STEM_DIM, 1), (STEM_DIM, spec.embed_dims[0], 2))
        for i, dim in enumerate(dims):
            embed = ConvPatchEmbed(((spec.embed_dims[i - 1], dim, 2),) if i else stem)
            setattr(self, f"patch_embed{i + 1}", embed)
        for i in range(stages):
            setattr(self, f"block{i + 1}", ModuleList([self.new_block(i, rate) for rate in rates[i]]))

    def new_block(self, i: int, rate: float) -> Module:
        """Return a fresh block of stage i of 0 .. 3 with its drop-path rate."""
        spec = self.spec
        dim, num_heads = spec.embed_dims[i], spec.num_heads[i]
        if i == 3:
            return SoftmaxBlock(
                dim=dim,
                num_heads=num_heads,
                form="softmax",
                prefix_tokens=1,
                mlp_ratio=MLP_RATIO,
                drop_rate=spec.drop_rate,
                drop_path_rate=rate,
            )
        return SoftmaxFreeBlock(
            dim=dim,
            num_heads=num_heads,
            ratio=spec.landmark_ratios[i],
            conv_kernel=CONV_KERNELS[i],
            normed=spec.normed,
            per_matrix_alpha=spec.per_matrix_alpha,
            drop_rate=rate,
        )

    def run_stage(self, i: int, x: Tensor, size: Size) -> Tensor:
        if i:
            x = tokens_to_map(x, (2 * size[0], 2 * size[1]))
        x = getattr(self, f"patch_embed{i + 1}")(x)
        positions = getattr(self, f"pos_embed{i + 1}")
        if i < 3:
            positions = resize_tokens(positions, POSITION_GRIDS[i], size)
        else:
            x = prepend_token(self.cls_token, x)
            resized = resize_tokens(positions[:, 1:], POSITION_GRIDS[i], size)
            positions = concat_tokens(positions[:, :1], resized)
        x = self.pos_drop(add_positions(x, positions))
        for block in getattr(self, f"block{i + 1}"):
            x = run_block(block, x, size, recompute=self.spec.recompute)
        return x

    def parts_of_stage(self, i: int) -> Sequence[str]:
        parts = (f"patch_embed{i + 1}", f"pos_embed{i + 1}", f"block{i + 1}")
        return (*parts, "cls_token") if self.PREFIX_TOKENS[i] else parts

    def check_images(self, x: Tensor) -> None:
        check_divisible_image(self, x, STRIDES[-1])


class Soft(SoftPyramid, Classifier):
    """Images [B, in_chans, H, W] of any sides that divide by 32 -> logits [B, num_classes]."""

    def __init__(self, spec: SoftSpec) -> None:
        super().__init__(spec)
        dim = spec.embed_dims[-1]
        self.norm = LayerNorm(dim)
        self.add_head(dim, spec.num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images -> the last stage's normed class and patch tokens, [B, 1 + N, C]."""
        self.check_images(x)
        height, width = x.shape[2:]
        for i, stride in enumerate(STRIDES):
            x = self.run_stage(i, x, (height // stride, width // stride))
        return self.norm(x)

    def forward_head(self, x: Tensor) -> Tensor:
        """Tokens of `forward_features` -> logits, [B, num_classes] (without a head: [B, C])."""
        return self.head(x[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))
