"""Mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019) of a batch with its reverse, as in timm.

All modes come down to one weight for each pixel: image * keep + reversed batch * other, where keep
is lambda everywhere (mixup), or 0 inside a box and 1 outside (cutmix). B images of H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle
from numpy.random import RandomState

from ..utils.errors import UserError, unknown

BOXES = ("exact", "timm-0.4")


class Mixup:
    """Mixes images and labels; one of `mixup` and `cutmix` must be above 0, or `cutmix_minmax` set.

    Args:
        num_classes: width of the targets.
        mixup, cutmix: the Beta distribution's alpha of each; 0 is off.
        cutmix_minmax: range of the box's sides as shares of the image's, in place of lambda.
        boxes: `exact`, timm 1.0's; `timm-0.4`, those of timm 0.4.12: sides of an odd number of pixels are one shorter,
            and with `cutmix_minmax` no box touches the lower or right edge.
        prob: probability that a batch (batch mode) or an image is mixed.
        switch_prob: probability of cutmix where both are on.
        mode: `batch` one lambda for all; `pair` one for each pair of an image and its mirror in the
            batch; `elem` one for each image.
        smoothing: label smoothing inside the target.

    Raises:
        UserError: if nothing is on, for an unknown mode, or for an odd batch when called.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        cutmix_minmax: Sequence[float] | None = None,
        boxes: str = "exact",
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = "batch",
        smoothing: float = 0.1,
    ) -> None:
        if mode not in ("batch", "pair", "elem"):
            raise UserError(f"mixup mode {mode!r}; it is one of batch, pair, elem")
        if boxes not in BOXES:
            raise unknown("cutmix boxes", boxes, BOXES)
        if not (mixup > 0 or cutmix > 0 or cutmix_minmax):
            raise UserError("mixup and cutmix are both 0; leave Mixup out instead")
        self.num_classes, self.smoothing, self.mode = num_classes, smoothing, mode
        self.mixup, self.cutmix = mixup, 1.0 if cutmix_minmax else cutmix
        self.old_boxes = boxes == "timm-0.4"
        self.cutmix_minmax, self.prob, self.switch_prob = cutmix_minmax, prob, switch_prob

    def __call__(
        self, images: paddle.Tensor, labels: paddle.Tensor, rng: RandomState
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Mix a batch.

        Args:
            images: [B, C, H, W]; B is even, so that every image has a partner.
            labels: [B] int64.
            rng: what lambda, boxes and choices are drawn from.

        Returns:
            Images [B, C, H, W] and targets [B, num_classes], rows summing to 1, in the images' dtype.
        """
        batch, height, width = images.shape[0], images.shape[2], images.shape[3]
        if batch % 2:
            raise UserError(f"mixup needs an even batch, got {batch} images; change data.batch_size")
        keep, other, lam = self.weights(batch, height, width, rng)
        keep = paddle.to_tensor(keep, dtype=images.dtype)
        other = paddle.to_tensor(other, dtype=images.dtype)
        images = images * keep + images.flip(0) * other
        return images, self.targets(labels, lam, images.dtype)

    def targets(self, labels: paddle.Tensor, lam: np.ndarray, dtype: Any = "float32") -> paddle.Tensor:
        """Smoothed one-hot rows [B, num_classes] of the labels, mixed with those of the reverse."""
        off = self.smoothing / self.num_classes
        rows = paddle.nn.functional.one_hot(labels, self.num_classes).astype(dtype)
        rows = rows * (1.0 - self.smoothing) + off
        lam = np.reshape(lam, (-1, 1))  # 1 - lam in its own precision, before both are rounded
        keep, other = (paddle.to_tensor(share, dtype=rows.dtype) for share in (lam, 1 - lam))
        return rows * keep + rows.flip(0) * other

    def weights(
        self, batch: int, height: int, width: int, rng: RandomState
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (keep, other, lambda): [B or 1, 1, H or 1, W or 1] twice, and [B or 1]."""
        if self.mode == "batch":
            lam, cut = self._draw_batch(rng)
            if not cut or lam == 1:
                return _column([lam]), _column([1.0 - lam]), np.array([lam])
            box, lam = self._box(height, width, lam, rng)
            keep = _mask(box, height, width)[None, None]
            return keep, 1 - keep, np.array([lam])
        drawn = batch if self.mode == "elem" else batch // 2
        lams, cuts = self._draw_each(drawn, rng)
        keep = np.ones((drawn, 1, height, width), np.float32)
        other = np.zeros_like(keep)
        for i in range(drawn):
            if lams[i] == 1:
                continue
            if cuts[i]:
                box, lams[i] = self._box(height, width, lams[i], rng)
                keep[i] = _mask(box, height, width)
                other[i] = 1 - keep[i]
            else:
                keep[i], other[i] = lams[i], 1 - lams[i]
        if self.mode == "pair":
            keep, other, lams = (np.concatenate([a, a[::-1]]) for a in (keep, other, lams))
        return keep, other, lams

    def _draw_batch(self, rng: RandomState) -> tuple[float, bool]:
        if rng.rand() >= self.prob:
            return 1.0, False
        cut = self.cutmix > 0
        if cut and self.mixup > 0:
            cut = rng.rand() < self.switch_prob
        alpha = self.cutmix if cut else self.mixup
        return float(rng.beta(alpha, alpha)), cut

    def _draw_each(self, count: int, rng: RandomState) -> tuple[np.ndarray, np.ndarray]:
        if self.mixup > 0 and self.cutmix > 0:
            cuts = rng.rand(count) < self.switch_prob
            of_cuts = rng.beta(self.cutmix, self.cutmix, size=count)
            lams = np.where(cuts, of_cuts, rng.beta(self.mixup, self.mixup, size=count))
        else:
            cuts = np.full(count, self.cutmix > 0)
            alpha = self.cutmix or self.mixup
            lams = rng.beta(alpha, alpha, size=count)
        mixed = rng.rand(count) < self.prob
        return np.where(mixed, lams.astype(np.float32), np.float32(1)), cuts

    def _box(self, height, width, lam, rng):
        """Return ((top, bottom, left, right), lambda as the box's true share of the image has it)."""
        if self.cutmix_minmax is not None:
            low, high = self.cutmix_minmax
            h = rng.randint(int(height * low), int(height * high))
            w = rng.randint(int(width * low), int(width * high))
            beyond = 0 if self.old_boxes else 1
            top = rng.randint(0, height - h + beyond)
            left = rng.randint(0, width - w + beyond)
            bottom, right = top + h, left + w
        else:
            share = np.sqrt(1 - lam)
            h, w = int(height * share), int(width * share)
            if self.old_boxes:
                h, w = h - h % 2, w - w % 2
            y, x = rng.randint(0, height), rng.randint(0, width)
            top, bottom = np.clip([y - h // 2, y + (h + 1) // 2], 0, height)
            left, right = np.clip([x - w // 2, x + (w + 1) // 2], 0, width)
        lam = 1.0 - (bottom - top) * (right - left) / float(height * width)
        return (top, bottom, left, right), lam


def _column(values):
    return np.reshape(np.asarray(values, np.float64), (-1, 1, 1, 1))


def _mask(box, height, width):
    top, bottom, left, right = box
    keep = np.ones((height, width), np.float32)
    keep[top:bottom, left:right] = 0
    return keep
