"""Intersection over union and accuracy, from one matrix of counts. K classes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..utils.errors import UserError

IGNORED = 255


class Scores:
    """Counts pixels by (label, predicted class); every score follows from the sums, whatever their order.

    A class that neither labels nor predictions have is left out of mIoU, one that labels have not out of mAcc, as
    in the evaluations that published figures come from. (PaddleSeg counts the first as an IoU of 0 in 2.8.0 and of
    1 in its git tree: its mIoU of few pictures differs.)

    Args:
        num_classes: K.
        ignored: the label of pixels that do not count.

    Attributes:
        counts: [K, K] int64, labels down, predictions across.
    """

    def __init__(self, num_classes: int, ignored: int = IGNORED) -> None:
        self.ignored = ignored
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def add(self, classes: np.ndarray, labels: np.ndarray, name: str = "a picture") -> None:
        """Count a picture.

        Args:
            classes: predicted, whole numbers [H, W] from 0 to K - 1.
            labels: of the same shape.
            name: of the labels' file, for the message.

        Raises:
            UserError: the shapes differ, or a label is neither a class nor the ignored one.
        """
        number = len(self.counts)
        if classes.shape != labels.shape:
            raise UserError(
                f"{name}: labels are {list(labels.shape)}, the picture is {list(classes.shape)}: they belong together"
            )
        labels = labels.astype(np.int64)
        valid = labels != self.ignored
        check_labels(labels[valid], number, self.ignored, name)
        pairs = number * labels[valid] + classes[valid].astype(np.int64)
        self.counts += np.bincount(pairs, minlength=number**2).reshape(number, number)

    @property
    def iou(self) -> np.ndarray:
        """Of each class [K]; NaN: absent from labels and predictions."""
        right = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - right
        return np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of each class's labels that were predicted [K]; NaN: absent from the labels."""
        right, of = np.diag(self.counts).astype(np.float64), self.counts.sum(1)
        return np.divide(right, of, out=np.full(len(right), np.nan), where=of > 0)

    @property
    def miou(self) -> float:
        """Mean IoU of the classes that are there."""
        return _mean(self.iou)

    @property
    def macc(self) -> float:
        """Mean accuracy of the classes that are labelled."""
        return _mean(self.accuracy)

    @property
    def aacc(self) -> float:
        """Share of all labelled pixels that is right."""
        total = self.counts.sum()
        return (np.trace(self.counts) / total).item() if total else float("nan")

    def __str__(self) -> str:
        absent = int(np.isnan(self.iou).sum())
        text = f"mIoU {100 * self.miou:.2f}, mAcc {100 * self.macc:.2f}, aAcc {100 * self.aacc:.2f}"
        return text + (f" ({absent} of {len(self.counts)} classes absent, left out)" if absent else "")

    def to_json(self) -> dict[str, Any]:
        """Return the scores as plain numbers; None: an absent class."""

        def plain(values: np.ndarray) -> list[float | None]:
            return [None if np.isnan(value) else value.item() for value in values]

        return {
            "miou": self.miou,
            "macc": self.macc,
            "aacc": self.aacc,
            "pixels": int(self.counts.sum()),
            "class_iou": plain(self.iou),
            "class_acc": plain(self.accuracy),
        }


def check_labels(labels: np.ndarray, number: int, ignored: int, name: str) -> None:
    """Refuse labels that are neither a class nor the ignored label; errors as for `Scores.add`."""
    labels = labels[labels != ignored]
    if labels.size and (labels.min() < 0 or labels.max() >= number):
        wrong = sorted({int(labels.min()), int(labels.max())} - set(range(number)))
        raise UserError(
            f"{name} has labels {', '.join(map(str, wrong))}; classes are 0 to {number - 1}, and {ignored} is ignored"
        )


def _mean(values: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of nothing at all
        return np.nanmean(values).item()
