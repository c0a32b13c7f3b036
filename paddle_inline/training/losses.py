"""Classification losses: logits [B, classes] and labels -> the mean over the batch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Callable

import paddle.nn.functional as F

if TYPE_CHECKING:
    import paddle


def soft_target_cross_entropy(logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
    """Return the cross-entropy with targets [B, classes] whose rows sum to 1 (mixup, cutmix)."""
    return -(targets * F.log_softmax(logits, axis=-1)).sum(-1).mean()


def smoothed_cross_entropy(
    logits: paddle.Tensor, labels: paddle.Tensor, smoothing: float = 0.1
) -> paddle.Tensor:
    """Return the cross-entropy with labels [B] int64, a share `smoothing` of it spread over all classes."""
    log_p = F.log_softmax(logits, axis=-1)
    at_label = -log_p.take_along_axis(labels.unsqueeze(1), axis=1).squeeze(1)
    if smoothing == 0:
        return at_label.mean()
    return ((1 - smoothing) * at_label - smoothing * log_p.mean(-1)).mean()


def make_loss(mixing: bool, smoothing: float) -> Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]:
    """Return the recipe's loss: soft targets when mixup or cutmix is on, smoothed labels otherwise."""
    return soft_target_cross_entropy if mixing else partial(smoothed_cross_entropy, smoothing=smoothing)
