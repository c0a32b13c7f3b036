"""Batch normalisation with PyTorch's running statistics."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from ..utils.errors import UserError
from .basic import Tensor, exact_epsilon_scale


class BatchNorm2d(nn.BatchNorm2D):
    """Normalises each channel of [B, C, H, W], eps 1e-5; running statistics move by a tenth per batch.

    As in PyTorch the running variance is the unbiased one; Paddle's own is off by (n - 1) / n.

    Raises:
        UserError: in train mode, for a batch of one number per channel, which has no variance.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=0.9, epsilon=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        scale = exact_epsilon_scale(self._epsilon) if x.dtype == paddle.float64 else 1.0
        if scale != 1:
            x = x * scale
        weight, bias = self.weight, self.bias
        if paddle.in_dynamic_mode() and weight.stop_gradient != bias.stop_gradient:
            # Paddle's gradient forgets the one that learns where the other is frozen: that one learns in vain
            weight, bias = (part.detach() if part.stop_gradient else part for part in (weight, bias))
            weight.stop_gradient = bias.stop_gradient = False
        if not self.training:
            mean, variance = self._mean, self._variance
            if scale != 1:
                mean, variance = mean * scale, variance * scale**2
            return F.batch_norm(x, mean, variance, weight, bias, epsilon=self._epsilon)
        count = x.shape[0] * x.shape[2] * x.shape[3]
        if count == 1:
            raise UserError(f"more than 1 value per channel is needed to train, got images {list(x.shape)}")
        # With momentum 0 the running statistics become the batch's own.
        mean, variance = paddle.zeros_like(self._mean), paddle.zeros_like(self._variance)
        out = F.batch_norm(
            x, mean, variance, weight, bias, training=True, momentum=0.0, epsilon=self._epsilon
        )
        with paddle.no_grad():
            unbiased = variance * (count / (count - 1))
            for running, new in ((self._mean, mean / scale), (self._variance, unbiased / scale**2)):
                running.set_value(self._momentum * running + (1 - self._momentum) * new)
        return out
