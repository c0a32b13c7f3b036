"""What one framework computed for one batch: plain numpy in PyTorch's layout, in memory or in a folder.

Neither framework is needed to read, write or compare recordings.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from paddle_inline.utils.errors import MissingFileError, UserError, counted
from paddle_inline.utils.paths import expand

from .listener import KeyedArray, Listener

AnyListener = TypeVar("AnyListener", bound=Listener)
MODEL = "(model)"  # the name of the whole model among its sublayers
FORMAT = 1
_INDEX, _ARRAYS = "recording.json", "arrays"


@dataclass(eq=False)
class Value:
    """A tensor that went into or came out of sublayers, and the gradient of the loss with respect to it."""

    array: np.ndarray
    gradient: np.ndarray | None = None


@dataclass(eq=False)
class Call:
    """One call of one sublayer. Sublayers that hand a tensor on share its Value."""

    name: str  # the sublayer's; from its second call on, with "#2", "#3", ...
    kind: str  # its class
    inputs: list[Value]
    output: Value


@dataclass
class Recording:
    """A Listener that keeps all of one batch's pass through one model in one framework.

    `calls` are in the order in which calls end: the innermost first. Names and layouts are PyTorch's.
    """

    framework: str  # "torch" or "paddle"
    version: str
    model: str
    dtype: str
    # What was run, as far as it has to be equal on both sides: input shape, labels, seed, overrides.
    subject: dict[str, Any] = field(default_factory=dict)
    wants_gradients: ClassVar[bool] = True
    weights: dict[str, int] = field(default_factory=dict)  # a checksum of each tensor, where it was taken
    calls: list[Call] = field(default_factory=list)
    loss: np.ndarray | None = None
    input_gradient: np.ndarray | None = None
    parameter_gradients: Mapping[str, np.ndarray] = field(default_factory=dict)
    step_losses: np.ndarray | None = None  # [steps]; of a training run, see steps.py
    step_weights: dict[str, np.ndarray] = field(default_factory=dict)  # after it
    machine: str = field(default_factory=lambda: describe_machine())

    def __post_init__(self) -> None:
        self._values: dict[Hashable, Value] = {}

    def called(self, name: str, kind: str, inputs: Sequence[KeyedArray], output: KeyedArray) -> None:
        """Keep a call."""
        for key, array in (*inputs, output):
            if key not in self._values:
                self._values[key] = Value(array)
        found = [self._values[key] for key, _ in inputs]
        self.calls.append(Call(name, kind, found, self._values[output[0]]))

    def gradient(self, key: Hashable, array: np.ndarray) -> None:
        """Keep the gradient of the loss with respect to a tensor."""
        self._values[key].gradient = array

    def finished(
        self,
        loss: np.ndarray,
        input_gradient: np.ndarray | None = None,
        parameter_gradients: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Keep the loss, and its gradients with respect to parameters and images."""
        self._values = {}
        self.loss, self.input_gradient = loss, input_gradient
        self.parameter_gradients = parameter_gradients or {}

    def replay(self, listener: AnyListener) -> AnyListener:
        """Report all of it to another listener, in the same order; return the listener."""
        values: dict[Hashable, Value] = {}
        for call in self.calls:
            pairs = [(id(value), value.array) for value in (*call.inputs, call.output)]
            listener.called(call.name, call.kind, pairs[:-1], pairs[-1])
            values.update((id(value), value) for value in (*call.inputs, call.output))
        for key, value in values.items():
            if value.gradient is not None:
                listener.gradient(key, value.gradient)
        loss = np.array(np.nan) if self.loss is None else self.loss  # every whole recording has one
        listener.finished(loss, self.input_gradient, self.parameter_gradients)
        return listener

    @property
    def by_name(self) -> dict[str, Call]:
        """The calls by their names."""
        return {call.name: call for call in self.calls}

    @property
    def logits(self) -> np.ndarray:
        """The model's own output."""
        return self.calls[-1].output.array


def describe_machine() -> str:
    """Return processor, cores, system and the versions of Python and numpy, in one line."""
    return (
        f"{_processor()}, {counted(os.cpu_count(), 'core')}, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, numpy {np.__version__}"
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


def save_recording(recording: Recording, folder: str | os.PathLike[str]) -> None:
    """Write a folder: an index in JSON and one `.npy` per array. A whole folder or none; an older recording there is
    replaced.

    Raises:
        UserError: `folder` holds something else than a recording.
    """
    folder = Path(expand(folder))
    if folder.exists() and (
        not folder.is_dir() or (any(folder.iterdir()) and not (folder / _INDEX).is_file())
    ):
        raise UserError(f"{folder} exists and is not a recording; name another folder")
    temporary = folder.with_name(f"{folder.name}.tmp{os.getpid()}")
    (temporary / _ARRAYS).mkdir(parents=True)
    try:
        writer = _Writer(temporary)
        index = {
            "format": FORMAT,
            **{f.name: writer.plain(getattr(recording, f.name)) for f in fields(recording)},
        }
        (temporary / _INDEX).write_text(json.dumps(index), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_recording(folder: str | os.PathLike[str]) -> Recording:
    """Return the Recording in `folder`; its arrays are read when they are used.

    Raises:
        MissingFileError: no recording there.
        UserError: it is damaged or of another format.
    """
    folder = Path(expand(folder))
    if not (folder / _INDEX).is_file():
        raise MissingFileError(
            f"{folder} is not a recording (no {_INDEX}); make one: python -m convert record"
        )
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        if index.pop("format") != FORMAT:
            raise UserError("another format")
        reader = _Reader(folder)
        index["calls"] = [
            Call(c["name"], c["kind"], [reader.value(v) for v in c["inputs"]], reader.value(c["output"]))
            for c in index["calls"]
        ]
        for name in ("loss", "input_gradient", "step_losses"):
            index[name] = reader.array(index[name])
        for name in ("parameter_gradients", "step_weights"):
            index[name] = {key: reader.array(value) for key, value in index[name].items()}
        return Recording(**index)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{folder} is not a whole recording: {error}; record it again") from None


class _Writer:
    """Arrays become files, and in the index their numbers; a Value is written once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.values: dict[int, list[Any]] = {}

    def plain(self, item: Any) -> Any:
        if isinstance(item, np.ndarray):
            np.save(self.folder / _ARRAYS / f"{self.count}.npy", item, allow_pickle=False)
            self.count += 1
            return self.count - 1
        if isinstance(item, Value):
            if id(item) not in self.values:
                self.values[id(item)] = [self.plain(item.array), self.plain(item.gradient)]
            return self.values[id(item)]
        if isinstance(item, Call):
            return {f.name: self.plain(getattr(item, f.name)) for f in fields(item)}
        if isinstance(item, dict):
            return {key: self.plain(value) for key, value in item.items()}
        if isinstance(item, (list, tuple)):
            return [self.plain(value) for value in item]
        return item


class _Reader:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.values: dict[tuple[Any, ...], Value] = {}

    def array(self, number: Any) -> Any:
        if number is None:
            return None
        path = self.folder / _ARRAYS / f"{int(number)}.npy"
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def value(self, pair: Sequence[Any]) -> Value:
        key = tuple(pair)
        if key not in self.values:
            self.values[key] = Value(*map(self.array, pair))
        return self.values[key]
