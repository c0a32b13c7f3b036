"""What all forms of attention share: projections around a form's own part, its rows, and what the table says of it.

B batch, N tokens, C channels, h heads, d = C / h, H x W token grid, P prefix tokens (class token), N = P + H * W.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...ops.tokens import Size, all_heads, merge_heads, split_channels
from ...utils.errors import UserError, counted, short
from ..basic import Dropout, Linear, Module, Tensor

MOST = 1 << 20  # of anything that is counted: what a file claims must not fill the memory


class Attention(Module):
    """The base of all forms, [B, N, C] and (H, W) -> [B, N, C].

    A form that is made from q, k and v alone defines `mix` for heads (or `attend` for whole tokens), and can then be
    used with other projections too (see pvt_attention and window_attention). One that projects in its own way defines
    `forward`, and is not for CSwin. `weights` is its definition: one row of weights per query.

    Args:
        dim, num_heads: C and h.
        grid: (H, W), for forms with a table over the grid; None: any.
        prefix_tokens: P, leading tokens that attend but stand outside the grid.
        qkv_bias: whether the projection to q, k and v has a bias.
        drop_rate: dropout of the output.

    Raises:
        UserError: h does not divide C, d is no multiple of HEAD_MULTIPLE, or a form bound to its grid is given none or
            a huge one.
    """

    OPTIONS: tuple[str, ...] = ()  # what a form's constructor takes beside the arguments above
    STAGE_OPTIONS: Mapping[
        str, tuple[Any, ...]
    ] = {}  # defaults in a network of four stages, where they differ
    # True: Swin gives the form its small windows and their mask, a third argument of `forward`; CSwin gives it
    # stripes. False: both give it the large windows, up to the whole grid.
    windowed = False
    grid_bound = False  # True: its parameters are for one grid
    HEAD_MULTIPLE = 1  # of which d must be a multiple

    # What `list_attentions` says; see AttentionForm.
    SOURCE = ""
    COMPLEXITY = ""
    LINEAR = True
    INJECTIVE: bool | None = None
    ROW_DIMENSION = ""
    EXTRA_PARAMETERS = "0"
    ROWS = True

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        grid: Size | None = None,
        prefix_tokens: int = 0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        check_width(type(self).__name__, dim, num_heads, self.HEAD_MULTIPLE)
        if self.grid_bound and grid is None:
            raise UserError(
                f"{type(self).__name__} has a table over the grid and needs to know it: give grid=(H, W)"
            )
        if self.grid_bound and grid is not None:
            check_count("number of tokens of the grid", grid[0] * grid[1])
        self.dim = dim
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.prefix_tokens = prefix_tokens
        self.table_grid = tuple(grid) if grid is not None and self.grid_bound else None
        self.add_projections(dim, qkv_bias, drop_rate)

    @staticmethod
    def buffer_shapes(grid: Size) -> dict[str, tuple[int, ...]]:
        """{name: shape} of what a layer built for this grid keeps beside its parameters."""
        return {}

    def add_projections(self, dim: int, qkv_bias: bool, drop_rate: float) -> None:
        """Add the layers before and behind `attend`."""
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = Dropout(drop_rate)

    def check_size(self, x: Tensor, size: Size) -> None:
        """Refuse tokens that are not [B, N, C] on a grid (H, W), or another grid than that of the form's table."""
        if not isinstance(size, (tuple, list)) or len(size) != 2 or not all(map(is_side, size)):
            raise UserError(
                f"size {short(repr(size))} must be the grid (H, W) of the tokens, two ints above 0"
            )
        if len(x.shape) != 3 or x.shape[2] != self.dim:
            raise UserError(
                f"tokens of shape {list(x.shape)} for a layer of [B, N, {self.dim}]; build it for their width"
            )
        expected = self.prefix_tokens + size[0] * size[1]
        if x.shape[1] != expected:
            raise UserError(
                f"{counted(x.shape[1], 'token')} on a grid of {size[0]} x {size[1]} behind "
                f"{counted(self.prefix_tokens, 'prefix token')}, which makes {expected}; give the tokens' own (H, W), "
                "and prefix_tokens when the layer is built"
            )
        if self.table_grid is not None and tuple(size) != self.table_grid:
            raise UserError(
                f"{type(self).__name__} is tied to the grid it was built for, {self.table_grid[0]} x "
                f"{self.table_grid[1]}, and got {size[0]} x {size[1]}; build it with grid={tuple(size)} (a model: "
                "with the img_size of its images)"
            )

    def project(self, x: Tensor, size: Size) -> tuple[Tensor, Tensor, Tensor]:
        """Return q [B, N, C], k and v [B, M, C] of tokens [B, N, C]."""
        q, k, v = split_channels(self.qkv(x), 3)
        return q, k, v

    def context(self, x: Tensor) -> Tensor | None:
        """Return what `attend` needs to know of the input [B, N, C] beside q, k and v; None: nothing."""
        return None

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Compute the form itself for heads: q [B, h, N, d], k and v [B, h, M, d] -> [B, h, N, d]."""
        raise NotImplementedError(f"{type(self).__name__} has no mix")

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Tensor | None, size: Size) -> Tensor:
        """Compute the form itself: q [B, N, C], k and v [B, M, C], the input's `context` and (H, W) -> [B, N, C]."""
        return merge_heads(self.mix(*all_heads((q, k, v), self.num_heads)))

    def forward(self, x: Tensor, size: Size) -> Tensor:
        self.check_size(x, size)
        q, k, v = self.project(x, size)
        return self.proj_drop(self.proj(self.attend(q, k, v, self.context(x), size)))

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the form's definition, the weights w_ij [B, h, N, M] of heads q, k and v [B, h, N or M, d]."""
        raise UserError(
            f"{type(self).__name__} has no rows: its outputs are not sums of the values with one weight per token "
            "and head; list_attentions() says which forms have them"
        )

    def rows(self, x: Tensor, size: Size) -> Tensor:
        """Return each query's weights of all tokens, by the form's definition in O(N^2).

        What is added to their sum (convolutions of the values, gates) is not in them.

        Args:
            x: tokens [B, N, C]; size: their grid (H, W).

        Returns:
            [B, h, N, N], row i of which holds w_ij; [B, 2 h, N, N] of enhanced and pola, which have two rows each.

        Raises:
            UserError: the form has none (`ROWS` is False), or the grid does not fit.
        """
        self.check_size(x, size)
        q, k, v = all_heads(self.project(x, size), self.num_heads)
        return self.weights(q, k, v)


def check_width(name: str, dim: int, num_heads: int, multiple: int = 1) -> None:
    """Refuse a width C that its heads h do not share equally, or heads of a width that a form cannot take."""
    for key, value in (("dim", dim), ("num_heads", num_heads)):
        check_count(key, value)
    if dim % num_heads:
        fits = [heads for heads in range(1, dim + 1) if dim % heads == 0]
        near = min(fits, key=lambda heads: abs(heads - num_heads))
        raise UserError(
            f"width {dim} does not divide into {num_heads} heads; try {counted(near, 'head')}, or width "
            f"{max(1, dim // num_heads) * num_heads}"
        )
    if dim // num_heads % multiple:
        raise UserError(
            f"{name} needs heads of a width that is a multiple of {multiple}, and {counted(dim, 'channel')} in "
            f"{counted(num_heads, 'head')} make {dim // num_heads}; try width "
            f"{-(-dim // (multiple * num_heads)) * multiple * num_heads}"
        )


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Return an option that counts something, refused unless it is an int from `least` to MOST."""
    if type(value) is not int or not least <= value <= MOST:
        raise UserError(f"{name} {short(repr(value))} must be an int from {least} to {MOST}")
    return value


def is_side(value: Any) -> bool:
    """Whether a value is a side of a grid: an int above 0, of Python, NumPy or a program that is traced."""
    return hasattr(value, "__index__") and not isinstance(value, bool) and bool(value > 0)


def check_flag(name: str, value: Any) -> bool:
    """Return an option that is on or off, refused unless it is a bool."""
    if not isinstance(value, bool):
        raise UserError(f"{name} {short(repr(value))} must be true or false")
    return value


def check_rate(name: str, value: Any) -> float:
    """Return a share of what is dropped, refused unless it is a number from 0 to below 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise UserError(f"{name} {short(repr(value))} must lie in [0, 1)")
    return value
