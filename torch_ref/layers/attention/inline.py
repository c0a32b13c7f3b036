"""Injective linear attention, and the local residual that it shares with a control (InLine, NeurIPS 2024, section 4).

B batch, N tokens, C channels, h heads, d = C / h, H x W token grid, P prefix tokens.
"""

from __future__ import annotations

from typing import Any

from ...ops.inline_attention import FEATURE_MAPS, inline_attention, inline_attention_weights, local_residual
from ...ops.tokens import Size, all_heads, mean_tokens, merge_heads
from ...utils.errors import unknown
from ..basic import GELU, Conv1d, Sequential, Tensor
from .base import Attention, check_flag


class LocalFilter(Sequential):
    """Predicts one 3x3 filter per image and channel: the mean context [B, C] -> [B, C, 3, 3]."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(
            Conv1d(dim, dim, 1, groups=num_heads), GELU(), Conv1d(dim, 9 * dim, 1, groups=num_heads)
        )

    def forward(self, context: Tensor) -> Tensor:
        kernel = Sequential.forward(self, context.unsqueeze(-1))  # Paddle 2.6 traces no super()
        return kernel.reshape([-1, context.shape[1], 3, 3])


class LocalAttention(Attention):
    """A form that may add InLine's local residual, a 3x3 filter of the values that is made from the mean token.

    Args:
        dim, num_heads: C and h.
        local: whether it does.
        common: as for `Attention`.
    """

    OPTIONS: tuple[str, ...] = ("local",)

    def __init__(self, dim: int, num_heads: int, *, local: bool = True, **common: Any) -> None:
        super().__init__(dim, num_heads, **common)
        self.local = check_flag("local", local)
        if local:
            self.residual = LocalFilter(dim, num_heads)

    def context(self, x: Tensor) -> Tensor | None:
        """Return the mean token [B, C], of which the residual's filter is made."""
        return mean_tokens(x) if self.local else None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Tensor | None, size: Size) -> Tensor:
        if not self.local:
            return Attention.attend(self, q, k, v, context, size)
        kernel = self.residual(context)
        q, k, heads, v = all_heads((q, k, v), self.num_heads, keep=True)
        return local_residual(v, kernel, size, self.prefix_tokens, onto=merge_heads(self.mix(q, k, heads)))


class InLineAttention(LocalAttention):
    """Injective linear attention with the local residual (InLine, NeurIPS 2024, section 4).

    Args:
        dim, num_heads: C and h.
        kernel_function: the feature map of q and k, a key of FEATURE_MAPS.
        local: False leaves the residual out, a control of the paper (injective only).
        common: as for `Attention`.

    Raises:
        UserError: an unknown kernel_function.
    """

    OPTIONS = ("kernel_function", "local")
    SOURCE = "Han et al., NeurIPS 2024, arXiv 2412.06590"
    COMPLEXITY = "2 N d C + 9 N C + 10 C d"
    INJECTIVE = True
    ROW_DIMENSION = "d"
    EXTRA_PARAMETERS = "10 C (d + 1)"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        kernel_function: str = "identity",
        local: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(dim, num_heads, local=local, **common)
        if not isinstance(kernel_function, str) or kernel_function not in FEATURE_MAPS:
            raise unknown("kernel_function", kernel_function, FEATURE_MAPS)
        self.feature_map = FEATURE_MAPS[kernel_function]

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return inline_attention(self.feature_map(q), self.feature_map(k), v, self.scale)

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return inline_attention_weights(self.feature_map(q), self.feature_map(k), self.scale)
