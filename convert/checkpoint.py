"""A checkpoint of either framework: opened, its model recognised, its tensors checked as they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_inline.utils.environment import import_paddle
from paddle_inline.utils.errors import short
from paddle_inline.weights.lazy_array import LazyArray, WeightsFileError, nonfinite
from paddle_inline.weights.resize import REBUILT, adapt_weights, as_float64
from paddle_inline.weights.safe_pickle import Inert

from .errors import UnfitWeightsError
from .formats.source import Source, Weights, open_source, select_weights
from .formats.write import check_sidecar

if TYPE_CHECKING:
    import paddle

    from .identify import Identity


@dataclass(frozen=True)
class ConversionOptions:
    """What a user can ask of a conversion; the defaults ask the file."""

    model: str | None = None  # of the source
    overrides: dict[str, Any] = field(default_factory=dict)  # of the source
    take: str = "model"  # or "ema"
    img_size: int | tuple[int, int] | None = None  # of the result, if not the source's
    num_classes: int | None = None  # likewise
    skip_calls: bool = False
    verify: bool = True


@dataclass(frozen=True)
class Opened:
    """A checkpoint and the model that its weights are of."""

    source: Source
    weights: Weights
    identity: Identity
    counters: dict[str, int]  # BatchNorm's num_batches_tracked, which Paddle has no place for


def open_checkpoint(path: str | Path, options: ConversionOptions) -> Opened:
    """Open a checkpoint and recognise its model.

    Raises:
        MissingFileError: there is no such file.
        WeightsFileError: it is no sound checkpoint.
        UnknownModelError: its tensors are of no model here, or of several.
        UserError: options that it cannot meet.
    """
    source = open_source(path, options.skip_calls)
    check_sidecar(source.path)
    weights = select_weights(source, options.take)
    import_paddle()  # only for a file that could be read
    from .identify import identify

    shapes = {name: array.shape for name, array in weights.arrays.items()}
    described = source.description
    if described and options.model in (None, described["model"]):
        try:
            identity = identify(shapes, described["model"], {**described["overrides"], **options.overrides})
        except Exception as error:  # a description can hold anything
            raise WeightsFileError(
                f"{source.path} says it is of {short(described['model'])!r}, but: {error}"
            ) from error
        identity = replace(identity, how="what the file says of itself", assumed={})
    else:
        identity = identify(shapes, options.model, options.overrides, training_hints(source.contents))
    counters = {name: a for name, a in weights.arrays.items() if name.endswith(".num_batches_tracked")}
    arrays = {name: array for name, array in weights.arrays.items() if name not in counters}
    counts = {name: int(array.read()) for name, array in counters.items() if array.shape == ()}
    if identity.side == "paddle" and described:
        counts = described.get("num_batches_tracked", {})
    return Opened(source, replace(weights, arrays=arrays), identity, counts)


def training_hints(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Return what training settings in a checkpoint say of the model: {"img_size": ..., "text": its name or type}.

    They are the authors' (a pickled yacs node under "config", here a stand-in that nothing ran) or ours.
    """
    config = entries(contents.get("config"))
    data, model = entries(config.get("data")), entries(config.get("model"))
    hints = {"text": " ".join(str(model[key]) for key in ("type", "name") if isinstance(model.get(key), str))}
    if isinstance(data.get("img_size"), int):
        hints["img_size"] = data["img_size"]
    return hints


def entries(node: object) -> dict[str, Any]:
    """Return the entries of a dictionary or settings node by lower-case name; none for anything else."""
    found = node.contents if isinstance(node, Inert) else node
    if not isinstance(found, dict):
        return {}
    return {key.lower(): value for key, value in found.items() if isinstance(key, str)}


def summary_lines(opened: Opened) -> Iterator[str]:
    """Yield lines on what was read, which weights are used and what was recognised."""
    weights, identity = opened.weights, opened.identity
    used = f"its weights under {weights.taken!r}" if weights.taken else "its weights"
    if weights.others:
        used += f" (it also has {', '.join(map(repr, weights.others))}: --take model or ema)"
    if weights.prefix:
        used += f", without the prefix {weights.prefix!r}"
    yield f"{opened.source.path}: {opened.source.format}, {len(weights.arrays)} tensors; taking {used}"
    yield f"model: {identity}, from {identity.how}"
    if identity.assumed:
        values = ", ".join(f"{key}={value!r}" for key, value in identity.assumed.items())
        yield f"no tensor shows, so taken from {identity.name}: {values}"


def paddle_side(
    opened: Opened, options: ConversionOptions
) -> tuple[dict[str, LazyArray], Identity, list[str]]:
    """Return the source in Paddle's names and layouts, fitted to the input size and class count asked for.

    Returns:
        ({Paddle name: LazyArray}, Identity of the result, notes on what was changed). Values are checked when they
        are read.

    Raises:
        UnfitWeightsError: a tensor of another kind of number; on reading, values that no model has.
        UserError: weights that cannot be fitted.
    """
    from .mapping import translated

    identity = opened.identity
    arrays = translated(opened.weights.arrays, identity.model, identity.side, "paddle")
    own = identity.model.state_dict()
    arrays = {name: _checked(name, array, own[name]) for name, array in arrays.items()}
    asked = {"img_size": options.img_size, "num_classes": options.num_classes}
    asked = {key: value for key, value in asked.items() if value is not None}
    if not asked:
        return arrays, identity, []
    target = replace(identity, overrides={**identity.overrides, **asked})
    arrays, notes = adapt_weights(arrays, target.model, identity.model.spec.img_size)
    return arrays, target, notes


def _checked(name: str, array: LazyArray, own: paddle.Tensor) -> LazyArray:
    """The array, refused at once if it is another kind of number, on reading if no model has its values."""
    if ("float" in str(own.dtype)) != ("float" in array.dtype):
        raise UnfitWeightsError(f"{name} is {array.dtype}; the model has {str(own.dtype).split('.')[-1]}")
    return replace(array, load=partial(_read_checked, name, array, own))


def _read_checked(name: str, array: LazyArray, own: paddle.Tensor) -> np.ndarray:
    values = array.read()
    if "float" in array.dtype and nonfinite(values):
        raise UnfitWeightsError(
            f"{name} has {nonfinite(values)} values that are NaN or infinite: the training that wrote it has "
            "diverged, take an earlier checkpoint"
        )
    if name.rsplit(".", 1)[-1] in REBUILT:
        numbers = as_float64(values, array.dtype) if "float" in array.dtype else values
        if not np.array_equal(numbers, own.numpy()):
            raise UnfitWeightsError(f"{name} is not what the model's sizes make it; the file is damaged")
    return values
