"""Compare two recordings sublayer by sublayer and name the first that differs. Needs numpy alone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from paddle_inline.utils.errors import UserError

from . import metrics, tolerance
from .arbiter import Arbiter
from .listener import KeyedArray
from .recording import MODEL, Call, Recording, Value
from .result import NAMES, Divergence, Report, Row


def compare_recordings(reference: Recording, candidate: Recording, arbiter: Arbiter | None = None) -> Report:
    """Compare two recordings of one model.

    Args:
        reference: PyTorch's recording.
        candidate: Paddle's, in the same dtype.
        arbiter: has heard the float64 truth of the same (rounded) weights and images. Rows then fail too where the
            candidate is further from it than tolerance.py allows.

    Returns:
        The Report.

    Raises:
        UserError: recordings of different models, dtypes or batches.
    """
    _check_same_subject(reference, candidate)
    head = candidate.framework, candidate.version, candidate.model, candidate.dtype
    comparison = candidate.replay(Comparison(reference, *head, arbiter))
    comparison.checksums(candidate.weights)
    comparison.steps(candidate.step_losses, candidate.step_weights)
    return comparison.report()


def _check_same_subject(reference: Recording, candidate: Recording) -> None:
    for what in ("model", "dtype"):
        pair = getattr(reference, what), getattr(candidate, what)
        if pair[0] != pair[1]:
            raise UserError(
                f"recordings of different {what}s: {pair[0]} and {pair[1]}; record the same twice"
            )
    for what in sorted({*reference.subject, *candidate.subject}):
        pair = reference.subject.get(what), candidate.subject.get(what)
        if pair[0] != pair[1]:
            raise UserError(
                f"recordings of different {what}: {pair[0]!r}, {pair[1]!r}; record the same twice"
            )


class Comparison:
    """A Listener to one framework that compares with the other's recording, keeping rows and no arrays.

    Attributes:
        reference: the other framework's Recording.
        first_mismatch: the Divergence to report, as soon as there is one.
        gradients: {(sublayer, place among its inputs; -1: its output): (row, excerpt if it failed)}.
    """

    wants_gradients: ClassVar[bool] = True

    def __init__(
        self,
        reference: Recording,
        framework: str,
        version: str,
        model: str,
        dtype: str,
        arbiter: Arbiter | None = None,
    ) -> None:
        self.reference, self.arbiter = reference, arbiter
        self.versions = {reference.framework: reference.version, framework: version}
        self.framework = framework
        self.dtype = dtype
        self.limits = {"output": tolerance.OUTPUT[dtype], "gradient": tolerance.GRADIENT[dtype]}
        self.floor = metrics.gradient_floor(reference)
        self.reference_calls = reference.by_name
        self.seen: set[str] = set()  # sublayers that both sides called
        self.counterparts: dict[
            Hashable, dict[tuple[str, int], Value]
        ] = {}  # key -> the reference's, by place
        self.gradients: dict[tuple[str, int], tuple[Row, metrics.Excerpt | None]] = {}
        self.outputs: list[Row] = []
        self.other_rows: list[Row] = []
        self.first_mismatch: Divergence | None = None
        self.results: dict[str, Any] = {}

    def called(self, name: str, kind: str, inputs: Sequence[KeyedArray], output: KeyedArray) -> None:
        """Compare a sublayer's output."""
        call = self.reference_calls.get(name)
        if call is None:
            self.one_sided(name, kind, output[1], candidate=True)
            return
        self.seen.add(name)
        for place, ((key, _), value) in enumerate(zip((output, *inputs), (call.output, *call.inputs)), -1):
            self.counterparts.setdefault(key, {})[name, place] = value
        row = self.row("output", name, call.output.array, output[1])
        self.outputs.append(row)
        if name == MODEL:
            self.results["logits"] = np.array(output[1])
        if self.first_mismatch is None and not row.passed and self.inputs_agree(call, inputs):
            self.first_mismatch = _divergence(call.name, call.kind, row, call.output.array, output[1])

    def gradient(self, key: Hashable, array: np.ndarray) -> None:
        """Compare the gradient of the loss with respect to a tensor, once for all places where it passes."""
        compared: dict[Value, tuple[Row, metrics.Excerpt | None]] = {}  # mostly one for all places
        places = self.counterparts.get(key, {})
        source = next((name for name, place in places if place == -1), "")
        for where, value in places.items():
            if value.gradient is None:
                continue
            if value not in compared:
                row = self.row("output gradient", source, value.gradient, array)
                compared[value] = row, None if row.passed else metrics.excerpt(value.gradient, array)
            self.gradients[where] = compared[value]

    def finished(
        self,
        loss: np.ndarray,
        input_gradient: np.ndarray | None = None,
        parameter_gradients: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Assemble the rows and find the first mismatch."""
        for name, call in self.reference_calls.items():
            if name not in self.seen:
                self.one_sided(name, call.kind, call.output.array, candidate=False)
        self.results["loss"] = np.array(loss)
        if self.reference.loss is not None:
            self.other_rows.append(self.row("loss", "", self.reference.loss, loss))
        failed = set()
        for name in reversed(self.reference_calls):
            if (name, -1) in self.gradients:
                row = self.gradients[name, -1][0]
                distances: dict[str, Any] = self.distances("output gradient", name, row.tolerance)
                row = dataclasses.replace(row, name=name, **distances)
                self.other_rows.append(row)
                if not row.passed:
                    failed.add(name)
        wrong: dict[str, tuple[Row, np.ndarray, np.ndarray]] = {}  # sublayer -> its first wrong gradient
        for name, reference in reversed(list(self.reference.parameter_gradients.items())):
            candidate = (parameter_gradients or {}).get(name, np.full(reference.shape, np.nan))
            row = self.row("parameter gradient", name, reference, candidate)
            self.other_rows.append(row)
            if not row.passed:
                wrong.setdefault(name.rpartition(".")[0] or MODEL, (row, reference, candidate))
        if self.reference.input_gradient is not None and input_gradient is not None:
            self.other_rows.append(
                self.row("input gradient", "", self.reference.input_gradient, input_gradient)
            )
        if self.first_mismatch is None and not all(row.passed for row in self.other_rows):
            self.first_mismatch = self.first_backward_mismatch(failed, wrong)

    def first_backward_mismatch(
        self, failed: set[str], wrong: Mapping[str, tuple[Row, np.ndarray, np.ndarray]]
    ) -> Divergence | None:
        """Return the innermost sublayer that received the right gradient and passes on, or keeps, a wrong one.

        Args:
            failed: sublayers whose outputs' gradients are wrong.
            wrong: {sublayer: (row, reference, candidate) of its first wrong parameter gradient}.
        """
        for name, call in self.reference_calls.items():
            if name in failed or name not in self.seen:
                continue
            if name in wrong:
                return _divergence(name, call.kind, *wrong[name])
            for place in range(len(call.inputs)):
                row, excerpt = self.gradients.get((name, place), (None, None))
                if row is not None and excerpt is not None:
                    return Divergence(name, call.kind, "input gradient", row.shape, *excerpt)
        for name, found in wrong.items():
            kind = self.reference_calls[name].kind if name in self.reference_calls else ""
            return _divergence(name, kind, *found)
        return None

    def one_sided(self, name: str, kind: str, array: np.ndarray, candidate: bool) -> None:
        """Add a failed row for a sublayer that only one side called: the candidate, or else the reference."""
        missing = np.full(array.shape, np.nan)
        pair = (missing, array) if candidate else (array, missing)
        row = self.row("output", name, *pair)
        self.outputs.append(row)
        self.first_mismatch = self.first_mismatch or _divergence(name, kind, row, *pair)

    def steps(self, losses: np.ndarray | None, weights: Mapping[str, np.ndarray]) -> None:
        """Compare a training run: rows for each step's loss, then for each weight after the last step."""
        reference = self.reference.step_losses
        if reference is None or losses is None:
            return
        if len(reference) != len(losses):
            raise UserError(f"recordings of {len(reference)} and {len(losses)} steps; record the same number")
        self.results["step_losses"] = losses
        for step, pair in enumerate(zip(reference, losses), 1):
            found = metrics.errors(*pair, metrics.relative_to_largest)
            self.other_rows.append(Row("step loss", f"step {step}", (), *found, tolerance.STEP_LOSS))
        for name, weight in self.reference.step_weights.items():
            pair = weight, weights.get(name, np.full(weight.shape, np.nan))
            found = metrics.errors(*pair, metrics.relative_to_norm)
            row = Row("step weight", name, weight.shape, *found, tolerance.STEP_WEIGHT)
            self.other_rows.append(row)
            if self.first_mismatch is None and not row.passed:
                self.first_mismatch = _divergence(name.rpartition(".")[0] or MODEL, "", row, *pair)

    def checksums(self, weights: Mapping[str, int]) -> None:
        """Add a row for each tensor of which both sides took a checksum, if they are not of the same bits."""
        reference = self.reference.weights
        for name in {**reference, **weights} if reference and weights else ():
            if reference.get(name) != weights.get(name):
                self.other_rows.append(Row("weight", name, (), np.inf, np.inf, tolerance.WEIGHT))

    def report(self) -> Report:
        """Return the Report on what was heard."""
        reference, labels = self.reference, self.reference.subject.get("labels")
        return Report(
            reference.model,
            self.dtype,
            (*self.outputs, *self.other_rows),
            self.first_mismatch,
            self.versions,
            subject=reference.subject,
            results={
                reference.framework: metrics.results_of(
                    reference.logits, reference.loss, labels, reference.step_losses
                ),
                self.framework: metrics.results_of(labels=labels, **self.results),
            },
            reference=NAMES.get(reference.framework, reference.framework),
            candidate=NAMES.get(self.framework, self.framework),
        )

    def inputs_agree(self, call: Call, inputs: Sequence[KeyedArray]) -> bool:
        """Return whether a call got the same on both sides."""
        return len(call.inputs) == len(inputs) and all(
            self.row("output", "", value.array, array).passed
            for value, (_, array) in zip(call.inputs, inputs)
        )

    def row(self, kind: str, name: str, reference: np.ndarray, candidate: np.ndarray) -> Row:
        """Return the row of a pair of tensors, measured and judged as its kind asks."""
        measure: metrics.Measure = metrics.relative_to_largest
        allowed = self.limits["output" if kind in ("output", "loss") else "gradient"]
        if kind not in ("output", "loss"):
            relative = metrics.relative_to_norm if self.dtype == "bfloat16" else metrics.relative_to_element
            measure = functools.partial(relative, floor=self.floor)
        found = metrics.errors(reference, candidate, measure)
        return Row(kind, name, np.shape(reference), *found, allowed, **self.distances(kind, name, allowed))

    def distances(self, kind: str, name: str, allowed: float) -> dict[str, float]:
        """Return the arbiter's part of a row with this tolerance."""
        found = self.arbiter and self.arbiter.distances.get((kind, name))
        if not found:
            return {}
        distances = {"torch_distance": found[0], "paddle_distance": found[1]}
        if kind in ("output", "output gradient", "input gradient") or found[0] > allowed:
            floor = tolerance.ARBITER_ULP * tolerance.ULP[self.dtype]
            distances["allowed_distance"] = tolerance.ARBITER_FACTOR * found[0] + floor
        return distances


def _divergence(name: str, layer: str, row: Row, reference: np.ndarray, candidate: np.ndarray) -> Divergence:
    kind = "distance" if row.noise or row.max_rel <= row.tolerance else row.kind
    return Divergence(name, layer, kind, row.shape, *metrics.excerpt(reference, candidate))
