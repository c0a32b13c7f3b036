"""Real images that need no download: the handwritten digits inside scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

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
        images, labels = load_digits()
        held_out: np.ndarray = np.zeros(len(labels), bool)
        for digit in range(10):
            held_out[np.flatnonzero(labels == digit)[::5]] = True
        chosen = ~held_out if train else held_out
        self.pixels = np.round(images[chosen] * (255 / 16)).astype(np.uint8)
        self.labels = labels[chosen]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return (PIL image in RGB, class number)."""
        return Image.fromarray(self.pixels[index]).convert("RGB"), int(self.labels[index])

    def name(self, index: int) -> str:
        """Return where an image is, as messages name it."""
        return f"digit {index}"


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits: pixels [1797, 8, 8] from 0 to 16, labels [1797] int64.

    They are read from the installed package's file, as importing it takes longer than a short run.

    Raises:
        MissingPackageError: scikit-learn is not installed.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise MissingPackageError(
            "the digits come with scikit-learn, which is not installed: pip install scikit-learn"
        )
    file = Path(package.origin).parent / "datasets/data/digits.csv.gz"
    if file.is_file():
        table = np.loadtxt(file, delimiter=",")
        return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
    from sklearn import datasets  # a version that keeps them elsewhere

    data = datasets.load_digits()
    return data.images, data.target
