"""Softmax attention, the baseline.

B batch, N tokens, C channels, h heads, d = C / h.
"""

from __future__ import annotations

from ...ops.inline_attention import softmax_attention, softmax_attention_weights
from ...ops.tokens import Size, all_heads, merge_heads
from ..basic import Tensor
from .base import Attention


class SoftmaxAttention(Attention):
    """Multi-head softmax attention, the baseline; arguments as for `Attention`."""

    windowed = True
    SOURCE = "Vaswani et al., NIPS 2017, arXiv 1706.03762"
    COMPLEXITY = "2 N^2 C"
    LINEAR = False
    INJECTIVE = True
    ROW_DIMENSION = "d"

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
        q, k, v = all_heads((q, k, v), self.num_heads)
        return merge_heads(softmax_attention(q, k, v, self.scale, bias))

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return softmax_attention_weights(q, k, self.scale)
