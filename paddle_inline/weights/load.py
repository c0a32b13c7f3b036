"""Weight files of Paddle, read without trusting them, and strict loading.

`.pdparams` is a pickle. It is read here as numbers, text, plain containers and numpy arrays of numbers only
(safe_pickle.py): an untrusted file runs no code and cannot claim more memory than its own size justifies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils.errors import MissingFileError, UserError, counted, short, shortened
from ..utils.paths import expand
from .bfloat16 import from_bfloat16
from .description import DESCRIPTION, read_description, tuples
from .foreign import PADDLE, SAFETENSORS, advice, converter, kind_of, not_weights
from .inert_data import inert_data
from .lazy_array import LazyArray, WeightsFileError, check_file, nonfinite
from .mismatch import reason, stated_differences
from .pickled_arrays import COMMON
from .safe_pickle import Inert, load
from .safetensors import open_safetensors
from .wrapped import named_arrays

if TYPE_CHECKING:
    import paddle

__all__ = [
    "DESCRIPTION",
    "described",
    "find_weights",
    "load_weights",
    "open_weights",
    "tuples",
]

_LONGEST_DESCRIPTION = 1 << 24
# What a folder's weights are called: the best of a run, those of a checkpoint.
IN_FOLDERS = ("best_model.pdparams", "model.pdparams")


def find_weights(path: str | os.PathLike[str]) -> Path:
    """Return the weights file that `path` names.

    That is `path` itself, else `path` with `.pdparams` added, else, of a run's folder, its best weights and, of a
    checkpoint's folder, the checkpoint's.

    Raises:
        MissingFileError: there is none.
        WeightsFileError: it is not a regular file, or empty.
    """
    if "://" in str(path):
        raise MissingFileError(f"{short(str(path), 400)} is an address: download the file, and give its path")
    path = Path(expand(path))
    for candidate in (path, Path(f"{path}.pdparams")):
        if os.path.exists(candidate) and not candidate.is_dir():
            return check_file(candidate)
    if os.path.islink(path) and not os.path.exists(path):
        raise MissingFileError(f"{path} is a link to {os.readlink(path)}, which is not there")
    if not os.path.isdir(path):
        name = short(str(path), 400)
        either = "" if name.endswith(".pdparams") else f", nor {name}.pdparams"
        raise MissingFileError(
            f"no weights file {name}{either}; give a file, or a run's folder, OUTPUT/MODEL/TAG"
        )
    for name in IN_FOLDERS:
        if (path / name).exists():
            return check_file(path / name)
    foreign = advice(path)
    if foreign:
        raise WeightsFileError(foreign)
    inside = sorted(str(file.name) for file in path.iterdir() if file.suffix in (".pdparams", ".safetensors"))
    raise MissingFileError(
        f"{path} is a folder without {' or '.join(IN_FOLDERS)}, and there is no {path}.pdparams; "
        + (f"name one of its files: {', '.join(map(short, inside[:5]))}" if inside else "name a weights file")
    )


def open_pickle(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Any] | None]:
    """Open a file that `paddle.save` wrote.

    Returns:
        (contents, description): plain containers whose arrays, of the class `pickled_arrays.Array`, are still in
        the file; and the description of its model, or None.

    Raises:
        MissingFileError, WeightsFileError: no such file; not such a file.
    """
    path = check_file(path)
    with open(path, "rb") as file:
        try:
            contents = load(file, {**COMMON, "builtins.tuple": tuple}, inert=_inert)
            return contents, described(file.read(_LONGEST_DESCRIPTION), DESCRIPTION)
        except WeightsFileError as error:
            raise WeightsFileError(f"{path} is not read: {error}") from None


def _inert(path: str, arguments: tuple[Any, ...], by_call: bool) -> Inert:
    found = inert_data(path, arguments, by_call)
    if found is None:
        raise WeightsFileError(f"it asks for {short(path)}, which no weight file needs")
    return found


def described(text: Any, *keys: str) -> dict[str, Any] | None:
    """Return the description (description.py) that stands under `keys` in a text of JSON.

    None for anything that is not one.

    Raises:
        WeightsFileError: as `read_description`.
    """
    try:
        found = json.loads(text)
        for key in keys:
            found = found[key]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return read_description(found)


def open_weights(path: str | os.PathLike[str]) -> tuple[dict[str, LazyArray], dict[str, Any] | None]:
    """Open a `.pdparams` (suffix optional) or `.safetensors` file, of a checkpoint its `model` entry.

    Returns:
        ({name: LazyArray}, description); the description, as `convert` and the trainer write it (description.py),
        or None.

    Raises:
        MissingFileError, WeightsFileError: no such file; it cannot be read or holds no named weights.
    """
    path = find_weights(path)
    foreign = advice(path)
    if foreign:
        raise WeightsFileError(foreign)
    kind = kind_of(path)[0]
    if kind not in (PADDLE, SAFETENSORS):
        raise WeightsFileError(not_weights(path))
    if kind == SAFETENSORS:
        arrays, metadata = open_safetensors(path)
        if metadata.get("format") == "pt":
            raise WeightsFileError(
                f"{path} has PyTorch's names and layouts; convert it first: {converter(path)}"
            )
        try:
            return arrays, described(metadata.get(DESCRIPTION))
        except WeightsFileError as error:
            raise WeightsFileError(f"{path} is not read: {error}") from None
    contents, description = open_pickle(path)
    if not isinstance(contents, dict):
        what = getattr(contents, "kind", type(contents).__name__)
        raise WeightsFileError(f"{path} holds a {short(what)}, not named weights; save its state_dict()")
    return named_arrays(path, contents), description


def read_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return the named arrays of a file; arguments and errors as for `open_weights`."""
    return {name: array.read() for name, array in open_weights(path)[0].items()}


def difference(
    expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]], skip: Sequence[str] = ()
) -> list[str]:
    """Return the lines of a `-`/`+` difference between two {name: shape}, without names under a `skip` prefix."""
    lines = []
    for name in [*expected, *(name for name in found if name not in expected)]:
        if _under(name, skip):
            continue
        shapes = expected.get(name), found.get(name)
        if shapes[0] != shapes[1]:
            lines += [
                f"  {sign} {short(name)} {list(shape)}"
                for sign, shape in zip("-+", shapes)
                if shape is not None
            ]
    return lines


def _under(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def load_weights(
    model: paddle.nn.Layer, source: str | os.PathLike[str] | Mapping[str, Any], skip: Sequence[str] = ()
) -> None:
    """Load named weights into a model: all of them, or none.

    What a file says of itself (description.py) is kept as `model.description`, which `Predictor` and `export_model`
    read; {} of weights that say nothing.

    Args:
        model: a paddle.nn.Layer.
        source: a `.pdparams` or `.safetensors` file, or {name: array or tensor}.
        skip: name prefixes that keep what the model has, e.g. ("head",) to train a new head.

    Raises:
        MissingFileError: no such file.
        WeightsFileError: a file that cannot be read.
        UserError: names or shapes differ, with the difference: `-` the model's, `+` the file's; or values
            that no model has: NaN, infinity, integers in place of real numbers.
    """
    write_state(model, *fitting(model, source, skip))


def fitting(
    model: paddle.nn.Layer,
    source: str | os.PathLike[str] | Mapping[str, Any],
    skip: Sequence[str] = (),
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read weights and return (those that fit the model, what they say of themselves); arguments and errors as for
    `load_weights`. The model is left as it is."""
    who = getattr(model, "name", type(model).__name__)
    where = "the given weights" if isinstance(source, Mapping) else source
    description: dict[str, Any] | None = None
    if isinstance(source, Mapping):
        state = {name: np.asarray(value) for name, value in source.items()}
    else:
        arrays, description = open_weights(source)
        state = {name: array.read() for name, array in arrays.items()}
    own = model.state_dict()
    lines = difference(
        {name: tuple(tensor.shape) for name, tensor in own.items()},
        {name: value.shape for name, value in state.items()},
        skip,
    )
    if lines:
        hint = "" if isinstance(source, Mapping) else reason(find_weights(source), own, state)
        own_head = "; skip=('head',) keeps the model's own head" if "head.weight" in own else ""
        raise UserError(
            f"{who} <- {where}: names or shapes differ{hint}\n  (- in the model, + in the file{own_head})\n"
            + "\n".join(shortened(lines))
        )
    _check_stated(model, description, where)
    state = {name: state[name] for name in own if not _under(name, skip)}
    for name, value in state.items():
        real = "float" in str(own[name].dtype)
        if real != (value.dtype.kind == "f" or value.dtype == np.uint16):
            raise UserError(f"{who} <- {where}: {name} is {value.dtype}, the model's {own[name].dtype}")
        if real and nonfinite(value):
            raise UserError(
                f"{who} <- {where}: {name} is NaN or infinite in {counted(nonfinite(value), 'value')}; "
                "the training that wrote it has diverged: use an earlier checkpoint"
            )
    description = dict(description or {})
    if any(_under(name, skip) for name in ("head.weight", "head.bias")):
        description.pop("classes", None)  # they are of the head that was left out
    return state, description


def write_state(model: paddle.nn.Layer, state: Mapping[str, np.ndarray], description: dict[str, Any]) -> None:
    """Give a model what `fitting` has returned."""
    own = model.state_dict()
    for name, value in state.items():
        own[name].set_value(_as_dtype(value, str(own[name].dtype).split(".")[-1]))
    model.description = description


def _check_stated(model: paddle.nn.Layer, description: Mapping[str, Any] | None, where: Any) -> None:
    lines = stated_differences(model, description)
    if lines:
        raise UserError(
            f"{where} is of a {getattr(model, 'name', '')} with {'; '.join(lines)}: build the model so (create_model("
            "weights=FILE) does), or load the arrays alone, load_weights(model, read_weights(FILE)), if that is meant"
        )


def _as_dtype(value: np.ndarray, dtype: str) -> np.ndarray | paddle.Tensor:
    """Return `value` as numpy's `dtype`, or as Paddle's bfloat16, which numpy holds as uint16."""
    if value.dtype == np.uint16:
        value = from_bfloat16(value)
    if dtype == "bfloat16":
        import paddle

        return paddle.to_tensor(value.astype(np.float32)).astype("bfloat16")
    return value.astype(dtype)
