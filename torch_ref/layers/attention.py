"""Attention that reads q, k and v from one Linear (DeiT, Swin), and the table of the forms of attention.

B batch, N tokens, C channels, h heads, d = C / h, H x W token grid, P prefix tokens (class token), N = P + H * W.

A new form is a subclass of `Attention` here and a row of ATTENTION: every backbone then takes it by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..ops.inline_attention import FEATURE_MAPS, inline_attention, local_residual, softmax_attention
from ..ops.tokens import Size, concat_tokens, mean_tokens, merge_heads, split_channels, split_heads
from ..utils.errors import unknown
from .basic import GELU, Conv1d, Dropout, Linear, Module, Sequential, Tensor


class LocalFilter(Sequential):
    """Predicts one 3x3 filter per image and channel: the mean context [B, C] -> [B, C, 3, 3]."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(
            Conv1d(dim, dim, 1, groups=num_heads), GELU(), Conv1d(dim, 9 * dim, 1, groups=num_heads)
        )

    def forward(self, context: Tensor) -> Tensor:
        kernel = Sequential.forward(self, context.unsqueeze(-1))  # Paddle 2.6 traces no super()
        return kernel.reshape([-1, context.shape[1], 3, 3])


class Attention(Module):
    """The base of all forms: projections around a form's own `attend`, [B, N, C] and (H, W) -> [B, N, C].

    A form that is made from q, k and v alone defines `attend`, and can then be used with other projections too
    (see pvt_attention and window_attention). One that projects in its own way defines `forward`.

    Args:
        dim, num_heads: C and h.
        grid: (H, W), for forms with a table over the grid; None: any.
        prefix_tokens: P, leading tokens that attend but stand outside the grid.
        qkv_bias: whether the projection to q, k and v has a bias.
        drop_rate: dropout of the output.
    """

    OPTIONS: tuple[str, ...] = ()  # what a form's constructor takes beside the arguments above
    # True: Swin gives the form its small windows and their mask, a third argument of `forward`; CSwin gives it
    # stripes. False: both give it the large windows, up to the whole grid.
    windowed = False

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
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.prefix_tokens = prefix_tokens
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

    def context(self, x: Tensor) -> Tensor | None:
        """Return what `attend` needs to know of the input [B, N, C] beside q, k and v; None: nothing."""
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Tensor | None, size: Size) -> Tensor:
        """Compute the form itself: q [B, N, C], k and v [B, M, C], the input's `context` and (H, W) -> [B, N, C]."""
        raise NotImplementedError(f"{type(self).__name__} has no attend")

    def forward(self, x: Tensor, size: Size) -> Tensor:
        q, k, v = split_channels(self.qkv(x), 3)
        return self.proj_drop(self.proj(self.attend(q, k, v, self.context(x), size)))


class InLineAttention(Attention):
    """Injective linear attention with the local residual (InLine, NeurIPS 2024, section 4).

    Args:
        dim, num_heads: C and h.
        kernel_function: the feature map of q and k, a key of FEATURE_MAPS.
        common: as for `Attention`.

    Raises:
        UserError: an unknown kernel_function.
    """

    OPTIONS = ("kernel_function",)

    def __init__(self, dim: int, num_heads: int, *, kernel_function: str = "identity", **common: Any) -> None:
        super().__init__(dim, num_heads, **common)
        if kernel_function not in FEATURE_MAPS:
            raise unknown("kernel_function", kernel_function, FEATURE_MAPS)
        self.feature_map = FEATURE_MAPS[kernel_function]
        self.residual = LocalFilter(dim, num_heads)

    def context(self, x: Tensor) -> Tensor:
        """Return the mean token [B, C], of which the residual's filter is made."""
        return mean_tokens(x)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Tensor, size: Size) -> Tensor:
        prefix = self.prefix_tokens
        local = local_residual(v[:, prefix:] if prefix else v, self.residual(context), size)
        q, k, v = (split_heads(part, self.num_heads) for part in (q, k, v))
        out = merge_heads(inline_attention(self.feature_map(q), self.feature_map(k), v, self.scale))
        return concat_tokens(out[:, :prefix], out[:, prefix:] + local) if prefix else out + local


class SoftmaxAttention(Attention):
    """Multi-head softmax attention, the baseline; arguments as for `Attention`."""

    windowed = True

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        context: Tensor | None,
        size: Size,
        bias: Tensor | None = None,
    ) -> Tensor:
        """As in `Attention`; `bias` is added to the logits, see `softmax_attention`."""
        q, k, v = (split_heads(part, self.num_heads) for part in (q, k, v))
        return merge_heads(softmax_attention(q, k, v, self.scale, bias))


# a form's name -> its layer, of backbones that need nothing more (DeiT); the other tables start from this one
ATTENTION: dict[str, type[Attention]] = {
    "inline": InLineAttention,
    "softmax": SoftmaxAttention,
}


def build_attention(
    table: Mapping[str, type[Attention]],
    form: str,
    dim: int,
    num_heads: int,
    *,
    options: Mapping[str, Any] | None = None,
    **common: Any,
) -> Attention:
    """Build the layer of a form.

    Args:
        table: ATTENTION or another table of the backbone; form: one of its names.
        dim, num_heads: C and h.
        options: options of whichever forms the backbone has; the layer takes those that it names in OPTIONS.
        common: what every layer of the table takes.

    Returns:
        The layer, from tokens [B, N, C] and (H, W) to [B, N, C].
    """
    layer = table[form]
    own = {name: value for name, value in (options or {}).items() if name in layer.OPTIONS}
    return layer(dim, num_heads, **common, **own)
