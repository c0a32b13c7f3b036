"""Recorded numbers of a model (goldens): a digest of each output and gradient, enough to convict.

With them one framework alone can be checked, on a machine that does not have the other. A folder holds
`manifest.json` and one `.npz` per entry: `logits`, `loss`, `act/<sublayer>` (mean, standard deviation,
largest absolute value, first 8 elements), `grad/<parameter>` and `grad_input` (norm, sum, first 4 elements),
all float64, in PyTorch's layout, with the weights and the batch of weights.py in eval mode.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_inline.utils.errors import MissingFileError

from . import tolerance
from .comparison import Report, Row
from .inputs import draw_images, draw_labels
from .recording import MODEL


@dataclass(frozen=True)
class Golden:
    """One entry: what to run, and where its numbers lie."""

    name: str
    model: str
    overrides: dict
    input: tuple[int, ...]  # [B, C, H, W]
    seed: int
    num_classes: int
    params: int
    state_dict: dict[str, tuple[int, ...]]  # names, in order, and PyTorch shapes
    path: Path

    def batch(self):
        """Images and labels."""
        return draw_images(self.input, self.seed), draw_labels(self.input[0], self.num_classes)

    def numbers(self):
        """{key: array}"""
        with np.load(self.path, allow_pickle=False) as file:
            return dict(file)


def read_goldens(folder):
    """{name: Golden} of a folder; FileNotFoundError or ValueError where there is none."""
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
    """Listens to one framework (capture.py) and keeps digests alone."""

    def __init__(self, framework, version, model, dtype):
        self.framework, self.version, self.dtype = framework, version, dtype
        self.outputs = {}  # {sublayer: digest}
        self.logits = self.loss = self.input_gradient = None
        self.parameter_gradients = {}

    def called(self, name, kind, inputs, output):
        """A sublayer returned."""
        self.outputs[name] = digest_output(output[1])
        if name == MODEL:
            self.logits = np.array(output[1])

    def finished(self, loss, input_gradient=None, parameter_gradients=None):
        """The pass is over."""
        self.loss, self.input_gradient = loss, input_gradient
        self.parameter_gradients = parameter_gradients or {}


def compare_digest(digest, golden, shapes):
    """The Report on one framework's Digest against the recorded numbers.

    Args:
        digest: of the golden's model, weights and batch. In float64 with gradients everything is compared,
            in float32 the logits alone.
        golden: a Golden.
        shapes: {PyTorch name: shape} of the model's state dict, in its order.
    """
    numbers = golden.numbers()
    if digest.dtype != "float64":
        allowed = tolerance.GOLDEN_FLOAT32_LOGITS
        rows = [_vector_row("output", MODEL, numbers["logits"], digest.logits, allowed)]
    else:
        rows = list(_rows(digest, golden, numbers, shapes))
    subject = {"golden": golden.name, "input": list(golden.input), "overrides": golden.overrides}
    versions = {digest.framework: digest.version}
    return Report(golden.model, digest.dtype, tuple(rows), versions=versions, subject=subject)


def _rows(digest, golden, numbers, shapes):
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


def digest_output(array):
    """[11]: mean, population standard deviation, largest absolute value, the first 8 elements."""
    array = np.asarray(array, "float64")
    return np.r_[array.mean(), array.std(), np.abs(array).max(), array.reshape(-1)[:8]]


def digest_gradient(array):
    """[6]: norm, sum, the first 4 elements."""
    return np.r_[np.linalg.norm(array), array.sum(), array.reshape(-1)[:4]]


def _vector_row(kind, name, golden, found, allowed):
    """The largest difference by the largest recorded value."""
    found = np.asarray(found, "float64")
    if found.shape != golden.shape:
        return Row(kind, name, found.shape, np.inf, np.inf, allowed)
    worst = float(np.abs(found - golden).max())
    return Row(kind, name, golden.shape, worst, worst / float(np.abs(golden).max() or 1), allowed)


def _gradient_row(kind, name, golden, gradient, floor, allowed):
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
