"""Batch normalisation over the batches of all ranks.

Paddle's own SyncBatchNorm keeps the biased variance; this one keeps what `BatchNorm2d` keeps, so that
n ranks of batch b train and evaluate as one rank of batch n * b. C channels.
"""

from __future__ import annotations

import paddle
import paddle.distributed as dist

from ..layers.batch_norm import BatchNorm2d
from ..ops.eager import Function
from ..utils.errors import UserError

DIMS = (0, 2, 3)


class SyncBatchNorm2d(BatchNorm2d):
    """`BatchNorm2d` whose statistics in train mode are those of all ranks' batches together.

    Raises UserError in train mode where all ranks together have one number per channel.
    """

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if not self.training:
            return super().forward(x)
        with paddle.amp.auto_cast(enable=False):
            wide = x.astype(self.weight.dtype)
            count, mean, variance = all_ranks(wide.detach())
            if count == 1:
                raise UserError(
                    f"more than 1 value per channel is needed to train, got images {list(x.shape)}"
                )
            with paddle.no_grad():
                for running, new in ((self._mean, mean), (self._variance, variance * (count / (count - 1)))):
                    running.set_value(self._momentum * running + (1 - self._momentum) * new)
            epsilon = paddle.full([1], self._epsilon, wide.dtype)
            out = _Normalise.of((wide, self.weight, self.bias, mean, (variance + epsilon).rsqrt()), count)
            return out.astype(x.dtype)


@paddle.no_grad()
def all_ranks(x: paddle.Tensor) -> tuple[int, paddle.Tensor, paddle.Tensor]:
    """Return (numbers per channel, mean [C], biased variance [C]) of x [B, C, H, W] of all ranks.

    Each rank's mean and sum of squares about it are put together (Chan et al., 1979): a difference of
    large sums would lose what float32 has of a small variance.
    """
    mean = x.mean(DIMS)
    squares = (x - _wide(mean)).square().sum(DIMS)
    count = paddle.full([1], x.shape[0] * x.shape[2] * x.shape[3], x.dtype)
    gathered: list[paddle.Tensor] = []
    dist.all_gather(gathered, paddle.concat([mean, squares, count]))
    parts, channels = paddle.stack(gathered), x.shape[1]
    means, counts = parts[:, :channels], parts[:, -1:]
    total = counts.sum().item()
    mean = (means * counts).sum(0) / total
    squares = (parts[:, channels:-1] + counts * (means - mean).square()).sum(0)
    return round(total), mean, squares / total


class _Normalise(Function):
    """(x - mean) * scale * weight + bias, where mean and scale come from x of all ranks."""

    @staticmethod
    def run(ctx, x, weight, bias, mean, scale, count):
        normal = (x - _wide(mean)) * _wide(scale)
        ctx.save_for_backward(normal, weight, scale)
        ctx.count = count
        return normal * _wide(weight) + _wide(bias)

    @staticmethod
    def gradients(ctx, grad):
        normal, weight, scale = ctx.saved_tensor()
        grad_bias, grad_weight = grad.sum(DIMS), (grad * normal).sum(DIMS)
        sums = paddle.concat([grad_bias, grad_weight])  # of this rank: DataParallel averages those
        dist.all_reduce(sums)
        of_mean, of_scale = sums.reshape([2, -1]) / ctx.count
        grad_x = (grad - _wide(of_mean) - normal * _wide(of_scale)) * _wide(weight * scale)
        found = grad_x, grad_weight, grad_bias, None, None
        return [gradient if wanted else None for gradient, wanted in zip(found, ctx.wanted)]


def _wide(channels):
    return channels.reshape([1, -1, 1, 1])


def synchronise(model: paddle.nn.Layer, world: int) -> paddle.nn.Layer:
    """Let every `BatchNorm2d` of a model see all ranks' batches; for one rank nothing changes."""
    if world > 1:
        for layer in model.sublayers(include_self=True):
            if type(layer) is BatchNorm2d:
                layer.__class__ = SyncBatchNorm2d  # the same parameters, buffers and names
    return model
