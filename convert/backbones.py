"""What a backbone is by its tensors: a classifier's without `norm` and `head`, with output norms `norm0` to `norm3`."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from paddle_inline.layers.basic import meta_init
from paddle_inline.models.backbone import BACKBONES
from paddle_inline.models.factory import FAMILIES, model_class
from paddle_inline.models.pyramid import STRIDES
from paddle_inline.weights.resize import REBUILT

_NORM = re.compile(r"norm([0-3])\.")  # of a map
_CLASSIFIER = re.compile(r"norm\.|head\.(weight|bias)$")
# Modules beside a network that make it a detector's or a segmenter's.
_DENSE = re.compile(r"neck|fpn|rpn|roi|bbox|box_|mask_head|decode|auxiliary|anchor|seg", re.IGNORECASE)
# Families without a norm between stages and head: headless, their classifiers are their backbones.
_WITHOUT_NORM = ("InLinePVT",)


class Maps(NamedTuple):
    """Which of the four stages a backbone has maps of, and whether a norm ends each; those behind are not built."""

    out_indices: tuple[int, ...]
    out_norm: bool

    @property
    def norms(self) -> list[str]:
        """The names of its output norms."""
        return [f"norm{i}" for i in self.out_indices] if self.out_norm else []

    def arguments(self, name: str) -> dict[str, Any]:
        """Return the arguments of `create_backbone` that differ from what it takes by default."""
        given: dict[str, Any] = {}
        if self.out_indices != tuple(range(len(STRIDES))):
            given["out_indices"] = self.out_indices
        if self.out_norm != BACKBONES[model_class(name)].OUT_NORM:
            given["out_norm"] = self.out_norm
        return given


def build_backbone(
    name: str, overrides: Mapping[str, Any], maps: Maps, package: str = "paddle_inline"
) -> Any:
    """Build a backbone of either package with fresh weights, for those trained at the img_size of `overrides`."""
    make = importlib.import_module(f"{package}.models.backbone").backbone_of_sizes
    return make(name, overrides, out_indices=maps.out_indices, out_norm=maps.out_norm)


def maps_in(names: Collection[str], family: str, prefix: str = "", beside: Iterable[str] = ()) -> Maps | None:
    """Return what tensors show of a backbone's maps; None where they are not a backbone's.

    Args:
        names: of the tensors of one model, without the prefix.
        family: the class name of the classifier of their family.
        prefix: what stood before the names in the file.
        beside: names of the file's other tensors. They and the prefix tell a PVT's backbone from its classifier
            without a head, which has the same tensors.
    """
    if not has_backbones(family) or any(_CLASSIFIER.match(name) for name in names):
        return None
    norms = sorted({int(match[1]) for name in names if (match := _NORM.match(name))})
    if norms:
        return Maps(tuple(norms), True)
    if family in _WITHOUT_NORM and not (
        "backbone" in prefix or any(_DENSE.search(name.split(".")[0]) for name in beside)
    ):
        return None
    built = [i for i, parts in enumerate(stage_parts(family)) if any(_under(name, parts) for name in names)]
    return Maps(tuple(range(max(built) + 1)), False) if built else None


def has_backbones(family: str) -> bool:
    """Return whether a family has backbones: whether it has stages of four strides."""
    return any(model.__name__ == family for model in BACKBONES)


def same_without_head(name: str, overrides: Mapping[str, Any], maps: Maps | None) -> list[str]:
    """Return a remark on tensors that are those of a backbone and of a classifier without a head."""
    if model_class(name).__name__ not in _WITHOUT_NORM or (
        maps.out_norm if maps else overrides.get("num_classes") != 0
    ):
        return []
    if maps is not None and maps.out_indices != tuple(range(len(STRIDES))):
        return []
    other = "create_model with num_classes=0" if maps else "create_backbone"
    return [
        f"a classifier of {name} without its head and a backbone have the same tensors: {other} takes them too"
    ]


@functools.cache
def stage_parts(family: str) -> tuple[tuple[str, ...], ...]:
    """Return the names of the layers and parameters of each stage of a family with backbones."""
    model = next(model for model in BACKBONES if model.__name__ == family)
    with meta_init():
        backbone = BACKBONES[model](next(iter(FAMILIES[model].values())))
    return tuple(tuple(backbone.parts_of_stage(i)) for i in range(len(STRIDES)))


def behind(names: Iterable[str], family: str, maps: Maps) -> list[str]:
    """Return the tensors that lead on from the last stage with a map: of a network that built all of its stages."""
    last = max(maps.out_indices)
    parts = [part for i in range(last + 1, len(STRIDES)) for part in stage_parts(family)[i]]
    leading = re.compile(rf"layers\.{last}\.downsample\.")  # Swin's, in the stage before
    return [name for name in names if _under(name, parts) or leading.match(name)]


def is_rebuilt(name: str) -> bool:
    """Return whether a tensor follows from sizes alone: a mask or an index, of images of the size of training."""
    return name.rsplit(".", 1)[-1] in REBUILT


def _under(name: str, parts: Iterable[str]) -> bool:
    return any(f"{name}.".startswith(f"{part}.") for part in parts)
