"""What a weights file says of itself: one line of JSON that travels with the weights, whatever their format.

    {"format": 1,
     "model": "inline_deit_tiny", "overrides": {...},           builds the model
     "transform": {"img_size": 224, "mean": [...], "std": [...],
                   "interpolation": "bicubic", "crop": true,
                   "resize": "square", "crop_ratio": 0.875},    makes its images, arguments of `eval_transform`
     "classes": ["cat", ...],                                   names its outputs
     "backbone": {"out_indices": [0, 1, 2, 3],
                  "out_norm": true}}                            of a backbone alone: arguments of `create_backbone`

`img_size` is [height, width] where the two differ; `mean` and `std` have an entry for each channel: three of RGB, one
of grey, four with alpha. Only `model` and `overrides` must be there: files of version 0.1 have no more, and no
`format`. docs/convert.md documents the entries for other programs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..utils.errors import UserError, counted, short
from .lazy_array import WeightsFileError

FORMAT = 1
# The key under which a description stands: in safetensors' metadata, as an attribute of a state dict of PyTorch,
# and in a `.pdparams` in one line of JSON behind the pickle, where `paddle.load` never looks.
DESCRIPTION = "paddle_inline"
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels of a model -> PIL's mode of its pictures
INTERPOLATIONS = ("bicubic", "bilinear")  # at evaluation
RESIZES = (
    "square",
    "short",
)  # each side to the wanted one; aspect kept, until the image covers the wanted sides
DEFAULTS: dict[str, Any] = {
    "interpolation": "bicubic",
    "crop": True,
    "resize": "square",
    "crop_ratio": 0.875,
}  # of a transform
_LARGEST_SIDE = 1 << 14
_MOST_CLASSES = 1 << 20


def describe(
    model: str,
    overrides: Mapping[str, Any],
    transform: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return the description of a model's weights, without the entries that are not known.

    Args:
        model, overrides: `create_model`'s.
        transform: how images of evaluation are made, arguments of `data.transforms.eval_transform`.
        classes: names of the model's outputs, the first ones where there are fewer.
    """
    description: dict[str, Any] = {"format": FORMAT, "model": model, "overrides": dict(overrides)}
    if transform is not None:
        description["transform"] = plain_transform(transform)
    if classes is not None:
        description["classes"] = list(classes)
    return description


def plain_transform(transform: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an evaluation transform in the one form in which they are written: all of them."""
    values = {**DEFAULTS, **transform}
    values["img_size"] = plain_size(values["img_size"])
    values.update(mean=list(values["mean"]), std=list(values["std"]))
    if values["interpolation"] == "random":  # in training; evaluation is bicubic then
        values["interpolation"] = "bicubic"
    return values


def image_sides(size: Any) -> tuple[int, int]:
    """Return (height, width) of a size in pixels: one side of a square, or both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def plain_size(size: Any) -> int | list[int]:
    """Return a size in pixels in the one form in which it is written: one side of a square, or [height, width]."""
    height, width = image_sides(size)
    return height if height == width else [height, width]


def fit_channels(values: Sequence[float], channels: int) -> list[float]:
    """Return the mean or the deviation of a transform's channels for a model of another number of them.

    Of three for one (grey) their mean; one for all; and for a fourth (alpha) the first again, as the weights of its
    convolution are (`weights.channels`).

    Raises:
        UserError: of any other numbers, which do not say what is meant.
    """
    given = len(values)
    if given == channels:
        return list(values)
    if channels == 1 and given == 3:
        return [round(sum(values) / 3, 6)]
    if given == 1:
        return list(values) * channels
    if (given, channels) == (3, 4):
        return [*values, values[0]]
    raise UserError(
        f"mean and std have {counted(given, 'value')}, {short(repr(list(values)))}, for images of "
        f"{counted(channels, 'channel')}: give one for all, or one for each"
    )


def read_description(found: Any) -> dict[str, Any] | None:
    """Return what a file says of itself, checked; None for anything that is not a description.

    Raises:
        WeightsFileError: it is of a later format, or has entries that no writer makes.
    """
    if not (isinstance(found, dict) and isinstance(found.get("model"), str)):
        return None
    if not isinstance(found.get("overrides"), dict):
        return None
    version = found.get("format", FORMAT)
    if type(version) is not int or version < 1:
        raise WeightsFileError(
            f"its description has format {short(repr(version))}, which is no number of one"
        )
    if version > FORMAT:
        raise WeightsFileError(
            f"its description has format {version}; this version of paddle-inline reads {FORMAT}: install a later one"
        )
    result = {**found, "overrides": tuples(found["overrides"])}
    if found.get("transform") is not None:
        result["transform"] = check_transform(found["transform"])
    if found.get("backbone") is not None:
        _check_backbone(found["backbone"])
    classes = found.get("classes")
    if classes is not None and not (
        isinstance(classes, list)
        and 0 < len(classes) <= _MOST_CLASSES
        and all(isinstance(name, str) for name in classes)
    ):
        raise WeightsFileError("its description's classes are not a list of names")
    return result


def _check_backbone(backbone: Any) -> None:
    """Refuse, with a WeightsFileError, what does not say which maps a backbone has."""
    stages = backbone.get("out_indices") if isinstance(backbone, dict) else None
    if not (
        isinstance(stages, list)
        and stages
        and all(type(stage) is int and 0 <= stage < 4 for stage in stages)
        and stages == sorted(set(stages))
        and set(backbone) == {"out_indices", "out_norm"}
        and isinstance(backbone["out_norm"], bool)
    ):
        raise WeightsFileError(
            f"its description's backbone is {short(repr(backbone))}, not out_indices of the stages 0 .. 3 and out_norm"
        )


def check_transform(transform: Any) -> dict[str, Any]:
    """Return a transform that came from a file, with the defaults put in.

    Raises:
        WeightsFileError: an entry is unknown, missing or of a value that no transform has.
    """
    if not isinstance(transform, dict):
        raise WeightsFileError("its description's transform is not a dictionary")
    known = {"img_size", "mean", "std", *DEFAULTS}
    for key in [*(known - {*DEFAULTS, *transform}), *(set(transform) - known)]:
        problem = "unknown entry" if key in transform else "no entry"
        raise WeightsFileError(
            f"its description's transform has {problem} {short(repr(key))}; known are {', '.join(sorted(known))}"
        )
    values = {**DEFAULTS, **transform}
    size, mean, std = values["img_size"], values["mean"], values["std"]
    sides = size if isinstance(size, list) and len(size) == 2 else [size]
    ratio = values["crop_ratio"]
    rules = {
        "img_size": all(type(side) is int and 1 <= side <= _LARGEST_SIDE for side in sides),
        "mean": _numbers(mean),
        "std": _numbers(std) and _numbers(mean) and len(std) == len(mean) and all(value > 0 for value in std),
        "interpolation": values["interpolation"] in INTERPOLATIONS,
        "crop": isinstance(values["crop"], bool),
        "resize": values["resize"] in RESIZES,
        "crop_ratio": type(ratio) in (int, float) and 0.1 <= ratio <= 1,
    }
    for key, holds in rules.items():
        if not holds:
            raise WeightsFileError(f"its description's transform has {key} {short(repr(values[key]))}")
    return values


def fitted(
    description: Mapping[str, Any],
    model: str,
    overrides: Mapping[str, Any],
    img_size: Any = None,
    classes: int | None = None,
) -> dict[str, Any]:
    """Return the description of the same weights made to fit another input size or class count.

    Args:
        description: of the weights as they were.
        model, overrides: of the result.
        img_size: of the result, int or (height, width); None: as it was.
        classes: outputs of a new head, which has no names; None: the head is the old one.
    """
    result = {**description, "format": FORMAT, "model": model, "overrides": dict(overrides)}
    if img_size is not None and result.get("transform"):
        result["transform"] = plain_transform({**result["transform"], "img_size": img_size})
    if classes is not None:
        result.pop("classes", None)
    return result


def for_channels(description: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """Return the description of the same weights made to fit a model of so many channels."""
    result = {**description, "overrides": {**description["overrides"], "in_chans": channels}}
    transform = description.get("transform")
    if transform:
        fitted_values = {key: fit_channels(transform[key], channels) for key in ("mean", "std")}
        result["transform"] = {**transform, **fitted_values}
    return result


def tuples(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides that went through JSON, which has no tuples, as `create_model` takes them."""
    return {
        key: tuples(value) if isinstance(value, dict) else tuple(value) if isinstance(value, list) else value
        for key, value in overrides.items()
    }


def _numbers(values: Any) -> bool:
    return (
        isinstance(values, list)
        and 1 <= len(values) <= 16
        and all(type(value) in (int, float) and math.isfinite(value) for value in values)
    )
