"""Every model by name: the families' VARIANTS tables in one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, Union

from ..layers.basic import Module, meta_init
from ..utils.errors import UserError, short, unknown
from ..weights import described_model, load_weights, shown_sizes, stated_model
from . import inline_cswin, inline_deit, inline_pvt, inline_swin, soft

Path = Union[str, "os.PathLike[str]"]
Model = TypeVar("Model")

# model class -> its variants, in the order in which they are listed
FAMILIES: dict[type[Module], Mapping[str, Any]] = {
    inline_deit.InLineDeiT: inline_deit.VARIANTS,
    inline_pvt.InLinePVT: inline_pvt.VARIANTS,
    inline_swin.InLineSwin: inline_swin.VARIANTS,
    inline_cswin.InLineCSwin: inline_cswin.VARIANTS,
    soft.Soft: soft.VARIANTS,
}


def merge_variants(families: Mapping[type[Module], Mapping[str, Any]]) -> dict[str, tuple[type[Module], Any]]:
    """Return {name: (model class, spec)} of all families; ValueError if two use the same name."""
    merged: dict[str, tuple[type[Module], Any]] = {}
    for model, variants in families.items():
        for name, spec in variants.items():
            if name in merged:
                raise ValueError(f"{merged[name][0].__name__} and {model.__name__} both define {name!r}")
            merged[name] = (model, spec)
    return merged


_MODELS = merge_variants(FAMILIES)


def list_models() -> list[str]:
    """Return the names that `create_model` knows."""
    return list(_MODELS)


def model_spec(name: str, **overrides: Any) -> Any:
    """Return the spec row of `name` with the overrides put in; UserError for an unknown name or override."""
    if name not in _MODELS:
        raise unknown("model", name, _MODELS)
    spec = _MODELS[name][1]
    fields = [field.name for field in dataclasses.fields(spec) if field.name != "published"]
    for key in overrides:
        if key not in fields:
            raise unknown(f"override of {name}", key, fields)
    # (a list, as settings files have them, is the same as a tuple, and compared with one)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()}
    return dataclasses.replace(spec, **given)


def overrides_of(model: Module) -> dict[str, Any]:
    """Return the overrides with which `create_model(model.name, ...)` builds a model of such sizes again."""
    own = vars(model_spec(model.name))
    return {key: value for key, value in vars(model.spec).items() if key != "published" and value != own[key]}


def check_described(
    path: Path | None, name: str, overrides: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse a file of weights for another model than it says, before a model of the sizes that it claims is built.

    Args:
        path: the file.
        name, overrides: the model that it says it is of.
        shapes: {name: shape} of the file's tensors.

    Raises:
        UserError: no such model can be built, or its tensors are others.
    """
    spec = model_spec(name, **overrides)
    family = _MODELS[name][0]
    try:
        few = (sum(spec.depths) if hasattr(spec, "depths") else spec.depth) <= len(shapes)
        buffers = family.buffer_shapes(spec) if few and hasattr(family, "buffer_shapes") else {}
        if few and all(shapes.get(key) == shape for key, shape in buffers.items()):
            with meta_init():
                state = family(spec).state_dict()
            if {key: tuple(tensor.shape) for key, tensor in state.items()} == shapes:
                return
    except Exception as error:  # a description can hold anything
        raise UserError(f"{path} describes a {name} that cannot be built: {error}") from None
    raise UserError(
        f"{path} says it is of {name} with {short(overrides, 400)}, but its tensors are another model's"
    )


# What a model may have otherwise than the weights' own: what only training uses, and what shapes show.
_FREE = {"published", "drop_rate", "drop_path_rate", "recompute", "per_matrix_alpha"}
_SHOWN = {"img_size", "in_chans", "num_classes"}


def stated_fields(weights: Path, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file of weights says of its model, in fields that no override gives, as overrides of `name`.

    Args:
        weights: the file.
        name: of the model that is to be built.
        given: overrides that are given.

    Raises:
        UserError: the file is of a model of another name and other fields.
    """
    stated = stated_model(weights)
    if stated is None or stated[0] not in _MODELS:
        return {}
    theirs, own = model_spec(stated[0], **stated[1]), model_spec(name, **given)
    if type(theirs) is not type(own):
        return {}  # which the names of its tensors show
    fields = {
        key: value
        for key, value in vars(theirs).items()
        if key not in _FREE | _SHOWN and key not in given and value != getattr(own, key)
    }
    letters = [str(getattr(spec, "attn_type", "")) for spec in (theirs, own)]
    if all(
        letter == letter.upper() for letter in letters
    ):  # of InLine's and softmax's blocks, whose tensors differ
        fields.pop("attn_type", None)
    if fields and stated[0] != name:
        said = ", ".join(
            f"{key}={short(repr(value))} (not {getattr(own, key)!r})" for key, value in fields.items()
        )
        raise UserError(f"{weights} is of {stated[0]}, not of {name}: it has {said}; give that name, or none")
    return fields


def create_model(name: str | None = None, weights: Path | None = None, **overrides: Any) -> Module:
    """Build a model.

    Args:
        name: one of `list_models()`; may be left out with weights that say which model they are for, as
            `python -m convert` and the trainer write them.
        weights: a file of weights for exactly this model (see `load_weights`), or None: fresh ones. Its tensors
            say how many classes there are and, in DeiT and PVT, the input size, and the file says what no tensor
            shows (as kernel_function), where no override does.
        overrides: fields of the family's spec, e.g. img_size (int or (H, W)), in_chans, num_classes (0: no
            head), drop_rate, drop_path_rate, attn_type, kernel_function, recompute.

    Returns:
        A model from images [B, in_chans, H, W] to logits [B, num_classes], in train mode.

    Raises:
        UserError: an unknown name or override, a value that the family cannot build, weights that do
            not fit (with a difference of names and shapes).
        MissingFileError: no such weights file.
    """
    if name is None:
        name, own, shapes = described_model(weights)
        check_described(weights, name, own, shapes)
        overrides = {**own, **overrides}
    elif weights is not None:
        known = {**stated_fields(weights, name, overrides), **shown_sizes(weights)}
        overrides = {**known, **overrides}
    spec = model_spec(name, **overrides)
    model = _MODELS[name][0](spec)
    model.name = name
    if weights is not None:
        load_weights(model, weights)
    return model


def variant(name: str, family: type[Model]) -> Callable[..., Model]:
    """Return `create_model` of one name as a function: the arguments are those of `create_model` behind the name."""

    def build(weights: Path | None = None, **overrides: Any) -> Model:
        return create_model(name, weights, **overrides)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"Build {name}, a {family.__name__}; arguments and errors as for `create_model`."
    return build
