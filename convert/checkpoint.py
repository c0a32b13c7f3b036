"""A checkpoint of either framework: opened, its model recognised, its tensors checked as they are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_inline.utils.environment import import_paddle
from paddle_inline.utils.errors import UserError, counted, short
from paddle_inline.weights.description import INTERPOLATIONS
from paddle_inline.weights.lazy_array import LazyArray, WeightsFileError, nonfinite
from paddle_inline.weights.resize import REBUILT, adapt_weights, as_float64
from paddle_inline.weights.safe_pickle import Inert

from .errors import UnfitWeightsError, UnknownModelError
from .formats.select import Weights, select_weights
from .formats.source import Source, open_source
from .formats.write import check_sidecar

if TYPE_CHECKING:
    import paddle

    from .identify import Identity


# What is in names of a model that was changed after it was built, and how it becomes what it was.
_CHANGED = (
    (r"lora_|\.base_layer\.", "it has adapters (LoRA): merge them first, with peft model.merge_and_unload()"),
    (r"\.parametrizations\.", "it is parametrized: torch.nn.utils.parametrize.remove_parametrizations first"),
    (r"\w_mask$", "it is pruned: torch.nn.utils.prune.remove first, which makes the masks final"),
    (r"weight_[gv]$", "it has weight normalization: torch.nn.utils.remove_weight_norm first"),
    (r"_packed_params|zero_point|\.qweight$", "it is quantized: take the weights from before"),
    (r"_moment[12]_\d+$|_pow_acc_\d+$", "it is an optimizer's state: give the weights that it belongs to"),
    (r"/", "its names are joined with slashes: join them with dots, as PyTorch's are"),
)
_FAMILY_WORD = re.compile(r"soft|swin|pvt|deit|inline", re.IGNORECASE)


@dataclass(frozen=True)
class ConversionOptions:
    """What a user can ask of a conversion; the defaults ask the file."""

    model: str | None = None  # of the source
    overrides: dict[str, Any] = field(default_factory=dict)  # of the source
    take: str = "model"  # or "ema", or the key path of a dictionary of tensors
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
    left_out: dict[str, Any] = field(default_factory=dict)  # tensors beside the model's, by the file's names
    rebuilt: tuple[str, ...] = ()  # buffers that the file has not got, made of the model's sizes


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
    return recognised(source, options)


def recognised(source: Source, options: ConversionOptions) -> Opened:
    """Recognise the model of an opened file; errors as for `open_checkpoint`."""
    weights = select_weights(source, options.take)
    if weights.unsure:
        raise UserError(
            f"{source.path} holds several models, and nothing says which is meant; choose with --take "
            + " or --take ".join(weights.unsure)
        )
    import_paddle()  # only for a file that could be read
    from .backbones import Maps, maps_in, same_without_head
    from .beside import completed, split_beside
    from .identify import identify, recognise

    described = (
        source.description if options.model in (None, (source.description or {}).get("model")) else None
    )
    if described:
        told = described.get("backbone")
        maps = Maps(tuple(told["out_indices"]), told["out_norm"]) if told else None
    else:
        family = recognise(weights.arrays)
        maps = maps_in(weights.arrays, family, weights.prefix, weights.left_out) if family else None
    kept, beside = split_beside(weights.arrays, maps)
    left_out = {**weights.left_out, **{weights.prefix + name: array for name, array in beside.items()}}
    weights = replace(weights, arrays=kept)
    shapes = {name: array.shape for name, array in weights.arrays.items()}
    if described:
        overrides = {**described["overrides"], **options.overrides}
        try:
            identity = identify(shapes, described["model"], overrides, maps=maps)
        except UserError as error:
            raise WeightsFileError(
                f"{source.path} says it is of {short(described['model'])!r}, but: {error}"
            ) from error
        identity = replace(identity, how="what the file says of itself", assumed={})
    else:
        try:
            hints = training_hints(source.contents)
            identity = identify(shapes, options.model, options.overrides, hints, maps)
        except UnknownModelError as error:
            why = next((why for mark, why in _CHANGED if any(re.search(mark, name) for name in shapes)), "")
            raise UnknownModelError(f"{source.path}: {why}{'; ' if why else ''}{error}") from None
        remark = same_without_head(identity.name, identity.overrides, maps)
        identity = replace(identity, remarks=(*identity.remarks, *remark))
    counters = {name: a for name, a in weights.arrays.items() if name.endswith(".num_batches_tracked")}
    arrays = {name: array for name, array in weights.arrays.items() if name not in counters}
    counts = {name: int(array.read()) for name, array in counters.items() if array.shape == ()}
    if identity.side == "paddle" and source.description:
        counts = source.description.get("num_batches_tracked", {})
    kept, rebuilt = completed(arrays, identity)
    left_out.update({weights.prefix + name: a for name, a in arrays.items() if name not in kept})
    return Opened(source, replace(weights, arrays=kept), identity, counts, left_out, rebuilt)


def training_hints(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Return what training settings in a checkpoint say of the model: {"img_size": ..., "text": its name or type,
    "model_settings": {section: entries}}, without what they do not say.

    They are the authors' (a pickled yacs node under "config", here a stand-in that nothing ran) or ours, timm's
    `arch` and `args`, or other settings that name a model of these families.
    """
    config = entries(contents.get("config"))
    data, model = entries(config.get("data")), entries(config.get("model"))
    words = [str(model[key]) for key in ("type", "name") if isinstance(model.get(key), str)]
    size = data.get("img_size")
    for key in ("", "args", "hyper_parameters", "cfg", "hparams", "opt"):
        settings = entries(contents.get(key)) if key else {"arch": contents.get("arch")}
        given = [settings.get(name) for name in ("arch", "model", "model_name")]
        named = [word for word in given if isinstance(word, str) and _FAMILY_WORD.search(word)]
        words += [word for word in named if word not in words]
        if named and not _is_size(size):
            size = settings.get("img_size", settings.get("input_size"))
    if not _is_size(size) and (found := re.search(r"(?<!\d)(224|384|448|512)(?!\d)", " ".join(words))):
        size = int(found[1])
    sections = {key: entries(node) for key, node in model.items() if entries(node)}
    hints: dict[str, Any] = {"text": " ".join(words)}
    if sections:
        hints["model_settings"] = sections
    if _is_size(size):
        hints["img_size"] = tuple(size) if isinstance(size, list) else size
    return hints


def _is_size(value: object) -> bool:
    """Whether settings give a size in pixels: one side, or height and width."""
    sides = value if isinstance(value, (list, tuple)) and len(value) == 2 else [value]
    return all(type(side) is int for side in sides)


def transform_in(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the authors' settings in a checkpoint say of the images of evaluation: entries of a transform."""
    config = entries(contents.get("config"))
    crop = entries(config.get("test")).get("crop")
    filters = entries(config.get("data")).get("interpolation")
    told: dict[str, Any] = {"crop": crop} if isinstance(crop, bool) else {}
    return {**told, "interpolation": filters} if filters in INTERPOLATIONS else told


def entries(node: object) -> dict[str, Any]:
    """Return the entries of a dictionary or settings node by lower-case name; none for anything else."""
    found = node
    if isinstance(node, Inert):
        found = node.contents if isinstance(node.contents, dict) else node.state
        found = found.get("_content", found) if isinstance(found, dict) else found  # omegaconf's
    if not isinstance(found, dict):
        return {}
    return {key.lower(): _value(value) for key, value in found.items() if isinstance(key, str)}


def _value(value: Any) -> Any:
    """The value in a node of omegaconf; anything else as it is."""
    if isinstance(value, Inert) and isinstance(value.state, dict) and "_val" in value.state:
        return value.state["_val"]
    return value


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
    from paddle_inline.weights.torch_layout import translated

    identity = opened.identity
    arrays = translated(opened.weights.arrays, identity.model, identity.side, "paddle")
    own = identity.model.state_dict()
    file = opened.source.path
    arrays = {name: _checked(file, name, array, own[name]) for name, array in arrays.items()}
    asked = {"img_size": options.img_size, "num_classes": options.num_classes}
    asked = {key: value for key, value in asked.items() if value is not None}
    if asked and identity.maps is not None:
        flags = " and ".join(f"--{key.replace('_', '-')}" for key in asked)
        raise UserError(
            f"{flags} for a backbone, which has no classes and takes images of any size: leave it out"
        )
    if not asked:
        return arrays, identity, []
    target = replace(identity, overrides={**identity.overrides, **asked})
    arrays, notes = adapt_weights(arrays, target.model, identity.model.spec.img_size)
    return arrays, target, notes


def _checked(file: Path, name: str, array: LazyArray, own: paddle.Tensor) -> LazyArray:
    """The array, refused at once if it is another kind of number, on reading if no model has its values."""
    if ("float" in str(own.dtype)) != ("float" in array.dtype):
        raise UnfitWeightsError(
            f"{file}: {name} is {array.dtype}; the model has {str(own.dtype).split('.')[-1]}; save the weights as they "
            "were before they were quantized"
        )
    return replace(array, load=partial(_read_checked, file, name, array, own))


def _read_checked(file: Path, name: str, array: LazyArray, own: paddle.Tensor) -> np.ndarray:
    values = array.read()
    if "float" in array.dtype and nonfinite(values):
        raise UnfitWeightsError(
            f"{file}: {name} is NaN or infinite in {counted(nonfinite(values), 'value')}: the training that wrote it "
            "has diverged, take an earlier checkpoint"
        )
    if name.rsplit(".", 1)[-1] in REBUILT:
        numbers = as_float64(values, array.dtype) if "float" in array.dtype else values
        if not np.array_equal(numbers, own.numpy()):
            raise UnfitWeightsError(
                f"{file}: {name} is not what the model's sizes make it; the file is damaged"
            )
    return values
