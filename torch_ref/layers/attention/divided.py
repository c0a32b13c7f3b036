"""Linear attention whose weights are divided by their sum.

B batch, N tokens, C channels, h heads, d = C / h.
"""

from __future__ import annotations

from typing import Any

from ...ops.attention import divided
from ..basic import Tensor
from .base import Attention
from .inline import LocalAttention


class LinearReLUAttention(LocalAttention):
    """Linear attention with ReLU features.

    Args:
        dim, num_heads: C and h.
        local: True adds InLine's local residual, a control of InLine's paper (local only).
        common: as for `Attention`.
    """

    SOURCE = "Cai et al. (EfficientViT), ICCV 2023, arXiv 2205.14756"
    COMPLEXITY = "2 N d C"
    INJECTIVE = False
    ROW_DIMENSION = "d+ - 1"

    def __init__(self, dim: int, num_heads: int, *, local: bool = False, **common: Any) -> None:
        super().__init__(dim, num_heads, local=local, **common)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return divided.linear_relu_attention(q, k, v)

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return divided.linear_relu_rows(q, k)


class LinearELUAttention(Attention):
    """Linear attention with features elu + 1; arguments as for `Attention`."""

    SOURCE = "Katharopoulos et al., ICML 2020, arXiv 2006.16236"
    COMPLEXITY = "2 N d C"
    INJECTIVE = False
    ROW_DIMENSION = "d - 1"

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return divided.linear_elu_attention(q, k, v)

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return divided.linear_elu_rows(q, k)
