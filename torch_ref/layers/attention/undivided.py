"""Forms of attention whose weights are not divided by their sum, softmax through landmarks, attention of channels.

B batch, N tokens, C channels, h heads, d = C / h.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ops.attention import flow, nystrom, undivided
from ...ops.tokens import Size, merge_heads, split_heads
from ...utils.errors import UserError, counted
from ..basic import SequenceConv, Tensor, learned
from .base import Attention, check_count


class EfficientAttention(Attention):
    """Softmax of queries over channels and of keys over tokens; arguments as for `Attention`."""

    SOURCE = "Shen et al. (Efficient Attention), WACV 2021, arXiv 1812.01243"
    COMPLEXITY = "2 N d C"
    INJECTIVE = False
    ROW_DIMENSION = "d - 1"

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return undivided.efficient_attention(q, k, v)

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return undivided.efficient_rows(q, k)


class HydraAttention(Attention):
    """One head per channel, whatever `num_heads` says; arguments as for `Attention`."""

    SOURCE = "Bolya et al. (Hydra Attention), ECCV 2022 workshops, arXiv 2209.07484"
    COMPLEXITY = "2 N C"
    INJECTIVE = False
    ROWS = False  # there is one for each channel

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Tensor | None, size: Size) -> Tensor:
        return undivided.hydra_attention(q, k, v)


class AngularAttention(Attention):
    """Linear angular attention, and a convolution of the values along the sequence; arguments as for `Attention`."""

    SOURCE = "You et al. (Castling-ViT), CVPR 2023, arXiv 2211.10526"
    COMPLEXITY = "2 N d C + 9 N C"
    INJECTIVE = False
    ROW_DIMENSION = "d - 1"
    EXTRA_PARAMETERS = "9 h"

    def __init__(self, dim: int, num_heads: int, **common: Any) -> None:
        super().__init__(dim, num_heads, **common)
        self.dconv = SequenceConv(num_heads, 9)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return undivided.angular_attention(q, k, v) + self.dconv(v)

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return undivided.angular_rows(q, k, v)


class NormAttention(Attention):
    """Linear attention with elu + 1 whose output is normalised instead of its weights; arguments as for `Attention`."""

    SOURCE = "Qin et al. (TransNormer), EMNLP 2022, arXiv 2210.10340"
    COMPLEXITY = "2 N d C"
    INJECTIVE = True
    ROW_DIMENSION = "d"

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Tensor | None, size: Size) -> Tensor:
        q, k, v = (split_heads(part, self.num_heads) for part in (q, k, v))
        return undivided.normalise_channels(merge_heads(undivided.norm_attention(q, k, v)))

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return undivided.norm_rows(q, k)


class FlowAttention(Attention):
    """Attention as a flow that is conserved; arguments as for `Attention`."""

    SOURCE = "Wu et al. (Flowformer), ICML 2022, arXiv 2202.06258"
    COMPLEXITY = "2 N d C + 6 N C"
    INJECTIVE = True
    ROW_DIMENSION = "d"

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return flow.flow_attention(q, k, v)

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return flow.flow_rows(q, k)


class CrossCovarianceAttention(Attention):
    """Attention between the channels of a head; arguments as for `Attention`."""

    SOURCE = "El-Nouby et al. (XCiT), NeurIPS 2021, arXiv 2106.09681"
    COMPLEXITY = "2 N d C"
    EXTRA_PARAMETERS = "h"
    ROWS = False  # a token's output is a mix of its own channels

    def __init__(self, dim: int, num_heads: int, **common: Any) -> None:
        super().__init__(dim, num_heads, **common)
        self.temperature = learned(np.ones((num_heads, 1, 1)))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return undivided.channel_attention(q, k, v, self.temperature)


class ReLUAttention(Attention):
    """ReLU / N in place of softmax, the control without softmax and division; arguments as for `Attention`."""

    SOURCE = "Wortsman et al., 2023, arXiv 2309.08586"
    COMPLEXITY = "2 N^2 C"
    LINEAR = False
    INJECTIVE = True
    ROW_DIMENSION = "d"
    POWER = 1

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return undivided.relu_attention(q, k, v, self.scale, self.POWER)

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return undivided.relu_rows(q, k, self.scale, self.POWER)


class SquaredReLUAttention(ReLUAttention):
    """`ReLUAttention` with the square of ReLU."""

    POWER = 2


class NystromAttention(Attention):
    """Softmax attention through landmarks, and a convolution of the values along the sequence.

    Args:
        dim, num_heads: C and h.
        num_landmarks: m, at most N; None: 49, or N where that is less.
        conv_kernel: taps of the convolution, odd; 0: none.
        common: as for `Attention`.

    Raises:
        UserError: an even kernel, or more landmarks than tokens.
    """

    OPTIONS = ("num_landmarks", "conv_kernel")
    SOURCE = "Xiong et al. (Nystromformer), AAAI 2021, arXiv 2102.03902"
    COMPLEXITY = "4 N m C + 24 h m^3 + 35 N C"
    ROW_DIMENSION = "min(d, m - 1)"
    EXTRA_PARAMETERS = "35 h"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        grid: Size | None = None,
        prefix_tokens: int = 0,
        num_landmarks: int | None = None,
        conv_kernel: int = 35,
        **common: Any,
    ) -> None:
        super().__init__(dim, num_heads, grid=grid, prefix_tokens=prefix_tokens, **common)
        self.num_landmarks = num_landmarks
        if num_landmarks is not None:
            check_count("num_landmarks", num_landmarks)
            if grid is not None:
                self.landmarks(prefix_tokens + grid[0] * grid[1])
        if check_count("conv_kernel", conv_kernel, 0) % 2 == 0 and conv_kernel:
            raise UserError(
                f"conv_kernel {conv_kernel} must be odd, or 0: no convolution; try {conv_kernel + 1}"
            )
        self.conv = SequenceConv(num_heads, conv_kernel) if conv_kernel else None

    def landmarks(self, num_tokens: int) -> int:
        """Return m for so many tokens."""
        if self.num_landmarks is None:
            return min(49, num_tokens)
        if self.num_landmarks > num_tokens:
            raise UserError(
                f"num_landmarks {self.num_landmarks} for {counted(num_tokens, 'token')}: a landmark is the mean of at "
                f"least one; use at most {num_tokens}"
            )
        return self.num_landmarks

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = nystrom.nystrom_attention(q, k, v, self.landmarks(k.shape[2]))
        if self.conv is None:
            return out
        return out - (
            -self.conv(v)
        )  # a difference, as in `inline_attention`: a sum would be fused into the product

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nystrom.nystrom_rows(q, k, self.landmarks(k.shape[2]))
