"""What a weights file tells of its model: by its description, and by its tensors' shapes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from ..utils.errors import UserError
from .load import open_weights

# Of DeiT and Swin, of PVT, of SOFT, of CSwin.
FIRST_CONVOLUTIONS = (
    *("patch_embed.proj.weight", "patch_embed1.proj.weight"),
    *("patch_embed1.proj.0.weight", "stage1_conv_embed.0.weight"),
)


def described_model(
    path: str | os.PathLike[str] | None,
) -> tuple[str | None, dict[str, Any], dict[str, tuple[int, ...]]]:
    """Return the model that a weights file is for, by its description.

    Returns:
        (name, overrides, shapes), the last {name: shape} of what the file holds; of a file without a description the
        name is None.

    Raises:
        UserError: there is no file to ask, or it is of a backbone.
        MissingFileError, WeightsFileError: as `open_weights`.
    """
    if path is None:
        raise UserError("neither a model's name nor weights that name theirs are given; give a name")
    arrays, description = open_weights(path)
    shapes = {name: array.shape for name, array in arrays.items()}
    if description is None:
        return None, {}, shapes
    if description.get("backbone"):
        name = description["model"]
        raise UserError(
            f"{path} is of a backbone of {name}, without norm and head: "
            f"create_backbone({name!r}, weights=FILE) takes it"
        )
    return description["model"], description["overrides"], shapes


def stated_model(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]] | None:
    """Return (name, overrides) of the model that a weights file says it is of; None where it says nothing.

    Raises:
        MissingFileError, WeightsFileError: as `open_weights`.
    """
    description = open_weights(path)[1]
    return None if description is None else (description["model"], description["overrides"])


def tensor_shapes(path: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of a file's tensors; errors as for `open_weights`."""
    return {name: array.shape for name, array in open_weights(path)[0].items()}


def shown_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the class count, channels and input size that tensors show, as overrides of `create_model`.

    The input size shows in position embeddings alone (DeiT's and PVT's); images that are not square show none.

    Args:
        shapes: {name: shape} of the tensors.
    """
    sizes = {}
    if len(shapes.get("head.bias", ())) == 1:
        sizes["num_classes"] = shapes["head.bias"][0]
    firsts = [shapes[name] for name in FIRST_CONVOLUTIONS if len(shapes.get(name, ())) == 4]
    if firsts:
        sizes["in_chans"] = firsts[0][1]
    kernel = shapes.get("patch_embed.proj.weight", ())
    for name, before, stride in (
        ("pos_embed", 1, kernel[-1] if len(kernel) == 4 else 0),
        ("pos_embed1", 0, 4 if "patch_embed1.proj.weight" in shapes else 0),  # (SOFT's are of one size)
    ):
        tokens = shapes[name][1] - before if len(shapes.get(name, ())) == 3 else 0
        side = math.isqrt(max(tokens, 0))
        if side and side * side == tokens and stride:
            sizes["img_size"] = side * stride
    return sizes
