"""Linear attention whose weights are divided by their sum.

B batch, N tokens, C channels, h heads, d = C / h.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...ops.attention import divided, performer
from ..basic import Module, Tensor, learned
from .base import Attention, check_count
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


class FeatureMatrix(Module):
    """One matrix per head, `weight` [h, d, d], that begins as the identity."""

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.weight = learned(np.tile(np.eye(head_dim), (num_heads, 1, 1)))


class HedgehogAttention(Attention):
    """Linear attention with learned softmax features; arguments as for `Attention`."""

    SOURCE = "Zhang et al. (Hedgehog), ICLR 2024, arXiv 2402.04347"
    COMPLEXITY = "6 N d C"
    INJECTIVE = False
    ROW_DIMENSION = "d - 1"
    EXTRA_PARAMETERS = "2 C d"

    def __init__(self, dim: int, num_heads: int, **common: Any) -> None:
        super().__init__(dim, num_heads, **common)
        self.feature_map_q = FeatureMatrix(num_heads, dim // num_heads)
        self.feature_map_k = FeatureMatrix(num_heads, dim // num_heads)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return divided.hedgehog_attention(q, k, v, self.feature_map_q.weight, self.feature_map_k.weight)

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return divided.hedgehog_rows(q, k, self.feature_map_q.weight, self.feature_map_k.weight)


class L2Attention(Attention):
    """ReLU attention that is divided by its sum above a bound only; arguments as for `Attention`."""

    SOURCE = "Zheng (L2ViT), 2025, arXiv 2501.16182"
    COMPLEXITY = "2 N d C"
    INJECTIVE = False
    ROW_DIMENSION = "d+ - 1"
    EXTRA_PARAMETERS = "h"

    def __init__(self, dim: int, num_heads: int, **common: Any) -> None:
        super().__init__(dim, num_heads, **common)
        self.temperature = learned(np.full((num_heads, 1, 1), self.scale))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return divided.l2_attention(q, k, v, self.temperature)

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return divided.l2_rows(q, k, self.temperature)


class CosformerAttention(Attention):
    """ReLU attention that fades along the sequence of tokens, row after row; arguments as for `Attention`."""

    SOURCE = "Qin et al. (cosFormer), ICLR 2022, arXiv 2202.08791"
    COMPLEXITY = "4 N d C"
    INJECTIVE = False
    ROW_DIMENSION = "d+ - 1"

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return divided.cosformer_attention(q, k, v)

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return divided.cosformer_rows(q, k)


class PerformerAttention(Attention):
    """Linear attention with positive random features.

    Args:
        dim, num_heads: C and h.
        num_features: m; None: d ln d, rounded down. They are drawn once, from the framework's generator, and kept in
            the state dict as the buffer `projection` [m, d].
        common: as for `Attention`.
    """

    OPTIONS = ("num_features",)
    SOURCE = "Choromanski et al. (Performer), ICLR 2021, arXiv 2009.14794"
    COMPLEXITY = "4 N m C"
    INJECTIVE = True
    ROW_DIMENSION = "d (m > d)"

    def __init__(self, dim: int, num_heads: int, *, num_features: int | None = None, **common: Any) -> None:
        super().__init__(dim, num_heads, **common)
        head_dim = dim // num_heads
        if num_features is None:
            num_features = max(1, int(head_dim * math.log(head_dim)))
        count = check_count("num_features", num_features)
        self.register_buffer("projection", performer.random_directions(count, head_dim))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return performer.performer_attention(q, k, v, self.projection)

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return performer.performer_rows(q, k, self.projection)
