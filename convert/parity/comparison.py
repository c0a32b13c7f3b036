"""Compare two recordings sublayer by sublayer and name the first that parts ways. Needs numpy alone."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field

import numpy as np

from paddle_inline.utils.errors import UserError

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
    # Where a float64 truth was at hand: PyTorch's and Paddle's distance from it, and Paddle's limit where
    # there is one: for what sublayers pass on, forward and backward. A parameter's gradient is a sum over the
    # whole batch, which Paddle adds term after term and PyTorch in blocks: measured, judged if noise.
    torch_distance: float | None = None
    paddle_distance: float | None = None
    allowed_distance: float | None = None

    @property
    def noise(self):
        """Whether PyTorch itself is further from the truth than the tolerance, so that agreement with it
        would show nothing: Paddle's distance alone is judged then."""
        return self.torch_distance is not None and self.tolerance < self.torch_distance < np.inf

    @property
    def passed(self):
        """Whether error and distance are within their limits; one that is not a number is not."""
        near = self.allowed_distance is None or self.paddle_distance <= self.allowed_distance
        return bool((self.noise or self.max_rel <= self.tolerance) and near)

    @property
    def ratio(self):
        """The error as a share of its tolerance; of noise, the distance as a share of its limit."""
        if self.noise:
            return self.paddle_distance / self.allowed_distance
        return self.max_rel / self.tolerance if self.tolerance else np.inf if self.max_rel else 0.0


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
        """The row (of these kinds, or of all) nearest to its tolerance or furthest beyond; None without.
        Noise that passed comes last."""
        rows = self.of_kind(*kinds) if kinds else self.rows
        rows = [row for row in rows if not (row.noise and row.passed)] or rows
        return max(rows, key=lambda row: np.inf if np.isnan(row.ratio) else row.ratio, default=None)

    @property
    def noise(self):
        """The rows whose reference is noise: see Row."""
        return [row for row in self.rows if row.noise]

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


def compare_recordings(reference: Recording, candidate: Recording, arbiter: Arbiter | None = None) -> Report:
    """The Report on two recordings of one model.

    Args:
        reference, candidate: PyTorch's and Paddle's, in one dtype.
        arbiter: has heard the float64 truth of the same (rounded) weights and images. Rows then fail too
            where the candidate is further from it than tolerance.py allows.
    Raises:
        ValueError: recordings of different models, dtypes or batches.
    """
    _check_same_subject(reference, candidate)
    head = candidate.framework, candidate.version, candidate.model, candidate.dtype
    comparison = candidate.replay(Comparison(reference, *head, arbiter))
    comparison.checksums(candidate.weights)
    comparison.steps(candidate.step_losses, candidate.step_weights)
    return comparison.report()


def _check_same_subject(reference, candidate):
    for what in ("model", "dtype"):
        ours, theirs = getattr(candidate, what), getattr(reference, what)
        if ours != theirs:
            raise UserError(f"recordings of different {what}s: {theirs} and {ours}; record the same twice")
    for what in sorted({*reference.subject, *candidate.subject}):
        ours, theirs = candidate.subject.get(what), reference.subject.get(what)
        if ours != theirs:
            raise UserError(f"recordings of different {what}: {theirs!r}, {ours!r}; record the same twice")


class Arbiter:
    """Listens to the float64 truth and measures how far two recordings are from it."""

    def __init__(self, reference, candidate):
        self.reference, self.candidate = reference, candidate
        self.theirs, self.ours = reference.by_name, candidate.by_name
        self.floor = gradient_floor(reference)
        self.distances = {}  # (kind, name) -> (reference's, candidate's)
        self.partners = {}  # key -> the names of the calls that it is the output of

    def called(self, name, kind, inputs, output):
        """A sublayer returned the truth."""
        key, truth = output
        if name in self.theirs and name in self.ours:
            self.partners.setdefault(key, []).append(name)
            pair = self.theirs[name].output.array, self.ours[name].output.array
            self.judge(("output", name), *pair, truth)

    def gradient(self, key, truth):
        """The true gradient by the tensor with this key."""
        for name in self.partners.get(key, ()):
            pair = self.theirs[name].output.gradient, self.ours[name].output.gradient
            if _both(*pair):
                self.judge(("output gradient", name), *pair, truth, self.floor)

    def finished(self, loss, input_gradient=None, parameter_gradients=None):
        """The true loss and gradients."""
        theirs, ours = self.reference, self.candidate
        self.judge(("loss", ""), theirs.loss, ours.loss, loss)
        for name, truth in (parameter_gradients or {}).items():
            pair = theirs.parameter_gradients.get(name), ours.parameter_gradients.get(name)
            if _both(*pair):
                self.judge(("parameter gradient", name), *pair, truth, self.floor)
        if _both(theirs.input_gradient, ours.input_gradient, input_gradient):
            pair = theirs.input_gradient, ours.input_gradient
            self.judge(("input gradient", ""), *pair, input_gradient, self.floor)

    def judge(self, what, reference, candidate, truth, floor=0):
        """Measure both, by the norm of the truth."""
        truth = np.asarray(truth, "float64")
        size = max(_norm(truth), floor) or 1
        self.distances[what] = tuple(
            _norm(np.asarray(side, "float64") - truth) / size if side.shape == truth.shape else np.inf
            for side in (reference, candidate)
        )


class Comparison:
    """Listens to one framework and compares with the other's recording, keeping rows and no arrays."""

    def __init__(self, reference, framework, version, model, dtype, arbiter=None):
        self.reference, self.arbiter = reference, arbiter
        self.versions = {reference.framework: reference.version, framework: version}
        self.candidate = framework
        self.dtype = dtype
        self.limits = {"output": tolerance.OUTPUT[dtype], "gradient": tolerance.GRADIENT[dtype]}
        self.floor = gradient_floor(reference)
        self.theirs = reference.by_name
        self.met = set()
        self.partners = {}  # key -> {(sublayer, place among its inputs; -1: its output): reference's Value}
        self.gradients = {}  # (sublayer, place) -> (row, excerpt if it failed)
        self.outputs, self.tail = [], []  # rows
        self.blamed = None
        self.results = {}

    def called(self, name, kind, inputs, output):
        """A sublayer returned."""
        call = self.theirs.get(name)
        if call is None:
            self.one_sided(name, kind, output[1], nan_first=True)
            return
        self.met.add(name)
        for place, ((key, _), theirs) in enumerate(zip((output, *inputs), (call.output, *call.inputs)), -1):
            self.partners.setdefault(key, {})[name, place] = theirs
        row = self.row("output", name, call.output.array, output[1])
        self.outputs.append(row)
        if name == MODEL:
            self.results["logits"] = np.array(output[1])
        if self.blamed is None and not row.passed and self.inputs_agree(call, inputs):
            self.blamed = _divergence(call.name, call.kind, row, call.output.array, output[1])

    def gradient(self, key, array):
        """The loss's gradient by the tensor with this key."""
        met = {}  # reference's Value -> (row, excerpt): mostly one for all places
        places = self.partners.get(key, {})
        source = next((name for name, place in places if place == -1), "")
        for where, theirs in places.items():
            if theirs.gradient is None:
                continue
            if theirs not in met:
                row = self.row("output gradient", source, theirs.gradient, array)
                met[theirs] = row, None if row.passed else _excerpt(theirs.gradient, array)
            self.gradients[where] = met[theirs]

    def finished(self, loss, input_gradient=None, parameter_gradients=None):
        """The pass is over: assemble the rows and find who is to blame."""
        for name, call in self.theirs.items():
            if name not in self.met:
                self.one_sided(name, call.kind, call.output.array)
        self.results["loss"] = np.array(loss)
        if self.reference.loss is not None:
            self.tail.append(self.row("loss", "", self.reference.loss, loss))
        failed = set()
        for name in reversed(self.theirs):
            if (name, -1) in self.gradients:
                row = self.gradients[name, -1][0]
                found = self.distances("output gradient", name, row.tolerance)
                row = dataclasses.replace(row, name=name, **found)
                self.tail.append(row)
                if not row.passed:
                    failed.add(name)
        wrong = {}  # sublayer -> its first wrong parameter gradient
        ours = parameter_gradients or {}
        for name, theirs in reversed(self.reference.parameter_gradients.items()):
            pair = theirs, ours.get(name, np.full(theirs.shape, np.nan))
            row = self.row("parameter gradient", name, *pair)
            self.tail.append(row)
            if not row.passed:
                wrong.setdefault(name.rpartition(".")[0] or MODEL, (row, *pair))
        if _both(self.reference.input_gradient, input_gradient):
            self.tail.append(self.row("input gradient", "", self.reference.input_gradient, input_gradient))
        if not all(row.passed for row in self.tail):
            self.blamed = self.blamed or self.blame_backward(failed, wrong)

    def blame_backward(self, failed, wrong):
        """The innermost sublayer that was told the right gradient and passes on, or keeps, a wrong one."""
        for name, call in self.theirs.items():
            if name in failed or name not in self.met:
                continue
            if name in wrong:
                return _divergence(name, call.kind, *wrong[name])
            for place in range(len(call.inputs)):
                row, excerpt = self.gradients.get((name, place), (None, None))
                if row is not None and not row.passed:
                    return Divergence(name, call.kind, "input gradient", row.shape, *excerpt)
        for name, found in wrong.items():
            return _divergence(name, self.theirs[name].kind if name in self.theirs else "", *found)
        return None

    def one_sided(self, name, kind, array, nan_first=False):
        """A failed row for a sublayer that only one side called."""
        pair = (array, np.full(array.shape, np.nan))
        row = self.row("output", name, *(reversed(pair) if nan_first else pair))
        self.outputs.append(row)
        self.blamed = self.blamed or _divergence(name, kind, row, *(reversed(pair) if nan_first else pair))

    def steps(self, losses, weights):
        """A training run: rows for each step's loss, then for each weight after the last step."""
        theirs = self.reference.step_losses
        if not _both(theirs, losses):
            return
        if len(theirs) != len(losses):
            raise UserError(f"recordings of {len(theirs)} and {len(losses)} steps; record the same number")
        self.results["step_losses"] = losses
        for step, pair in enumerate(zip(theirs, losses), 1):
            row = _row("step loss", f"step {step}", *pair, tolerance.STEP_LOSS, _relative_to_largest)
            self.tail.append(row)
        for name, weight in self.reference.step_weights.items():
            pair = weight, weights.get(name, np.full(weight.shape, np.nan))
            row = _row("step weight", name, *pair, tolerance.STEP_WEIGHT, _relative_to_norm)
            self.tail.append(row)
            if self.blamed is None and not row.passed:
                self.blamed = _divergence(name.rpartition(".")[0] or MODEL, "", row, *pair)

    def checksums(self, ours):
        """A row for each tensor of which both sides took a checksum, if they are not of the same bits."""
        theirs = self.reference.weights
        for name in {**theirs, **ours} if theirs and ours else ():
            if theirs.get(name) != ours.get(name):
                self.tail.append(Row("weight", name, (), np.inf, np.inf, tolerance.WEIGHT))

    def report(self):
        """The Report on what was heard."""
        labels = self.reference.subject.get("labels")
        theirs = self.reference
        reference = {"logits": theirs.logits, "loss": theirs.loss, "step_losses": theirs.step_losses}
        return Report(
            self.reference.model,
            self.dtype,
            (*self.outputs, *self.tail),
            self.blamed,
            self.versions,
            subject=self.reference.subject,
            results={
                self.reference.framework: results_of(labels=labels, **reference),
                self.candidate: results_of(labels=labels, **self.results),
            },
        )

    def inputs_agree(self, call, inputs):
        return len(call.inputs) == len(inputs) and all(
            self.row("output", "", theirs.array, array).passed
            for theirs, (_, array) in zip(call.inputs, inputs)
        )

    def row(self, kind, name, reference, candidate):
        if kind in ("output", "loss"):
            allowed, measure = self.limits["output"], _relative_to_largest
        else:
            allowed = self.limits["gradient"]
            of = _relative_to_norm if self.dtype == "bfloat16" else _relative_to_element
            measure = functools.partial(of, floor=self.floor)
        row = _row(kind, name, reference, candidate, allowed, measure)
        return dataclasses.replace(row, **self.distances(kind, name, allowed))

    def distances(self, kind, name, allowed):
        """The arbiter's part of a row with this tolerance."""
        found = self.arbiter and self.arbiter.distances.get((kind, name))
        if not found:
            return {}
        distances = {"torch_distance": found[0], "paddle_distance": found[1]}
        if kind in ("output", "output gradient", "input gradient") or found[0] > allowed:
            floor = tolerance.ARBITER_ULP * tolerance.ULP[self.dtype]
            distances["allowed_distance"] = tolerance.ARBITER_FACTOR * found[0] + floor
        return distances


def gradient_floor(recording):
    """The norm below which a gradient is rounding noise of the whole network's."""
    norms = [_norm(gradient) for gradient in recording.parameter_gradients.values()]
    return tolerance.GRADIENT_FLOOR * max(norms, default=0)


def results_of(logits, loss, labels=None, step_losses=None):
    """The few arrays by which Paddle's reproduction guide compares: {stage: {name: array}}."""
    results = {"forward": {"logits": np.array(logits)}, "loss": {"loss": np.array(loss)}}
    if labels is not None:
        order = np.argsort(-np.array(logits), axis=1, kind="stable")
        hits = order[:, :5] == np.array(labels)[:, None]
        results["metric"] = {"acc_top1": hits[:, :1].any(1).mean(), "acc_top5": hits.any(1).mean()}
    if step_losses is not None:
        results["losses"] = {f"loss_{step}": np.array(loss) for step, loss in enumerate(step_losses, 1)}
    return results


def _divergence(name, layer, row, reference, candidate):
    kind = "distance" if row.noise or row.max_rel <= row.tolerance else row.kind
    return Divergence(name, layer, kind, row.shape, *_excerpt(reference, candidate))


def _excerpt(reference, candidate, count=6):
    """(index of the largest difference, values from there along the last dimension on both sides)."""
    if reference.shape != candidate.shape or not reference.ndim:
        return (), *(tuple(float(v) for v in np.ravel(side)[:count]) for side in (reference, candidate))
    with np.errstate(invalid="ignore"):
        difference = np.abs(np.asarray(candidate, "float64") - reference)
    place = np.argmax(np.where(np.isnan(difference), np.inf, difference))
    *outer, last = (int(i) for i in np.unravel_index(place, difference.shape))
    start = max(0, min(last, reference.shape[-1] - count))
    pieces = (side[tuple(outer)][start : start + count] for side in (reference, candidate))
    return (*outer, last), *(tuple(float(v) for v in piece) for piece in pieces)


def _both(*items):
    return all(item is not None for item in items)


def _norm(array):
    return float(np.linalg.norm(np.asarray(array, "float64")))


def _row(kind, name, reference, candidate, allowed, measure):
    reference, candidate = np.asarray(reference), np.asarray(candidate)
    if reference.shape != candidate.shape:
        return Row(kind, name, reference.shape, np.inf, np.inf, allowed)
    with np.errstate(invalid="ignore"):  # infinities: the error is then not a number, and no row passes
        difference = np.abs(candidate.astype("float64") - reference)
        worst, error = float(difference.max(initial=0.0)), float(measure(difference, reference))
    return Row(kind, name, reference.shape, worst, error, allowed)


def _relative_to_largest(difference, reference):
    """Outputs: the largest difference by the largest value of the reference."""
    largest = np.abs(reference).max(initial=0)
    return difference.max(initial=0) / largest if largest else difference.max(initial=0)


def _relative_to_element(difference, reference, floor):
    """Gradients: each difference by its element, or by the tensor's root mean square if that is larger."""
    rms = max(_norm(reference), floor) / np.sqrt(max(reference.size, 1))
    scale = np.maximum(np.abs(reference), rms)
    return (difference / np.where(scale > 0, scale, 1)).max(initial=0)


def _relative_to_norm(difference, reference, floor=0):
    """Weights after training, and gradients in bfloat16, where single elements jump with every rounding that
    crosses a ReLU's zero: the norm of the difference by the norm of the reference."""
    size = max(_norm(reference), floor)
    return _norm(difference) / size if size else _norm(difference)
