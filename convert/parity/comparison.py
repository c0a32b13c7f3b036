"""Compare two recordings sublayer by sublayer and name the first that parts ways. Needs numpy alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from . import tolerance
from .recording import MODEL, Recording, describe_machine


@dataclass(frozen=True)
class Row:
    """One compared tensor. Errors: the largest difference, absolute and by the measure of its kind."""

    kind: str  # "output", "output gradient", "parameter gradient", "input gradient", "loss", "step ..."
    name: str  # of the sublayer or parameter; empty for the loss and the input
    shape: tuple[int, ...]
    max_abs: float
    max_rel: float
    tolerance: float
    # Where a float64 truth was at hand: PyTorch's and Paddle's distance from it, and Paddle's limit.
    torch_distance: float | None = None
    paddle_distance: float | None = None
    allowed_distance: float | None = None

    @property
    def passed(self):
        """Whether error and distance are within their limits; one that is not a number is not."""
        near = self.allowed_distance is None or self.paddle_distance <= self.allowed_distance
        return bool(self.max_rel <= self.tolerance and near)

    @property
    def ratio(self):
        """The error as a share of its tolerance."""
        return self.max_rel / self.tolerance


@dataclass(frozen=True)
class Divergence:
    """Where two recordings first part: its inputs agree and its output (or, backwards, the gradient that it
    passes on) does not."""

    name: str  # of the sublayer
    layer: str  # its class
    kind: str  # of the row that failed; "distance" if it is the arbiter that objects
    shape: tuple[int, ...]
    index: tuple[int, ...]  # of the largest difference
    reference: tuple[float, ...]  # the values from there along the last dimension
    candidate: tuple[float, ...]


@dataclass(frozen=True)
class Report:
    """The outcome of a comparison."""

    model: str
    dtype: str
    rows: tuple[Row, ...]
    divergence: Divergence | None = None
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = field(default_factory=describe_machine)
    subject: dict = field(default_factory=dict)  # seed, batch, weights, overrides
    seconds: float = 0.0
    results: dict[str, dict] = field(default_factory=dict)  # {framework: see results_of}

    @property
    def passed(self):
        """Whether every row passed, and there was one."""
        return bool(self.rows) and all(row.passed for row in self.rows)

    @property
    def first_divergence(self):
        """The name of the first sublayer that differs, or None."""
        return self.divergence.name if self.divergence else None

    def of_kind(self, *kinds):
        """The rows of these kinds, in the order in which they were computed."""
        return [row for row in self.rows if row.kind in kinds]

    def worst(self, *kinds):
        """The row (of these kinds, or of all) nearest to its tolerance or furthest beyond; None without."""
        rows = self.of_kind(*kinds) if kinds else self.rows
        return max(rows, key=lambda row: np.inf if np.isnan(row.ratio) else row.ratio, default=None)

    def further_from_truth(self):
        """(PyTorch, Paddle): on how many tensors each is further from the float64 truth than the other, by a
        tenth at least; None where there was no truth to compare with."""
        judged = [row for row in self.rows if row.torch_distance is not None]
        if not judged:
            return None
        return (
            sum(row.torch_distance > 1.1 * row.paddle_distance for row in judged),
            sum(row.paddle_distance > 1.1 * row.torch_distance for row in judged),
        )

    def most_disputed(self):
        """The row where Paddle is furthest from the truth beyond PyTorch, by the limit; None without one."""
        judged = [row for row in self.rows if row.allowed_distance]
        return max(judged, key=lambda row: row.paddle_distance / row.allowed_distance, default=None)


def compare_recordings(reference: Recording, candidate: Recording, truth: Recording | None = None) -> Report:
    """The Report on two recordings of one model.

    Args:
        reference, candidate: PyTorch's and Paddle's, in one dtype.
        truth: a float64 recording with the same (rounded) weights and images: the arbiter. Rows then fail
            too where the candidate is further from it than tolerance.py allows.
    Raises:
        ValueError: recordings of different models, dtypes or batches.
    """
    _check_same_subject(reference, candidate)
    return _Comparison(reference, candidate, truth).report()


def _check_same_subject(reference, candidate):
    for what in ("model", "dtype"):
        ours, theirs = getattr(candidate, what), getattr(reference, what)
        if ours != theirs:
            raise ValueError(f"recordings of different {what}s: {theirs} and {ours}; record the same twice")
    for what in sorted({*reference.subject, *candidate.subject}):
        ours, theirs = candidate.subject.get(what), reference.subject.get(what)
        if ours != theirs:
            raise ValueError(f"recordings of different {what}: {theirs!r}, {ours!r}; record the same twice")


class _Comparison:
    """Rows are added in the order of computation; the first culprit of each direction is kept."""

    def __init__(self, reference, candidate, truth):
        self.reference, self.candidate, self.truth = reference, candidate, truth
        self.dtype = reference.dtype
        self.outputs, self.gradients = tolerance.OUTPUT[self.dtype], tolerance.GRADIENT[self.dtype]
        self.theirs = {call.name: call for call in reference.calls}
        self.ours = {call.name: call for call in candidate.calls}
        self.truths = {call.name: call for call in truth.calls} if truth else {}
        self.floor = tolerance.GRADIENT_FLOOR * max(
            (_norm(g) for g in reference.parameter_gradients.values()), default=0
        )
        self.rows = []

    def report(self):
        divergence = self.forward() or self.missing()
        if self.reference.loss is not None:
            truth = self.truth.loss if self.truth else None
            self.add("loss", "", self.reference.loss, self.candidate.loss, truth)
        divergence = self.backward() if divergence is None else (self.backward(), divergence)[1]
        self.steps()
        self.weights()
        return Report(
            self.reference.model,
            self.dtype,
            tuple(self.rows),
            divergence,
            {r.framework: r.version for r in (self.reference, self.candidate)},
            subject=self.reference.subject,
            results={r.framework: results_of(r) for r in (self.reference, self.candidate)},
        )

    def forward(self):
        blamed = None
        for name, call in self.theirs.items():
            if name not in self.ours:
                continue
            truth = self.truths[name].output.array if name in self.truths else None
            row = self.add("output", name, call.output.array, self.ours[name].output.array, truth)
            if blamed is None and not row.passed and self.inputs_agree(name):
                blamed = self.divergence(name, row, call.output.array, self.ours[name].output.array)
        return blamed

    def missing(self):
        """Rows for sublayers that only one side called."""
        blamed = None
        for calls, others in ((self.theirs, self.ours), (self.ours, self.theirs)):
            for name, call in calls.items():
                if name not in others:
                    nothing = np.full(call.output.array.shape, np.nan)
                    pair = (
                        (call.output.array, nothing) if calls is self.theirs else (nothing, call.output.array)
                    )
                    row = self.add("output", name, *pair)
                    blamed = blamed or self.divergence(name, row, *pair)
        return blamed

    def backward(self):
        failed = {}
        for name, call in reversed(self.theirs.items()):
            ours = self.ours.get(name)
            if ours is not None and _both(call.output.gradient, ours.output.gradient):
                truth = self.truths[name].output.gradient if name in self.truths else None
                row = self.add("output gradient", name, call.output.gradient, ours.output.gradient, truth)
                if not row.passed:
                    failed[name] = row
        theirs, ours = self.reference.parameter_gradients, self.candidate.parameter_gradients
        truths = self.truth.parameter_gradients if self.truth else {}
        wrong = {}
        for name, gradient in reversed(theirs.items()):
            other = ours.get(name, np.full(gradient.shape, np.nan))
            row = self.add("parameter gradient", name, gradient, other, truths.get(name))
            if not row.passed:
                wrong.setdefault(name.rpartition(".")[0] or MODEL, (row, gradient, other))
        pair = self.reference.input_gradient, self.candidate.input_gradient
        if _both(*pair):
            self.add("input gradient", "", *pair, self.truth.input_gradient if self.truth else None)
        return self.blame_backward(failed, wrong)

    def blame_backward(self, failed, wrong):
        """The innermost sublayer that was told the right gradient and passes on, or keeps, a wrong one."""
        for name, call in self.theirs.items():
            if name in failed or name not in self.ours:
                continue
            if name in wrong:
                return self.divergence(name, *wrong[name])
            for theirs, ours in zip(call.inputs, self.ours[name].inputs):
                if theirs is call.output or not _both(theirs.gradient, ours.gradient):
                    continue
                row = self.row("input gradient", name, theirs.gradient, ours.gradient)
                if not row.passed:
                    return self.divergence(name, row, theirs.gradient, ours.gradient)
        for name, found in wrong.items():
            return self.divergence(name, *found)
        return None

    def steps(self):
        """Rows of a training run: each step's loss, then each weight after the last step."""
        theirs, ours = self.reference.step_losses, self.candidate.step_losses
        if not _both(theirs, ours):
            return
        if len(theirs) != len(ours):
            raise ValueError(f"recordings of {len(theirs)} and {len(ours)} steps; record the same number")
        for step, pair in enumerate(zip(theirs, ours), 1):
            self.rows.append(
                _row("step loss", f"step {step}", *pair, tolerance.STEP_LOSS, _relative_to_largest)
            )
        for name, weight in self.reference.step_weights.items():
            other = self.candidate.step_weights[name]
            self.rows.append(
                _row("step weight", name, weight, other, tolerance.STEP_WEIGHT, _relative_to_norm)
            )

    def weights(self):
        """A row for each tensor of which both sides took a checksum, if they are not of the same bits."""
        theirs, ours = self.reference.weights, self.candidate.weights
        for name in {**theirs, **ours} if theirs and ours else ():
            if theirs.get(name) != ours.get(name):
                self.rows.append(Row("weight", name, (), np.inf, np.inf, tolerance.WEIGHT))

    def inputs_agree(self, name):
        pairs = list(zip(self.theirs[name].inputs, self.ours[name].inputs))
        return len(self.theirs[name].inputs) == len(self.ours[name].inputs) and all(
            self.row("output", "", a.array, b.array).passed for a, b in pairs
        )

    def add(self, kind, name, reference, candidate, truth=None):
        self.rows.append(self.row(kind, name, reference, candidate, truth))
        return self.rows[-1]

    def row(self, kind, name, reference, candidate, truth=None):
        if kind in ("output", "loss"):
            allowed, measure, floor = self.outputs, _relative_to_largest, 0
        else:
            allowed, floor = self.gradients, self.floor
            measure = lambda d, r: _relative_to_element(d, r, floor)  # noqa: E731
        distances = ()
        if truth is not None:
            distances = self.distances(reference, candidate, truth, floor)
        return _row(kind, name, reference, candidate, allowed, measure, distances)

    def distances(self, reference, candidate, truth, floor):
        """Of both from the truth, by its norm; and what the candidate is allowed."""
        size = max(_norm(truth), floor) or 1
        theirs, ours = (
            _norm(np.asarray(side, "float64") - truth) / size if side.shape == truth.shape else np.inf
            for side in (reference, candidate)
        )
        ulp = tolerance.ULP[self.dtype]
        return theirs, ours, tolerance.ARBITER_FACTOR * theirs + tolerance.ARBITER_ULP * ulp

    def divergence(self, name, row, reference, candidate):
        layer = (self.theirs.get(name) or self.ours.get(name) or _Unnamed).kind
        index = ()
        if reference.shape == candidate.shape and reference.ndim:
            with np.errstate(invalid="ignore"):
                difference = np.abs(np.asarray(candidate, "float64") - reference)
            flat = np.argmax(np.where(np.isnan(difference), np.inf, difference))
            index = tuple(int(i) for i in np.unravel_index(flat, difference.shape))
        values = [tuple(float(v) for v in _from(side, index)) for side in (reference, candidate)]
        kind = "distance" if row.max_rel <= row.tolerance else row.kind
        return Divergence(name, layer, kind, tuple(reference.shape), index, *values)


def results_of(recording):
    """The few arrays of a recording by which Paddle's reproduction guide compares: {stage: {name: array}}."""
    results = {"forward": {"logits": np.array(recording.logits)}, "loss": {"loss": np.array(recording.loss)}}
    labels = recording.subject.get("labels")
    if labels is not None:
        order = np.argsort(-recording.logits, axis=1, kind="stable")
        hits = order[:, :5] == np.array(labels)[:, None]
        results["metric"] = {"acc_top1": hits[:, :1].any(1).mean(), "acc_top5": hits.any(1).mean()}
    if recording.step_losses is not None:
        steps = enumerate(np.array(recording.step_losses), 1)
        results["losses"] = {f"loss_{step}": np.array(loss) for step, loss in steps}
    return results


class _Unnamed:
    kind = ""


def _from(array, index, count=6):
    """Up to `count` values from `index` on along the last dimension."""
    if not index:
        return np.ravel(array)[:count]
    start = max(0, min(index[-1], array.shape[-1] - count))
    return array[index[:-1]][start : start + count]


def _both(*items):
    return all(item is not None for item in items)


def _norm(array):
    return float(np.linalg.norm(np.asarray(array, "float64")))


def _row(kind, name, reference, candidate, allowed, measure, distances=()):
    reference, candidate = np.asarray(reference), np.asarray(candidate)
    if reference.shape != candidate.shape:
        return Row(kind, name, reference.shape, np.inf, np.inf, allowed)
    difference = np.abs(candidate.astype("float64") - reference)
    worst = float(difference.max(initial=0.0))
    return Row(kind, name, reference.shape, worst, float(measure(difference, reference)), allowed, *distances)


def _relative_to_largest(difference, reference):
    """Outputs: the largest difference by the largest value of the reference."""
    largest = np.abs(reference).max(initial=0)
    return difference.max(initial=0) / largest if largest else difference.max(initial=0)


def _relative_to_element(difference, reference, floor):
    """Gradients: each difference by its element, or by the tensor's root mean square if that is larger."""
    rms = max(_norm(reference), floor) / np.sqrt(max(reference.size, 1))
    scale = np.maximum(np.abs(reference), rms)
    return (difference / np.where(scale > 0, scale, 1)).max(initial=0)


def _relative_to_norm(difference, reference):
    """Weights after training: the norm of the difference by the norm of the weight."""
    size = _norm(reference)
    return _norm(difference) / size if size else _norm(difference)
