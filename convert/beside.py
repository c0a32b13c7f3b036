"""Tensors beside a model's own, which are left out by name, and the model's buffers that a file has left out."""

from __future__ import annotations

import math
from collections.abc import Mapping

from paddle_inline.weights.lazy_array import LazyArray

from .backbones import Maps, behind, is_rebuilt
from .formats.company import is_company
from .identify import Identity, recognise, variants_of
from .mapping import shapes_of, skeleton

# Counters that profilers put into every layer.
_COUNTERS = ("total_ops", "total_params")


def split_beside(
    arrays: Mapping[str, LazyArray], maps: Maps | None = None
) -> tuple[dict[str, LazyArray], dict[str, LazyArray]]:
    """Return (the tensors that are or may be a model's, those that are only beside it).

    `maps` are those of a backbone, beside which are the stages that lead to none of them; None: it is a classifier.

    A tensor of the model's own modules is always its own, and refused later if the model lacks it; so is one whose
    name is that of a part of a network, as `dist_token` or `fc_norm.weight`: without it the model is another.
    """
    family = recognise(arrays)
    if family is None:
        return dict(arrays), {}
    model = skeleton(next(iter(variants_of(family))), {})
    modules = {name.split(".")[0] for name in shapes_of(model, "torch")}
    behind_maps: set[str] = set()
    if maps is not None:
        modules = (modules - {"norm", "head"}) | set(maps.norms)
        behind_maps = set(behind(arrays, family, maps))
    has_head = any(name in arrays for name in ("head.weight", "head.bias"))
    kept: dict[str, LazyArray] = {}
    left: dict[str, LazyArray] = {}
    for name, array in arrays.items():
        first, last = name.split(".")[0], name.rsplit(".", 1)[-1]
        if first in modules and not (first == "head" and not has_head):
            beside = last in _COUNTERS or name in behind_maps
        else:
            counter = "int" in array.dtype and math.prod(array.shape) <= 1
            beside = counter or last in _COUNTERS or is_company(first)
        (left if beside else kept)[name] = array
    return kept, left


def completed(
    arrays: Mapping[str, LazyArray], identity: Identity
) -> tuple[dict[str, LazyArray], tuple[str, ...]]:
    """Return the tensors with the buffers that follow from the model's sizes, and the names of those made anew.

    A backbone's are for the images of its training or for others: what it has no place for is not kept.
    """
    own = identity.model.state_dict()  # buffers are called alike in both frameworks
    if identity.maps is not None:
        arrays = {
            name: array
            for name, array in arrays.items()
            if not is_rebuilt(name) or (name in own and tuple(own[name].shape) == array.shape)
        }
    rebuilt = tuple(n for n in own if is_rebuilt(n) and n not in arrays)
    made = {
        name: LazyArray(tuple(own[name].shape), str(own[name].dtype).split(".")[-1], own[name].numpy)
        for name in rebuilt
    }
    return {**arrays, **made}, rebuilt
