"""Weight files of Paddle, read without trusting them, and strict loading.

`.pdparams` is a pickle. It is read here by an unpickler that makes numbers, strings, plain containers and
numpy arrays of numbers only: a file from a stranger runs no code and claims no memory it does not bring.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np


class WeightsFileError(ValueError):
    """A weight file that cannot be read: empty, cut short, damaged, or asking for more than arrays."""


class _Dtype:
    """A numpy dtype of numbers, its byte order set by the pickle afterwards."""

    def __init__(self, name, *_):
        self.value = np.dtype(str(name))
        if self.value.kind not in "biufc":
            raise WeightsFileError(f"it holds an array of {self.value}, not of numbers")

    def __setstate__(self, state):
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """A pickled numpy array; made from its own bytes alone, once they are all there (`_finish`)."""

    def __init__(self, *_):
        self.array = None

    def __setstate__(self, state):
        _, shape, dtype, fortran_order, data = state
        if math.prod(shape) * dtype.value.itemsize != len(data):
            raise WeightsFileError(
                f"it declares an array {shape} of {dtype.value} but brings {len(data)} bytes"
            )
        self.array = np.frombuffer(data, dtype.value).reshape(shape, order="F" if fortran_order else "C")


def _scalar(dtype, data):
    return np.frombuffer(data, dtype.value)[0]


def _encode(text, encoding):
    if encoding != "latin1":
        raise WeightsFileError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")  # how pickle protocol 2 writes bytes


_SAFE = {
    "numpy.ndarray": object,  # only named as an argument of _reconstruct
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy.core.multiarray.scalar": _scalar,
    "_codecs.encode": _encode,
    "builtins.tuple": tuple,
    "collections.OrderedDict": dict,
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        path = f"{module}.{name}".replace("numpy._core.", "numpy.core.")  # numpy 2 renamed it
        if path not in _SAFE:
            raise WeightsFileError(f"it asks for {module}.{name}, which no weight file needs")
        return _SAFE[path]


def _finish(value):
    """Plain Python and numpy from the stand-ins; Paddle's (name, array) pairs become the array."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, dict):
        return {key: _finish(item) for key, item in value.items()}
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], _Array):
        return value[1].array
    if isinstance(value, (list, tuple)):
        return type(value)(_finish(item) for item in value)
    return value


def find_weights(path):
    """`path`, or `path` with `.pdparams` added, whichever is a file; FileNotFoundError otherwise."""
    for candidate in (Path(path), Path(f"{path}.pdparams")):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"no weights file {path} (nor {path}.pdparams)")


def read_pickle(path):
    """The containers and arrays of a file that `paddle.save` wrote, as plain Python and numpy (bfloat16
    arrays as uint16, as Paddle stores them). Runs nothing that the file names.

    Raises WeightsFileError for anything else than such a file.
    """
    try:
        with open(path, "rb") as file:
            return _finish(_RestrictedUnpickler(file).load())
    except WeightsFileError as error:
        raise WeightsFileError(f"{path} is not read: {error}") from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise WeightsFileError(
            f"{path} is damaged or not a Paddle file: {type(error).__name__}: {error}"
        ) from None


def read_weights(path):
    """The named arrays of a `.pdparams` (suffix optional) or `.safetensors` file, {name: array}.

    A training checkpoint's `model` entry is taken where there is one.
    """
    path = find_weights(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise WeightsFileError(f"{path} is damaged: {error}") from None
    state = read_pickle(path)
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict):
        raise WeightsFileError(f"{path} holds a {type(state).__name__}, not named weights")
    return {name: value for name, value in state.items() if isinstance(value, np.ndarray)}


def difference(expected, found, skip=()):
    """The lines of a `-`/`+` difference between two {name: shape}; names under a `skip` prefix excepted."""
    lines = []
    for name in [*expected, *(name for name in found if name not in expected)]:
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in skip):
            continue
        ours, theirs = expected.get(name), found.get(name)
        if ours != theirs:
            if ours is not None:
                lines.append(f"  - {name} {list(ours)}")
            if theirs is not None:
                lines.append(f"  + {name} {list(theirs)}")
    return lines


def load_weights(model, source, skip=()):
    """Put named weights into a model: all of them, or none.

    Args:
        model: a paddle.nn.Layer.
        source: a `.pdparams` or `.safetensors` file, or {name: array or tensor}.
        skip: name prefixes that keep what the model has, e.g. ("head",) to train a new head.
    Raises:
        FileNotFoundError: no such file.
        WeightsFileError: a file that cannot be read.
        ValueError: names or shapes differ, with the difference: `-` the model's, `+` the file's.
    """
    state = source if isinstance(source, Mapping) else read_weights(source)
    state = {name: np.asarray(value) for name, value in state.items()}
    own = model.state_dict()
    lines = difference(
        {name: tuple(tensor.shape) for name, tensor in own.items()},
        {name: value.shape for name, value in state.items()},
        skip,
    )
    if lines:
        shown = lines[:40] + ([f"  ... and {len(lines) - 40} more lines"] if len(lines) > 40 else [])
        where = "the given weights" if isinstance(source, Mapping) else source
        who = getattr(model, "name", type(model).__name__)
        where = "the given weights" if isinstance(source, Mapping) else source
        raise ValueError(
            f"{who} <- {where}: names or shapes differ\n"
            "  (- in the model, + in the file; skip=('head',) keeps the model's own head)\n"
            + "\n".join(shown)
        )
    for name, tensor in own.items():
        if name in state:
            tensor.set_value(_as_dtype(state[name], str(tensor.dtype).split(".")[-1]))


def _as_dtype(value, dtype):
    """`value` as numpy's `dtype`, or as Paddle's bfloat16, which numpy knows as uint16."""
    if value.dtype == np.uint16:  # bfloat16: the upper half of a float32
        value = (value.astype(np.uint32) << 16).view(np.float32)
    if dtype == "bfloat16":
        import paddle

        return paddle.to_tensor(value.astype(np.float32)).astype("bfloat16")
    return value.astype(dtype)
