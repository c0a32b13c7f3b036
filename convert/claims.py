"""What a file claims about its model, checked before anything is built from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from paddle_inline.models.factory import model_spec
from paddle_inline.utils.errors import UserError, short

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


def _is(value: Any, kind: str) -> bool:
    if kind.startswith("tuple["):
        inside = [part.strip() for part in kind[len("tuple[") : -1].split(",")]
        most = 64 if "..." in inside else len(inside)
        return (
            isinstance(value, (tuple, list))
            and len(value) <= most
            and all(_is(item, inside[0]) for item in value)
        )
    return type(value) in _KINDS[kind] and not (isinstance(value, float) and not math.isfinite(value))
