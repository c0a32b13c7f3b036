"""Weights of whole segmenters: found in a run's folder, loaded strictly."""

from __future__ import annotations

import os
from pathlib import Path

import paddle

from ..utils.errors import UserError
from ..utils.paths import expand
from ..weights import load_weights

BEST = "best_model.pdparams"  # the same file in a run's folder and, for those who know the toolkit, its best_model/


def find_segmenter(path: str | os.PathLike[str]) -> Path:
    """Return the weights file that is meant: one itself, the toolkit's `best_model` folder, or a run's best."""
    folder = Path(expand(path))
    for name in (Path("best_model") / "model.pdparams", Path("model.pdparams")):
        if (folder / name).is_file():
            return folder / name
    return folder


def load_segmenter(model: paddle.nn.Layer, path: str | os.PathLike[str]) -> None:
    """Load the weights of a whole segmenter: all of them, or none.

    Raises:
        MissingFileError: no such file.
        UserError: names or shapes differ, with the difference.
    """
    try:
        load_weights(model, find_segmenter(path))
    except UserError as error:
        if "names or shapes differ" not in str(error):
            raise
        raise UserError(
            f"{error}\n  (a classifier's or backbone's own file goes to model.backbone.pretrained instead)"
        ) from None
