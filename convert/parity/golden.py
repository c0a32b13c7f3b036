"""Recorded numbers of a model (goldens): a digest of each output and gradient, enough to convict.

With them one framework alone can be checked, on a machine that does not have the other. A folder holds
`manifest.json` and one `.npz` per entry: `logits`, `loss`, `act/<sublayer>` (mean, standard deviation,
largest absolute value, first 8 elements), `grad/<parameter>` and `grad_input` (norm, sum, first 4 elements),
all float64, in PyTorch's layout, with the weights and the batch of inputs.py in eval mode.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from paddle_inline.utils.errors import MissingFileError
from paddle_inline.utils.paths import expand

from . import tolerance
from .inputs import draw_images, draw_labels
from .listener import KeyedArray
from .recording import MODEL
from .result import NAMES, RECORDED, Report, Row


@dataclass(frozen=True)
class Golden:
    """One entry: what to run, and where its numbers lie."""

    name: str
    model: str
    overrides: dict[str, Any]
    input: tuple[int, ...]  # [B, C, H, W]
    seed: int
    num_classes: int
    params: int
    state_dict: dict[str, tuple[int, ...]]  # names, in order, and PyTorch shapes
    path: Path

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Return images [B, C, H, W] and labels [B]."""
        return draw_images(self.input, self.seed), draw_labels(self.input[0], self.num_classes)

    def numbers(self) -> dict[str, np.ndarray]:
        """Return {key: array}, as the module describes them."""
        with np.load(self.path, allow_pickle=False) as file:
            return dict(file)


def read_goldens(folder: str | os.PathLike[str]) -> dict[str, Golden]:
    """Return {name: Golden} of a folder.

    Raises:
        MissingFileError: the folder has no goldens.
    """
    folder = expand(folder)
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise MissingFileError(f"no goldens in {folder}: there is no manifest.json")
    entries = json.loads(path.read_text(encoding="utf-8"))
    goldens = {}
    for name, entry in entries.items():
        entry["overrides"] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in entry["overrides"].items()
        }
        entry["input"] = tuple(entry["input"])
        entry["state_dict"] = {key: tuple(shape) for key, shape in entry["state_dict"].items()}
        goldens[name] = Golden(name, path=Path(folder) / f"{name}.npz", **entry)
    return goldens


class Digest:
    """A Listener to one framework that keeps digests of outputs, and the gradients of parameters and input."""

    wants_gradients: ClassVar[bool] = False

    def __init__(self, framework: str, version: str, model: str, dtype: str) -> None:
        self.framework, self.version, self.dtype = framework, version, dtype
        self.outputs: dict[str, np.ndarray] = {}  # {sublayer: digest}
        self.logits: np.ndarray | None = None
        self.loss: np.ndarray | None = None
        self.input_gradient: np.ndarray | None = None
        self.parameter_gradients: Mapping[str, np.ndarray] = {}

    def called(self, name: str, kind: str, inputs: Sequence[KeyedArray], output: KeyedArray) -> None:
        """Keep a digest of a sublayer's output."""
        self.outputs[name] = digest_output(output[1])
        if name == MODEL:
            self.logits = np.array(output[1])

    def gradient(self, key: Hashable, array: np.ndarray) -> None:
        """Keep nothing of the gradients between sublayers."""

    def finished(
        self,
        loss: np.ndarray,
        input_gradient: np.ndarray | None = None,
        parameter_gradients: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Keep the loss, and its gradients with respect to parameters and images."""
        self.loss, self.input_gradient = loss, input_gradient
        self.parameter_gradients = parameter_gradients or {}


def compare_digest(digest: Digest, golden: Golden, shapes: Mapping[str, Sequence[int]]) -> Report:
    """Compare one framework's Digest with the recorded numbers.

    Args:
        digest: of the golden's model, weights and batch. In float64 with gradients everything is compared, in float32
            the logits alone.
        golden: the recorded numbers.
        shapes: {PyTorch name: shape} of the model's state dict, in its order.

    Returns:
        The Report.
    """
    numbers = golden.numbers()
    if digest.dtype != "float64":
        allowed = tolerance.GOLDEN_FLOAT32_LOGITS
        rows = [_vector_row("output", MODEL, numbers["logits"], digest.logits, allowed)]
    else:
        rows = list(_rows(digest, golden, numbers, shapes))
    subject = {"golden": golden.name, "input": list(golden.input), "overrides": golden.overrides}
    versions = {digest.framework: digest.version}
    return Report(
        golden.model,
        digest.dtype,
        tuple(rows),
        versions=versions,
        subject=subject,
        reference=RECORDED,
        candidate=NAMES[digest.framework],
    )


def _rows(
    digest: Digest,
    golden: Golden,
    numbers: Mapping[str, np.ndarray],
    shapes: Mapping[str, Sequence[int]],
) -> Iterator[Row]:
    outputs, gradients = tolerance.GOLDEN[digest.framework]
    found = {name: tuple(shape) for name, shape in shapes.items()}
    expected = golden.state_dict
    if digest.framework == "paddle":  # which keeps no counter in its batch norms
        expected = {name: shape for name, shape in expected.items() if "num_batches_tracked" not in name}
    wrong = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    for name in wrong or [""] * (list(found) != list(expected)):
        yield Row("state dict", name or "order of names", found.get(name, ()), np.inf, np.inf, 0.0)
    for key, number in numbers.items():
        if key.startswith("act/"):
            name = key[len("act/") :]
            own = digest.outputs.get(name, np.full(number.shape, np.nan))
            yield _vector_row("output", name, number, own, outputs)
    yield _vector_row("output", MODEL, numbers["logits"], digest.logits, outputs)
    yield _vector_row("loss", "", numbers["loss"], digest.loss, outputs)

    wanted = {key[len("grad/") :]: number for key, number in numbers.items() if key.startswith("grad/")}
    floor = tolerance.GRADIENT_FLOOR * max(number[0] for number in wanted.values())
    for name in {**wanted, **digest.parameter_gradients}:
        gradient = digest.parameter_gradients.get(name)
        yield _gradient_row("parameter gradient", name, wanted.get(name), gradient, floor, gradients)
    yield _gradient_row("input gradient", "", numbers["grad_input"], digest.input_gradient, floor, gradients)


def digest_output(array: np.ndarray) -> np.ndarray:
    """Return [11]: mean, population standard deviation, largest absolute value, the first 8 elements."""
    array = np.asarray(array, "float64")
    return np.r_[array.mean(), array.std(), np.abs(array).max(), array.reshape(-1)[:8]]


def digest_gradient(array: np.ndarray) -> np.ndarray:
    """Return [6]: norm, sum, the first 4 elements."""
    return np.r_[np.linalg.norm(array), array.sum(), array.reshape(-1)[:4]]


def _vector_row(kind: str, name: str, golden: np.ndarray, found: np.ndarray | None, allowed: float) -> Row:
    """The largest difference by the largest recorded value."""
    found = np.asarray(np.nan if found is None else found, "float64")
    if found.shape != golden.shape:
        return Row(kind, name, found.shape, np.inf, np.inf, allowed)
    worst = float(np.abs(found - golden).max())
    return Row(kind, name, golden.shape, worst, worst / float(np.abs(golden).max() or 1), allowed)


def _gradient_row(
    kind: str,
    name: str,
    golden: np.ndarray | None,
    gradient: np.ndarray | None,
    floor: float,
    allowed: float,
) -> Row:
    """The norm by the recorded norm, the sum by norm and root of the size, elements by themselves or by the
    root mean square; the norm floored, for gradients that are zero by mathematics."""
    if golden is None or gradient is None:
        return Row(kind, name, (), np.inf, np.inf, allowed)
    size, root = max(golden[0], floor), np.sqrt(gradient.size)
    scale = np.r_[size, size * root, np.maximum(np.abs(golden[2:]), size / root)]
    difference = np.abs(digest_gradient(gradient) - golden)
    return Row(
        kind, name, gradient.shape, float(difference.max()), float((difference / scale).max()), allowed
    )
