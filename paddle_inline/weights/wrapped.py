"""The named arrays of a pickle of Paddle, under the dictionaries and prefixes that training code wraps them in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..utils.errors import short
from .lazy_array import LazyArray, WeightsFileError
from .pickled_arrays import Array

_WRAPPERS = ("_layers.", "module.", "_orig_mod.", "model.")  # before every name


def lazy_array_of(value: Any) -> LazyArray | None:
    """Return the LazyArray of an entry of `open_pickle`, alone or as Paddle's (name, array); None of others."""
    if isinstance(value, tuple) and len(value) == 2:
        value = value[1]
    return value.stored if isinstance(value, Array) else None


def named_arrays(path: Path, contents: dict[str, Any]) -> dict[str, LazyArray]:
    """Return the arrays of a file: its `model` entry's, its own, or those of the one dictionary in it that has any.

    Raises:
        WeightsFileError: it has none, or several dictionaries of them.
    """
    entry = contents.get("model")
    own = (isinstance(entry, dict) and _arrays_of(entry)) or _arrays_of(contents)
    found = {"": own} if own else _dictionaries(contents)
    models = {
        key: arrays for key, arrays in found.items() if not re.search("optim|sched", key, re.IGNORECASE)
    }
    if len(models) == 1:
        return _without_wrapper(*models.values())
    if not models:
        keys = ", ".join(short(str(key), 40) for key in list(contents)[:8])
        raise WeightsFileError(
            f"{path} holds no named weights, only {keys or 'nothing'}; save the state_dict()"
        )
    out = path.with_name(f"{path.stem}_model.pdparams")
    raise WeightsFileError(
        f"{path} holds several dictionaries of weights: {', '.join(map(short, models))}; take one out of it: "
        f"python -m convert to-paddle {shlex.quote(str(path))} {shlex.quote(str(out))} --take KEY"
    )


def _arrays_of(entries: Mapping[str, Any]) -> dict[str, LazyArray]:
    found = {name: lazy_array_of(value) for name, value in entries.items() if isinstance(name, str)}
    return {name: array for name, array in found.items() if array is not None}


def _dictionaries(
    contents: Mapping[str, Any], depth: int = 3, path: str = ""
) -> dict[str, dict[str, LazyArray]]:
    """Return {keys that lead there: arrays} of the dictionaries below one that has none itself."""
    result: dict[str, dict[str, LazyArray]] = {}
    for key, value in contents.items():
        if isinstance(value, dict) and isinstance(key, str):
            here = f"{path}.{key}" if path else key
            arrays = _arrays_of(value)
            if arrays:
                result[here] = arrays
            elif depth:
                result.update(_dictionaries(value, depth - 1, here))
    return result


def _without_wrapper(arrays: dict[str, LazyArray]) -> dict[str, LazyArray]:
    """Return arrays by their names without what Paddle's DataParallel or another wrapper puts before all of them."""
    while arrays:
        prefix = next((p for p in _WRAPPERS if all(name.startswith(p) for name in arrays)), None)
        if prefix is None:
            break
        arrays = {name[len(prefix) :]: array for name, array in arrays.items()}
    return arrays
