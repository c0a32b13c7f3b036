"""InLine-Swin: a Swin transformer whose early stages use injective linear attention (InLine, section 5.1).

B batch, N tokens, C channels, H x W token grid: in stage s of 0 .. 3 the image's size / STRIDES[s].
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..layers.attention import InLineAttention
from ..layers.basic import Dropout, Identity, LayerNorm, Linear, Module, ModuleList
from ..layers.drop_path import DropPath, depth_rates
from ..layers.mlp import Mlp
from ..layers.patch_embed import PatchEmbed
from ..layers.recompute import run_block
from ..layers.window_attention import WindowSoftmaxAttention
from ..ops.tokens import mean_tokens, tokens_to_map
from ..ops.windows import cut_windows, gather_neighbours, join_windows, roll_tokens, shift_mask
from ..utils.errors import UserError
from .spec import (
    Published,
    attention_types,
    check_heads,
    check_image,
    check_spec,
    check_stages,
    chosen_blocks,
    image_size,
    stage_parts,
)

STRIDES = (4, 8, 16, 32)  # of the image; the first is the patch size
EPS = 1e-5  # of every LayerNorm


@dataclass(frozen=True)
class SwinSpec:
    """A row of sizes, one per stage in tuples; all but `published` can be overridden in `create_model`."""

    embed_dim: int  # of the first stage; it doubles at each next one
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    attn_type: str = "IIIS"  # one letter per stage, I, S or M, and M's number of InLine blocks
    img_size: int | tuple[int, int] = 224  # pixels; (height, width) if not square
    window_size: int | None = None  # tokens; None: the smaller side of the first stage's grid
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    in_chans: int = 3
    num_classes: int = 1000  # 0: no head
    kernel_function: str = "identity"
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


def window_side(grid, window_size, letter):
    """The window's side in a stage: S blocks have smaller windows, and none is larger than the grid."""
    return min(window_size if letter == "I" else max(7, window_size // 8), *grid)


def block_window(grid, window_size, letter, number):
    """(side, shift) of the windows of a stage's block: odd ones are shifted where there is more than one."""
    side = window_side(grid, window_size, letter)
    return side, side // 2 if number % 2 and side < min(grid) else 0


def buffer_shapes(img_size, window_size, letters):
    """{name: shape} of what a model of (H, W) images, this window_size and these letters keeps beside its
    parameters; {} if a window does not divide its grid."""
    if indivisible_windows(img_size, window_size, letters):
        return {}
    shapes = {}
    for i, stride in enumerate(STRIDES):
        grid = (img_size[0] // stride, img_size[1] // stride)
        for j, letter in enumerate(letters[i]):
            side, shift = block_window(grid, window_size or min(img_size) // STRIDES[0], letter, j)
            if shift:
                windows = grid[0] * grid[1] // side**2
                shapes[f"layers.{i}.blocks.{j}.attn_mask"] = (windows, side**2, side**2)
            if letter == "S":
                shapes[f"layers.{i}.blocks.{j}.attn.relative_position_index"] = (side**2, side**2)
    return shapes


def indivisible_windows(img_size, window_size, letters):
    """(stage, grid, window side) wherever a window does not divide its grid, for images of (H, W)."""
    found = []
    for stage, (stride, kinds) in enumerate(zip(STRIDES, letters)):
        grid = (img_size[0] // stride, img_size[1] // stride)
        for letter in sorted(set(kinds)):
            side = window_side(grid, window_size or min(img_size) // STRIDES[0], letter)
            if grid[0] % side or grid[1] % side:
                found.append((stage, grid, side))
    return found


def check_windows(img_size, window_size, letters):
    """Refuse windows that do not divide their grids: ValueError naming the nearest sizes that work."""
    bad = indivisible_windows(img_size, window_size, letters)
    if not bad:
        return
    stage, grid, side = bad[0]
    steps = range(-32, 33)
    pairs = [(n, n) for n in steps] if img_size[0] == img_size[1] else [(m, n) for m in steps for n in steps]
    sizes = [(img_size[0] + 32 * m, img_size[1] + 32 * n) for m, n in sorted(pairs, key=_distance)]
    sizes = [size for size in sizes if min(size) > 0 and not indivisible_windows(size, window_size, letters)]
    windows = sorted(range(1, max(img_size) // STRIDES[0] + 1), key=lambda w: abs(w - (window_size or side)))
    windows = [window for window in windows if not indivisible_windows(img_size, window, letters)]
    ways = [f"img_size {size}" for size in sizes[:2]] + [f"window_size {window}" for window in windows[:2]]
    raise UserError(
        f"img_size {img_size} gives stage {stage + 1} a grid of {grid[0]} x {grid[1]}, which its window of "
        f"{side} x {side} does not divide; try {' or '.join(ways) or 'another attn_type'}"
    )


def _distance(step):
    return abs(step[0]) + abs(step[1])


class Block(Module):
    """Pre-norm transformer block that attends inside windows, on a grid fixed when it is built.

    Args:
        size: the grid (H, W); window: the side of its square windows; shift: rows and columns by which
            they are displaced.
        attn_type: I, windows that see all they hold; S, with a relative position bias and the mask.
    Input and output: [B, H * W, C].
    """

    def __init__(
        self,
        dim,
        num_heads,
        size,
        window,
        shift,
        attn_type,
        mlp_ratio=4.0,
        qkv_bias=True,
        kernel_function="identity",
        drop_rate=0.0,
        drop_path_rate=0.0,
    ):
        super().__init__()
        self.size = size
        self.window = (window, window)
        self.shift = shift
        self.masked = shift > 0 and attn_type == "S"
        if shift > 0:  # InLine blocks keep the mask too, unused: checkpoints have it
            self.register_buffer("attn_mask", shift_mask(size, self.window, shift))
        self.norm1 = LayerNorm(dim, EPS)
        if attn_type == "I":
            self.attn = InLineAttention(dim, num_heads, qkv_bias, drop_rate, kernel_function)
        else:
            self.attn = WindowSoftmaxAttention(dim, num_heads, window, qkv_bias, drop_rate)
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = LayerNorm(dim, EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop_rate)

    def attend(self, x):
        """The normed tokens through the windows' attention, [B, N, C] -> [B, N, C]."""
        x = cut_windows(roll_tokens(x, self.size, -self.shift), self.size, self.window)
        x = self.attn(x, self.window, self.attn_mask) if self.masked else self.attn(x, self.window)
        return roll_tokens(join_windows(x, self.size, self.window), self.size, self.shift)

    def forward(self, x):
        x = x + self.drop_path(self.attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(Module):
    """Halves both sides of the grid and doubles the channels: [B, H * W, C] -> [B, H / 2 * W / 2, 2 * C]."""

    def __init__(self, dim, size):
        super().__init__()
        self.size = size
        self.reduction = Linear(4 * dim, 2 * dim, bias=False)
        self.norm = LayerNorm(4 * dim, EPS)

    def forward(self, x):
        return self.reduction(self.norm(gather_neighbours(x, self.size)))


class Stage(Module):
    """Blocks on one grid, [B, H * W, C] -> [B, H * W, C]; `downsample` leads on to the next stage."""

    def __init__(self, blocks, downsample, recompute=False):
        super().__init__()
        self.blocks = ModuleList(blocks)
        self.downsample = downsample
        self.recompute = recompute

    def forward(self, x):
        for block in self.blocks:
            x = run_block(block, x, recompute=self.recompute)
        return x


class InLineSwin(Module):
    """Images [B, in_chans, *img_size] -> logits [B, num_classes].

    Raises ValueError for an image of another size than it was built for.
    """

    NO_DECAY = ("absolute_pos_embed", "relative_position_bias_table")

    @staticmethod
    def buffer_shapes(spec):
        """{name: shape} of a model's buffers, before it is built."""
        letters = attention_types(spec.attn_type, spec.depths)
        return buffer_shapes(image_size(spec.img_size, STRIDES[-1]), spec.window_size, letters)

    def __init__(self, spec):
        super().__init__()
        check_spec(spec)
        check_stages(spec, ("depths", "num_heads"))
        window_size = spec.window_size
        if window_size is not None and (not isinstance(window_size, int) or window_size < 1):
            raise UserError(f"window_size {window_size!r} must be a positive int, or None: the whole grid")
        self.spec = spec
        self.img_size = image_size(spec.img_size, STRIDES[-1])
        self.grids = [(self.img_size[0] // stride, self.img_size[1] // stride) for stride in STRIDES]
        letters = attention_types(spec.attn_type, spec.depths)
        check_windows(self.img_size, window_size, letters)
        rates = stage_parts(depth_rates(spec.drop_path_rate, sum(spec.depths)), spec.depths)
        self.patch_embed = PatchEmbed(STRIDES[0], spec.in_chans, spec.embed_dim, norm_eps=EPS)
        self.pos_drop = Dropout(spec.drop_rate)
        self.layers = ModuleList()
        for i, grid in enumerate(self.grids):
            dim = spec.embed_dim * 2**i
            check_heads(dim, spec.num_heads[i])
            blocks = []
            for j, (letter, rate) in enumerate(zip(letters[i], rates[i])):
                side, shift = block_window(grid, window_size or min(self.grids[0]), letter, j)
                blocks.append(
                    Block(
                        dim,
                        spec.num_heads[i],
                        grid,
                        side,
                        shift,
                        letter,
                        spec.mlp_ratio,
                        spec.qkv_bias,
                        spec.kernel_function,
                        spec.drop_rate,
                        rate,
                    )
                )
            downsample = PatchMerging(dim, grid) if i < len(STRIDES) - 1 else Identity()
            self.layers.append(Stage(blocks, downsample, spec.recompute))
        self.norm = LayerNorm(dim, EPS)
        self.head = Linear(dim, spec.num_classes) if spec.num_classes else Identity()

    def embed(self, x):
        """Images -> the first stage's tokens, [B, H / 4 * W / 4, C]."""
        check_image(x, (self.spec.in_chans, *self.img_size))
        return self.pos_drop(self.patch_embed(x))

    def forward_features(self, x):
        """Images -> the last stage's normed tokens, [B, H / 32 * W / 32, C]."""
        x = self.embed(x)
        for stage in self.layers:
            x = stage.downsample(stage(x))
        return self.norm(x)

    def forward_head(self, x):
        """Tokens of `forward_features` -> logits, [B, num_classes] (without a head: [B, C])."""
        return self.head(mean_tokens(x))

    def forward_intermediates(self, x, indices=None):
        """Images -> the maps [B, C, H, W] after the chosen stages of 0 .. 3, of strides 4, 8, 16, 32.

        `indices` defaults to all four; stages behind the last chosen one are not run. The maps are not
        normed.
        """
        indices = chosen_blocks(indices, len(STRIDES), "stage")
        x, maps = self.embed(x), []
        for i in range(max(indices, default=-1) + 1):
            x = self.layers[i](self.layers[i - 1].downsample(x) if i else x)
            maps.append(tokens_to_map(x, self.grids[i]))
        return [maps[i] for i in indices]

    def forward(self, x):
        return self.forward_head(self.forward_features(x))
