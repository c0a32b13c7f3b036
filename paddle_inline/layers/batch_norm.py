"""Batch normalisation with PyTorch's running statistics."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn


class BatchNorm2d(nn.BatchNorm2D):
    """Normalises each channel of [B, C, H, W], eps 1e-5; running statistics move by a tenth per batch.

    As in PyTorch the running variance is the unbiased one; Paddle's own is off by (n - 1) / n. Raises
    ValueError in train mode for a batch of one number per channel, which has no variance.
    """

    def __init__(self, channels):
        super().__init__(channels, momentum=0.9, epsilon=1e-5)

    def forward(self, x):
        if not self.training:
            return nn.BatchNorm2D.forward(self, x)  # Paddle 2.6 traces no super()
        count = x.shape[0] * x.shape[2] * x.shape[3]
        if count == 1:
            raise ValueError(f"more than 1 value per channel is needed to train, got images {list(x.shape)}")
        # With momentum 0 the running statistics become the batch's own.
        mean, variance = paddle.zeros_like(self._mean), paddle.zeros_like(self._variance)
        out = F.batch_norm(
            x, mean, variance, self.weight, self.bias, training=True, momentum=0.0, epsilon=self._epsilon
        )
        with paddle.no_grad():
            self._mean.set_value(self._momentum * self._mean + (1 - self._momentum) * mean)
            unbiased = variance * (count / (count - 1))
            self._variance.set_value(self._momentum * self._variance + (1 - self._momentum) * unbiased)
        return out
