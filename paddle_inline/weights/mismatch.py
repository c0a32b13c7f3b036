"""Why weights do not fit a model: what a difference of names and shapes comes from, and what no tensor shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .foreign import converter

if TYPE_CHECKING:
    import paddle


def reason(path: Path, own: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return what a difference of names or shapes comes from, where it shows, and how to go on."""
    turned = [
        name
        for name, tensor in own.items()
        if name in found
        and len(found[name].shape) == 2
        and tuple(tensor.shape) != found[name].shape
        and tuple(tensor.shape) == found[name].shape[::-1]
    ]
    if turned:
        return f"; its matrices are turned, as PyTorch's are: {converter(path)}"
    if any(re.search(r"_moment[12]_\d+$|_pow_acc_\d+$", name) for name in found):
        return "; they are an optimizer's state: give the weights that it belongs to"
    lacking = of_backbone(own, found)
    if lacking:
        return lacking
    if not set(own) & set(found):
        return f"; none of its names are the model's: python -m convert inspect {shlex.quote(str(path))}"
    return ""


# What a backbone lacks of a classifier, and what it may have in its place.
_CLASSIFIER = re.compile(r"(norm|head)\.(weight|bias)")
_OUTPUT_NORM = re.compile(r"(norm[0-3])\.(weight|bias)")


def of_backbone(own: Iterable[str], found: Iterable[str]) -> str:
    """Return what a file has less and more than a classifier where it is a backbone's of the same model; "" otherwise.

    Args:
        own: names of the classifier's tensors.
        found: of the file's.
    """
    missing = [name for name in own if name not in set(found)]
    more = [name for name in found if name not in set(own)]
    masks = ("attn_mask", "relative_position_index")  # a backbone makes its own
    missing = [name for name in missing if name.rsplit(".", 1)[-1] not in masks]
    norms = sorted({match[1] for name in more if (match := _OUTPUT_NORM.fullmatch(name))})
    if not missing or not all(_CLASSIFIER.fullmatch(name) for name in missing):
        return ""
    if not all(_OUTPUT_NORM.fullmatch(name) for name in more):
        return ""
    if not norms and {name.split(".")[0] for name in missing} == {"head"}:
        return ""  # a classifier whose head is left out
    lacking = " and ".join(dict.fromkeys(name.split(".")[0] for name in missing))
    also = f", with the output norms {', '.join(norms)}" if norms else ""
    return f"; it is of a backbone, without {lacking}{also}: create_backbone(NAME, weights=FILE) takes it"


# What a description may say otherwise of a model that takes its weights: what only training uses, and what shapes show.
_FREE = {
    "drop_rate",
    "drop_path_rate",
    "recompute",
    "per_matrix_alpha",
    "img_size",
    "in_chans",
    "num_classes",
}


def stated_differences(model: paddle.nn.Layer, description: Mapping[str, Any] | None) -> list[str]:
    """Return what weights say of their model, in fields that no tensor shows, where the model has other values.

    Args:
        model: what the weights are loaded into.
        description: of the weights (description.py), or None.

    Returns:
        Lines such as "kernel_function='relu', and the model has 'identity'".
    """
    spec = getattr(model, "spec", None)
    if not description or spec is None or description["model"] != getattr(model, "name", None):
        return []
    lines = []
    for key, value in description["overrides"].items():
        own = getattr(spec, key, value)
        letters = key == "attn_type" and all(isinstance(v, str) and v == v.upper() for v in (own, value))
        if key not in _FREE and own != value and not letters:
            lines.append(f"{key}={value!r}, and the model has {own!r}")
    return lines
