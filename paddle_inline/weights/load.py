"""Weight files of Paddle, read without trusting them, and strict loading.

`.pdparams` is a pickle. It is read here as numbers, text, plain containers and numpy arrays of numbers only
(safe_pickle.py): a file from a stranger runs no code and claims no memory it does not bring.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils.errors import MissingFileError, UserError, short, shortened
from . import safe_pickle
from .bfloat16 import from_bfloat16
from .lazy_array import LazyArray, WeightsFileError, check_file, nonfinite, open_safetensors

if TYPE_CHECKING:
    import paddle

# The key under which a file says which model its weights are for: in safetensors' metadata, and in a
# `.pdparams` in one line of JSON behind the pickle, where `paddle.load` never looks.
DESCRIPTION = "paddle_inline"
_LONGEST_DESCRIPTION = 1 << 20


def find_weights(path: str | os.PathLike[str]) -> Path:
    """Find a weights file: `path`, or `path` with `.pdparams` added, whichever exists.

    Raises:
        MissingFileError: neither does.
    """
    for candidate in (Path(path), Path(f"{path}.pdparams")):
        if candidate.exists():
            return check_file(candidate)
    raise MissingFileError(f"no weights file {path} (nor {path}.pdparams)")


def open_pickle(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Any] | None]:
    """Open a file that `paddle.save` wrote.

    Returns:
        (contents, description): plain containers whose arrays, of the class `safe_pickle.Array`, are still in
        the file; and what it says of its model, or None.

    Raises:
        MissingFileError: there is no such file.
        WeightsFileError: it is anything else.
    """
    path = check_file(path)
    with open(path, "rb") as file:
        try:
            contents = safe_pickle.load(file, {**safe_pickle.COMMON, "builtins.tuple": tuple})
        except WeightsFileError as error:
            raise WeightsFileError(f"{path} is not read: {error}") from None
        return contents, described(file.read(_LONGEST_DESCRIPTION), DESCRIPTION)


def described(text: str | bytes | None, *keys: str) -> dict[str, Any] | None:
    """Return the description {"model": name, "overrides": {...}} in a text of JSON, under `keys`; None for
    anything that this package did not write."""
    try:
        found = json.loads(text or "")
        for key in keys:
            found = found[key]
        if isinstance(found["model"], str) and isinstance(found["overrides"], dict):
            return {**found, "overrides": tuples(found["overrides"])}
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return None


def tuples(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides that went through JSON, which has no tuples, as `create_model` takes them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()}


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """Read a file that `paddle.save` wrote as plain Python and numpy, bfloat16 arrays as uint16, as Paddle
    stores them. Nothing that the file names is run.

    Raises:
        MissingFileError: there is no such file.
        WeightsFileError: it is anything else.
    """
    contents, _ = open_pickle(path)
    try:
        return _finish(contents, {})
    except RecursionError:
        raise WeightsFileError(f"{path} is not read: its containers are nested too deeply") from None


def _finish(value: Any, done: dict[int, Any]) -> Any:
    """Plain Python and numpy from the stand-ins; Paddle's (name, array) pairs become the array. `done` keeps
    what a file refers to many times from being made as many times."""
    if isinstance(value, (dict, list, tuple)) and id(value) in done:
        return done[id(value)]
    result = value
    stored = lazy_array_of(value)
    if stored is not None:
        result = stored.read()
    elif isinstance(value, dict):
        result = {key: _finish(item, done) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        result = type(value)(_finish(item, done) for item in value)
    done[id(value)] = result
    return result


def lazy_array_of(value: Any) -> LazyArray | None:
    """Return the LazyArray that an entry of `open_pickle` stands for, alone or as Paddle's (name, array); None if
    it is something else."""
    if isinstance(value, tuple) and len(value) == 2:
        value = value[1]
    return value.stored if isinstance(value, safe_pickle.Array) else None


def open_weights(path: str | os.PathLike[str]) -> tuple[dict[str, LazyArray], dict[str, Any] | None]:
    """Return ({name: LazyArray}, description) of a `.pdparams` (suffix optional) or `.safetensors` file.

    A training checkpoint's `model` entry is taken where there is one. The description, as `convert` and the
    trainer write it, is {"model": name, "overrides": {...}}, or None.
    """
    path = find_weights(path)
    if path.suffix == ".safetensors":
        arrays, metadata = open_safetensors(path)
        return arrays, described(metadata.get(DESCRIPTION))
    contents, description = open_pickle(path)
    if isinstance(contents, dict) and isinstance(contents.get("model"), dict):
        contents = contents["model"]
    if not isinstance(contents, dict):
        raise WeightsFileError(f"{path} holds a {type(contents).__name__}, not named weights")
    named = ((name, lazy_array_of(value)) for name, value in contents.items())
    return {name: array for name, array in named if array is not None}, description


def read_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the named arrays of a `.pdparams` (suffix optional) or `.safetensors` file, {name: array}.

    A training checkpoint's `model` entry is taken where there is one.
    """
    return {name: array.read() for name, array in open_weights(path)[0].items()}


def described_model(
    path: str | os.PathLike[str] | None,
) -> tuple[str, dict[str, Any], dict[str, tuple[int, ...]]]:
    """Return (name, overrides, shapes): the model that a weights file says it is for, and {name: shape} of what
    it holds.

    Raises:
        UserError: it does not say.
    """
    arrays, description = ({}, None) if path is None else open_weights(path)
    if description is None:
        raise UserError(f"no model is named, and the weights {path} do not name theirs; give a name")
    shapes = {name: array.shape for name, array in arrays.items()}
    return description["model"], description["overrides"], shapes


def difference(
    expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]], skip: Sequence[str] = ()
) -> list[str]:
    """Return the lines of a `-`/`+` difference between two {name: shape}; names under a `skip` prefix excepted."""
    lines = []
    for name in [*expected, *(name for name in found if name not in expected)]:
        if _under(name, skip):
            continue
        before, after = expected.get(name), found.get(name)
        if before != after:
            if before is not None:
                lines.append(f"  - {short(name)} {list(before)}")
            if after is not None:
                lines.append(f"  + {short(name)} {list(after)}")
    return lines


def _under(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def load_weights(
    model: paddle.nn.Layer, source: str | os.PathLike[str] | Mapping[str, Any], skip: Sequence[str] = ()
) -> None:
    """Put named weights into a model: all of them, or none.

    Args:
        model: what to put them into.
        source: a `.pdparams` or `.safetensors` file, or {name: array or tensor}.
        skip: name prefixes that keep what the model has, e.g. ("head",) to train a new head.
    Raises:
        MissingFileError: no such file.
        WeightsFileError: a file that cannot be read.
        UserError: names or shapes differ, with the difference: `-` the model's, `+` the file's; or values
            that no model has: NaN, infinity, integers in place of real numbers.
    """
    given = isinstance(source, Mapping)
    who, where = getattr(model, "name", type(model).__name__), "the given weights" if given else source
    values = source if isinstance(source, Mapping) else read_weights(source)
    state = {name: np.asarray(value) for name, value in values.items()}
    own = model.state_dict()
    lines = difference(
        {name: tuple(tensor.shape) for name, tensor in own.items()},
        {name: value.shape for name, value in state.items()},
        skip,
    )
    if lines:
        raise UserError(
            f"{who} <- {where}: names or shapes differ\n"
            "  (- in the model, + in the file; skip=('head',) keeps the model's own head)\n"
            + "\n".join(shortened(lines))
        )
    state = {name: state[name] for name in own if not _under(name, skip)}
    for name, value in state.items():
        real = "float" in str(own[name].dtype)
        if real != (value.dtype.kind == "f" or value.dtype == np.uint16):
            raise UserError(f"{who} <- {where}: {name} is {value.dtype}, the model's {own[name].dtype}")
        if real and nonfinite(value):
            raise UserError(
                f"{who} <- {where}: {name} has {nonfinite(value)} values that are NaN or infinite; "
                "the training that wrote it has diverged, take an earlier checkpoint"
            )
    for name, value in state.items():
        own[name].set_value(_as_dtype(value, str(own[name].dtype).split(".")[-1]))


def _as_dtype(value: np.ndarray, dtype: str) -> Any:
    """Return `value` as numpy's `dtype`, or as Paddle's bfloat16, which numpy knows as uint16."""
    if value.dtype == np.uint16:
        value = from_bfloat16(value)
    if dtype == "bfloat16":
        import paddle

        return paddle.to_tensor(value.astype(np.float32)).astype("bfloat16")
    return value.astype(dtype)
