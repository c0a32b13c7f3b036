"""Every model by name: the families' VARIANTS tables in one."""

from __future__ import annotations

import dataclasses

from ..layers.basic import meta_init
from ..utils.errors import UserError, short, unknown
from ..weights import described_model, load_weights
from . import inline_cswin, inline_deit, inline_pvt, inline_swin, soft

# model class -> its variants, in the order in which they are listed
FAMILIES = {
    inline_deit.InLineDeiT: inline_deit.VARIANTS,
    inline_pvt.InLinePVT: inline_pvt.VARIANTS,
    inline_swin.InLineSwin: inline_swin.VARIANTS,
    inline_cswin.InLineCSwin: inline_cswin.VARIANTS,
    soft.Soft: soft.VARIANTS,
}


def merge_variants(families):
    """{name: (model class, spec)} of all families; ValueError if two use the same name."""
    merged = {}
    for model, variants in families.items():
        for name, spec in variants.items():
            if name in merged:
                raise UserError(f"{merged[name][0].__name__} and {model.__name__} both define {name!r}")
            merged[name] = (model, spec)
    return merged


_MODELS = merge_variants(FAMILIES)


def list_models():
    """The names that `create_model` knows."""
    return list(_MODELS)


def model_spec(name, **overrides):
    """The spec row of `name` with the overrides put in; ValueError for an unknown name or override."""
    if name not in _MODELS:
        raise unknown("model", name, _MODELS)
    spec = _MODELS[name][1]
    fields = [field.name for field in dataclasses.fields(spec) if field.name != "published"]
    for key in overrides:
        if key not in fields:
            raise unknown(f"override of {name}", key, fields)
    return dataclasses.replace(spec, **overrides)


def check_described(path, name, overrides, shapes):
    """Refuse a file whose tensors are not those of the model that it says it is of, before a model of the
    sizes that it claims is built: ValueError.

    Args:
        shapes: {name: shape} of the file's tensors.
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


def create_model(name=None, weights=None, **overrides):
    """Build a model.

    Args:
        name: one of `list_models()`; may be left out with weights that say which model they are for, as
            `python -m convert` and the trainer write them.
        weights: a file of weights for exactly this model (see `load_weights`), or None: fresh ones.
        overrides: fields of the family's spec, e.g. img_size (int or (H, W)), in_chans, num_classes (0: no
            head), drop_rate, drop_path_rate, attn_type, kernel_function, recompute.
    Returns:
        A model from images [B, in_chans, H, W] to logits [B, num_classes], in train mode.
    Raises:
        ValueError: an unknown name or override, a value that the family cannot build, weights that do
            not fit (with a difference of names and shapes).
        FileNotFoundError: no such weights file.
    """
    if name is None:
        name, own, shapes = described_model(weights)
        check_described(weights, name, own, shapes)
        overrides = {**own, **overrides}
    spec = model_spec(name, **overrides)
    model = _MODELS[name][0](spec)
    model.name = name
    if weights is not None:
        load_weights(model, weights)
    return model
