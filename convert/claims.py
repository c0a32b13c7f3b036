"""What a file claims about its model, checked before anything is built from it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from paddle_inline.config.legacy_keys import (
    ARCHITECTURE,
    fixed_keys,
    has_place,
    plain_value,
    ratios,
    section_is_of,
)
from paddle_inline.models.factory import model_spec
from paddle_inline.utils.errors import UserError, short

from .errors import UnknownModelError
from .families.adapter import (
    UNKNOWN,
    Family,
    InferredSpec,
    NoSuchSpecError,
    TensorShapes,
    canonical_attention,
    has_unknown,
    square,
    widths_of,
)

_KINDS = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,), "None": (type(None),)}


def check_overrides(name: str, overrides: Mapping[str, Any]) -> None:
    """Refuse overrides of a file that are of other types than the fields of the model's spec.

    Raises:
        UserError: naming the first, or an unknown model or override.
    """
    spec = model_spec(name, **overrides)
    types = {field.name: str(field.type) for field in dataclasses.fields(spec)}
    for key, value in overrides.items():
        if not any(_is(value, kind.strip()) for kind in types[key].split("|")):
            raise UserError(f"{key} is {short(repr(value))}, which is no {types[key]}")


class Claims(NamedTuple):
    """What the authors' settings in a checkpoint say of its model.

    Attributes:
        values: {field of the spec: value}.
        keys: {field: the key that says it}, as `MODEL.SWIN.NUM_HEADS`.
        fixed: {key: value} of what is built in one way alone, and is said to be another.
        unknown: keys that no model here has.
    """

    values: dict[str, Any]
    keys: dict[str, str]
    fixed: dict[str, Any]
    unknown: list[str]


def claims_of(model_settings: Mapping[str, Any], name: str, img_size: Any = None) -> Claims:
    """Read what the sections of MODEL say of a model; sections of other families are defaults that nobody used.

    Args:
        model_settings: {section or key: entries}, the names in lower case.
        name: a model of the file's family.
        img_size: that the settings say; None: they do not.
    """
    fields = {field.name for field in dataclasses.fields(model_spec(name))} - {"published"}
    fixed = fixed_keys(name)
    claims = Claims({}, {}, {}, [])
    if img_size is not None:
        claims.values["img_size"], claims.keys["img_size"] = img_size, "the image size"
    for section, entries in model_settings.items():
        if not isinstance(entries, Mapping) or not section_is_of(section, name):
            continue
        for own, value in entries.items():
            key, leaf = f"MODEL.{section.upper()}.{own.upper()}", own.upper()
            value = plain_value(value)
            value = ratios(value) if leaf in ("SR_RATIOS", "LA_SR_RATIOS") else value
            field = {"IN_CHANS": "in_chans", "PATCH_SIZE": "patch_size"}.get(leaf, ARCHITECTURE.get(leaf, ""))
            if not has_place(section, leaf):
                claims.unknown.append(key)
            elif leaf in fixed:
                if value != fixed[leaf]:
                    claims.fixed[key] = value
            elif field in fields:
                if value is not None:
                    claims.values[field] = tuple(value) if isinstance(value, list) else value
                    claims.keys[field] = key
            else:
                claims.unknown.append(key)
    return claims


def follow(
    inferred: InferredSpec,
    claims: Claims,
    known: Mapping[str, Any],
    shapes: TensorShapes,
    name: str,
    family: Family,
) -> tuple[InferredSpec, dict[str, Any], list[str]]:
    """Follow the settings beside the weights in what no tensor shows.

    Args:
        inferred: what the tensors show.
        claims: what the settings say.
        known: {field: value} that go before them.
        shapes: of the file's tensors.
        name: a model of the family.
        family: its adapter.

    Returns:
        (the inferred spec with the windows that they say, {field: value} that they say, remarks on what they say and
        is not followed).

    Raises:
        UnknownModelError: naming a setting that cannot be built.
    """
    told: dict[str, Any] = {}
    remarks = [f"not used of its settings: {', '.join(claims.unknown)}"] if claims.unknown else []
    for key, value in claims.fixed.items():
        if not key.endswith(".QK_SCALE"):
            raise UnknownModelError(f"{_says(key, value)}, and {name} cannot be built with that")
    for field_name, value in claims.values.items():
        if field_name in known:
            continue
        key = claims.keys[field_name]
        if field_name == "img_size":  # else it decides between the sizes that explain the tensors
            sizes = [option["img_size"] for option in inferred.options if "img_size" in option]
            if not sizes:
                told[field_name] = value
            elif not any(square(size) == square(value) for size in sizes):
                remarks.append(f"{_says(key, value)}, its tensors show {sizes[0]}: they are followed")
            continue
        try:
            check_overrides(name, {field_name: value})
        except UserError as error:
            raise UnknownModelError(f"{_says(key, value)}: {error}") from None
        if field_name == "window_size":
            shown = any("window_size" in option for option in inferred.options)
            shown = shown and "window_size" not in inferred.unseen
            again = None
            with contextlib.suppress(NoSuchSpecError):
                again = family.infer_spec(shapes, {**known, "window_size": value})
            if again is not None and not (shown and again.unseen):
                inferred = dataclasses.replace(
                    again, fields=inferred.fields, unseen=again.unseen - {"window_size"}
                )
            elif not shown:
                raise UnknownModelError(f"{_says(key, value)}, which fits no image size")
            else:
                window = inferred.options[0]["window_size"] or "whole grids"
                remarks.append(f"{_says(key, value)}, its tensors show {window}: they are followed")
            continue
        seen = inferred.fields.get(field_name, UNKNOWN)
        same = canonical_attention(value, inferred.fields) if field_name == "attn_type" else value
        parts = isinstance(seen, tuple) and isinstance(value, tuple) and len(seen) == len(value)
        if all(s is UNKNOWN or s == v for s, v in (zip(seen, value) if parts else [(seen, same)])):
            if has_unknown(seen):
                told[field_name] = value
        else:
            remarks.append(f"{_says(key, value)}, its tensors show {seen!r}: they are followed")
    return inferred, told, remarks


def refuse_scale(claims: Claims, name: str, spec: Any) -> None:
    """Refuse a scale of the scores that is not that of every head, one over the root of its width."""
    scales = {key: value for key, value in claims.fixed.items() if key.endswith(".QK_SCALE")}
    if not scales:
        return
    heads, widths = spec.num_heads, widths_of(vars(spec))
    pairs = zip(widths, heads) if isinstance(heads, tuple) else [(spec.embed_dim, heads)]
    own = [(width // head) ** -0.5 for width, head in pairs]
    for key, value in scales.items():
        if not (type(value) in (int, float) and all(abs(value - scale) <= 1e-6 * scale for scale in own)):
            raise UnknownModelError(
                f"{_says(key, value)}; {name} is built with one over the root of a head's width alone "
                f"({', '.join(f'{scale:.6g}' for scale in dict.fromkeys(own))}): its weights would compute "
                "something else"
            )


def _says(key: str, value: Any) -> str:
    return f"the file's settings say {key} is {short(repr(value))}"


def _is(value: Any, kind: str) -> bool:
    if kind.startswith("tuple["):
        inside = [part.strip() for part in kind[len("tuple[") : -1].split(",")]
        most = 64 if "..." in inside else len(inside)
        return (
            isinstance(value, (tuple, list))
            and len(value) <= most
            and all(_is(item, inside[0]) for item in value)
        )
    if kind.startswith("dict["):  # attn_options
        return (
            isinstance(value, dict)
            and len(value) <= 64
            and all(isinstance(key, str) and _is_option(item) for key, item in value.items())
        )
    return type(value) in _KINDS[kind] and not (isinstance(value, float) and not math.isfinite(value))


def _is_option(value: Any) -> bool:
    """Whether a value is a number, switch, name or None, or a list of a few of them, one per stage."""
    parts = value if isinstance(value, (tuple, list)) else (value,)
    return len(parts) <= 64 and all(any(_is(part, kind) for kind in _KINDS) for part in parts)
