"""Every model by name: the families' VARIANTS tables in one."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, Union

from ..layers.basic import Module, meta_init
from ..utils.errors import UserError, WrongTypeError, short, unknown
from ..utils.hub import no_download
from ..weights import described_model, load_fitted, load_weights, shown_sizes, stated_model, tensor_shapes
from . import inline_cswin, inline_deit, inline_pvt, inline_swin, soft
from .spec import check_path

Path = Union[str, "os.PathLike[str]"]
Shapes = Mapping[str, tuple[int, ...]]
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


# How the names of a block's tensors begin, in any of the families.
BLOCK = re.compile(r"(layers\.\d+\.blocks|blocks|block\d|stage\d)\.\d+\.")
_MODELS = merge_variants(FAMILIES)


def model_class(name: str) -> type[Module]:
    """Return the class of the model `name`, one of `list_models()`."""
    return _MODELS[name][0]


def list_models(pattern: str = "*") -> list[str]:
    """Return the names that `create_model` knows, those of a pattern of a shell: `list_models("inline_*_tiny")`.

    WrongTypeError for a pattern that is no text.
    """
    if not isinstance(pattern, str):
        raise WrongTypeError(f"pattern {short(repr(pattern))} must be a text, e.g. 'inline_*_tiny'")
    return fnmatch.filter(_MODELS, pattern)


def model_spec(name: str, **overrides: Any) -> Any:
    """Return the spec row of `name` with the overrides put in; UserError for an unknown name or override."""
    if not isinstance(name, str) or name not in _MODELS:
        raise unknown("model", name, _MODELS)
    spec = _MODELS[name][1]
    fields = [field.name for field in dataclasses.fields(spec) if field.name != "published"]
    for key in overrides:
        if key not in fields:
            raise unknown(f"override of {name}", key, fields)
    # (a list, as settings files have them, is the same as a tuple, and compared with one)
    return dataclasses.replace(spec, **{key: _tuples(value) for key, value in overrides.items()})


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(each) for key, each in value.items()}
    return tuple(value) if isinstance(value, list) else value


def overrides_of(model: Module) -> dict[str, Any]:
    """Return the overrides with which `create_model(model.name, ...)` builds a model of such sizes again."""
    own = vars(model_spec(model.name))
    return {key: value for key, value in vars(model.spec).items() if key != "published" and value != own[key]}


def _spec_of(path: Path | None, name: str, overrides: Mapping[str, Any]) -> Any:
    """Return the spec row that a file of weights says is its model's; UserError that names the file."""
    try:
        return model_spec(name, **overrides)
    except UserError as error:
        raise UserError(f"{path} says of what model it is, but: {error}") from None


def own_shapes(model: Module) -> Shapes:
    """Return {name: shape} of a model's tensors."""
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def check_described(
    path: Path | None,
    name: str,
    overrides: Mapping[str, Any],
    shapes: Shapes,
    layout: Callable[[Module], Shapes] = own_shapes,
) -> Module:
    """Refuse a file of weights for another model than it says, before a model of the sizes that it claims is built.

    Args:
        path: the file.
        name, overrides: the model that it says it is of.
        shapes: {name: shape} of the file's tensors.
        layout: what the tensors of a model are called and shaped in such a file.

    Returns:
        That model, without values; UserError if no such can be built, or its tensors are others.
    """
    spec = _spec_of(path, name, overrides)
    try:
        model = skeleton(_MODELS[name][0], spec, shapes)
        if model is not None and layout(model) == dict(shapes):
            return model
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
    own, theirs = model_spec(name, **given), _spec_of(weights, *stated)
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
    if "img_size" not in given and theirs.img_size != own.img_size:
        fields["img_size"] = theirs.img_size  # which few tensors show
    return fields


def skeleton(family: type[Module], spec: Any, shapes: Shapes) -> Module | None:
    """Return a model without values; None where tensors of these names and shapes are clearly another's, so that none
    is built with more blocks than there are tensors, or with larger buffers."""
    if (sum(spec.depths) if hasattr(spec, "depths") else spec.depth) > len(shapes):
        return None
    buffers = family.buffer_shapes(spec) if hasattr(family, "buffer_shapes") else {}
    if any(shapes.get(key) != shape for key, shape in buffers.items()):
        return None
    with meta_init():
        return family(spec)


def has_tensors(family: type[Module], spec: Any, shapes: Shapes) -> bool:
    """Return whether a model has exactly the tensors of these names and shapes, before one of any size is built."""
    model = skeleton(family, spec, shapes)
    return model is not None and own_shapes(model) == dict(shapes)


def own_sizes(shapes: Shapes) -> dict[str, int]:
    """Return what the tensors {name: shape} of a file show of its model's sizes: without a head's, that it has none."""
    headless = not any(name.startswith("head.") for name in shapes)
    return {**shown_sizes(shapes), **({"num_classes": 0} if headless else {})}


def model_of_tensors(path: Path | None, shapes: Shapes) -> str:
    """Return the one model of `list_models()` that has a file's tensors, for a file that does not name its model.

    Class count, channels and, in DeiT and PVT, the input size are those of the tensors.

    Args:
        path: the file.
        shapes: {name: shape} of its tensors.

    Raises:
        UserError: none has exactly these tensors, or several have.
    """
    sizes, found = own_sizes(shapes), []
    blocks = len({match[0] for name in shapes if (match := BLOCK.match(name))})
    lengths = {length for shape in shapes.values() for length in shape}
    for name, (family, spec) in _MODELS.items():
        depths, dims = getattr(spec, "depths", None), getattr(spec, "embed_dims", None)
        if (sum(depths) if depths else spec.depth) != blocks or not lengths.issuperset(
            dims or (spec.embed_dim,)
        ):
            continue  # without building it
        try:
            if has_tensors(family, dataclasses.replace(spec, **sizes), shapes):
                found.append(name)
        except UserError:  # sizes that this family cannot build
            continue
    if len(found) == 1:
        return found[0]
    what = (
        f"it can be of {', '.join(found)}" if found else "its tensors are those of no model in list_models()"
    )
    raise UserError(f"no model is named, the weights {path} do not name theirs, and {what}; give a name")


def create_model(
    name: str | None = None, weights: Path | None = None, *, pretrained: bool = False, **overrides: Any
) -> Module:
    """Build a model.

    Args:
        name: one of `list_models()`; may be left out with weights that say which model they are for, as
            `python -m convert` and the trainer write them, or whose tensors are those of one model alone.
        weights: a file of weights for exactly this model (see `load_weights`), or None: fresh ones. Its tensors
            say how many classes and channels there are and, in DeiT and PVT, the input size, and the file says what no
            tensor shows (as kernel_function), where no override does. With another `img_size`, `in_chans` or
            `num_classes` they are made to fit, with a warning that says how: positions and bias tables resized, the
            first convolution summed over grey or RGB images' channels or repeated and scaled, a head of other classes
            set to zero, to be trained, or left out.
        pretrained: a habit from other libraries; True is a UserError that says where weights come from, for there are
            none to download.
        overrides: fields of the family's spec, e.g. img_size (int or (H, W)), in_chans, num_classes (0: no
            head), drop_rate, drop_path_rate, attn_type, kernel_function, attn_options, recompute.

    Returns:
        A model from images [B, in_chans, H, W] to logits [B, num_classes], in train mode.

    Raises:
        UserError: an unknown name or override, a value that the family cannot build, weights that do
            not fit (with a difference of names and shapes), pretrained.
        MissingFileError: no such weights file.
        WrongTypeError: weights that are no path.
    """
    if pretrained:
        raise no_download(name)
    check_path(weights)
    asked = set(overrides) & _SHOWN
    if name is None:
        name, own, shapes = described_model(weights)
        if name is None:
            name, own = model_of_tensors(weights, shapes), own_sizes(shapes)
            what = (
                f"by its tensors it is of {name}{', without a head' if own.get('num_classes') == 0 else ''}"
            )
            warnings.warn(f"{weights} does not name its model: {what}", stacklevel=2)
        else:
            check_described(weights, name, own, shapes)
        overrides = {**own, **overrides}
    elif weights is not None:
        known = {**stated_fields(weights, name, overrides), **shown_sizes(tensor_shapes(weights))}
        overrides = {**known, **overrides}
    spec = model_spec(name, **overrides)
    model = _MODELS[name][0](spec)
    model.name = name
    if weights is not None:
        if asked:
            load_fitted(model, weights, new_head="num_classes" in asked)
        else:
            load_weights(model, weights)
    return model


def variant(name: str, family: type[Model]) -> Callable[..., Model]:
    """Return `create_model` of one name as a function: the arguments are those of `create_model` behind the name."""

    def build(weights: Path | None = None, **overrides: Any) -> Model:
        return create_model(name, weights, **overrides)

    build.__name__ = build.__qualname__ = name
    what = "weights, a file; num_classes, img_size, in_chans and all else of its spec"
    build.__doc__ = f"Build {name}, a {family.__name__}; arguments ({what}) and errors as for `create_model`."
    return build
