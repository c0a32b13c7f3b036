"""Real images that need no download: the handwritten digits inside scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..utils.errors import MissingPackageError


class Digits:
    """1,797 handwritten digits of 8x8 pixels (Alpaydin and Kaynak, 1998), as RGB images.

    Every fifth image of each class, in the order of the collection, is held out.

    Args:
        train: the four fifths for training, or the held-out fifth.

    Raises:
        MissingPackageError: scikit-learn is not installed.
    """

    classes = tuple(str(digit) for digit in range(10))
    named = True

    def __init__(self, train: bool) -> None:
        self.notes: Sequence[str] = ()
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise MissingPackageError(
                "the digits come with scikit-learn, which is not installed: pip install scikit-learn"
            ) from None
        data = load_digits()
        held_out: np.ndarray = np.zeros(len(data.target), bool)
        for digit in range(10):
            held_out[np.flatnonzero(data.target == digit)[::5]] = True
        chosen = ~held_out if train else held_out
        self.pixels = np.round(data.images[chosen] * (255 / 16)).astype(np.uint8)
        self.labels = data.target[chosen]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return (PIL image in RGB, class number)."""
        return Image.fromarray(self.pixels[index]).convert("RGB"), int(self.labels[index])

    def name(self, index: int) -> str:
        """Return where an image is, as messages name it."""
        return f"digit {index}"
