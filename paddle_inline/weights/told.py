"""What a weights file tells of its model: by its description, and by its tensors' shapes."""

from __future__ import annotations

import math
import os
from typing import Any

from ..utils.errors import UserError
from .load import open_weights


def described_model(
    path: str | os.PathLike[str] | None,
) -> tuple[str, dict[str, Any], dict[str, tuple[int, ...]]]:
    """Return the model that a weights file is for, by its description.

    Returns:
        (name, overrides, shapes), the last {name: shape} of what the file holds.

    Raises:
        UserError: the file has no description, or there is no file to ask.
        MissingFileError, WeightsFileError: as `open_weights`.
    """
    if path is None:
        raise UserError("neither a model's name nor weights that name theirs are given; give a name")
    arrays, description = open_weights(path)
    if description is None:
        raise UserError(f"no model is named, and the weights {path} do not name theirs; give a name")
    shapes = {name: array.shape for name, array in arrays.items()}
    return description["model"], description["overrides"], shapes


def stated_model(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]] | None:
    """Return (name, overrides) of the model that a weights file says it is of; None where it says nothing.

    Raises:
        MissingFileError, WeightsFileError: as `open_weights`.
    """
    description = open_weights(path)[1]
    return None if description is None else (description["model"], description["overrides"])


def shown_sizes(path: str | os.PathLike[str]) -> dict[str, int]:
    """Return the class count and the input size that a file's tensors show, as overrides of `create_model`.

    The input size shows in position embeddings alone (DeiT's and PVT's); images that are not square show none.

    Raises:
        MissingFileError, WeightsFileError: as `open_weights`.
    """
    shapes = {name: array.shape for name, array in open_weights(path)[0].items()}
    sizes = {}
    if len(shapes.get("head.bias", ())) == 1:
        sizes["num_classes"] = shapes["head.bias"][0]
    kernel = shapes.get("patch_embed.proj.weight", ())
    for name, before, stride in (
        ("pos_embed", 1, kernel[-1] if len(kernel) == 4 else 0),
        ("pos_embed1", 0, 4),
    ):
        tokens = shapes[name][1] - before if len(shapes.get(name, ())) == 3 else 0
        side = math.isqrt(max(tokens, 0))
        if side and side * side == tokens and stride:
            sizes["img_size"] = side * stride
    return sizes
