"""The data sets by name."""

from __future__ import annotations

from .embedded import Digits


def open_source(dataset, path="", *, train, zip_mode=False):
    """The images of a data set.

    Args:
        dataset: `digits`.
        path: of the data; unused by `digits`.
        train: the training images, or the held-out ones.

    Returns:
        A source: `len(source)`, `source[i]` -> (PIL image in RGB, label), `source.name(i)`,
        `source.classes`.
    """
    if dataset == "digits":
        return Digits(train)
    raise ValueError(f"data.dataset {dataset!r} is not available")
