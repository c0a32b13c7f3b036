"""Batch normalisation, PyTorch's own."""

from __future__ import annotations

from torch import nn


class BatchNorm2d(nn.BatchNorm2d):
    """Normalises each channel of [B, C, H, W], eps 1e-5; running statistics move by a tenth per batch.

    The running variance is the unbiased one.

    Raises:
        ValueError: in train mode, for a batch of one number per channel, which has no variance.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=0.1, eps=1e-5)
