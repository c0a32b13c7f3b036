"""The measures of difference between two arrays, and what a reader is shown of it. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import tolerance
from .recording import Recording

Measure = Callable[[np.ndarray, np.ndarray], float]  # (absolute differences, reference) -> error
# index of the largest difference, the reference's values from there along the last dimension, the candidate's
Excerpt = tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]]


def norm(array: Any) -> float:
    """Return the Euclidean norm of all elements, in float64."""
    return float(np.linalg.norm(np.asarray(array, "float64")))


def errors(reference: Any, candidate: Any, measure: Measure) -> tuple[float, float]:
    """Return (largest absolute difference, error by `measure`); both infinite where the shapes differ."""
    reference, candidate = np.asarray(reference), np.asarray(candidate)
    if reference.shape != candidate.shape:
        return np.inf, np.inf
    with np.errstate(invalid="ignore"):  # infinities: the error is then not a number, and no row passes
        difference = np.abs(candidate.astype("float64") - reference)
        return float(difference.max(initial=0.0)), float(measure(difference, reference))


def relative_to_largest(difference: np.ndarray, reference: np.ndarray) -> float:
    """Measure outputs: the largest difference by the largest value of the reference."""
    largest = np.abs(reference).max(initial=0)
    return difference.max(initial=0) / largest if largest else difference.max(initial=0)


def relative_to_element(difference: np.ndarray, reference: np.ndarray, floor: float) -> float:
    """Measure gradients: each difference by its element, or by the tensor's root mean square if that is larger."""
    rms = max(norm(reference), floor) / np.sqrt(max(reference.size, 1))
    scale = np.maximum(np.abs(reference), rms)
    return (difference / np.where(scale > 0, scale, 1)).max(initial=0)


def relative_to_norm(difference: np.ndarray, reference: np.ndarray, floor: float = 0) -> float:
    """Measure weights after training, and gradients in bfloat16, where single elements jump with every rounding that
    crosses a ReLU's zero: the norm of the difference by the norm of the reference."""
    size = max(norm(reference), floor)
    return norm(difference) / size if size else norm(difference)


def gradient_floor(recording: Recording) -> float:
    """Return the norm below which a gradient is rounding noise of the whole network's."""
    norms = [norm(gradient) for gradient in recording.parameter_gradients.values()]
    return tolerance.GRADIENT_FLOOR * max(norms, default=0)


def excerpt(reference: np.ndarray, candidate: np.ndarray, count: int = 6) -> Excerpt:
    """Return the index of the largest difference and `count` values of both sides from there."""
    if reference.shape != candidate.shape or not reference.ndim:
        first, second = (tuple(float(v) for v in np.ravel(side)[:count]) for side in (reference, candidate))
        return (), first, second
    with np.errstate(invalid="ignore"):
        difference = np.abs(np.asarray(candidate, "float64") - reference)
    place = np.argmax(np.where(np.isnan(difference), np.inf, difference))
    *outer, last = (int(i) for i in np.unravel_index(place, difference.shape))
    start = max(0, min(last, reference.shape[-1] - count))
    pieces = (side[tuple(outer)][start : start + count] for side in (reference, candidate))
    first, second = (tuple(float(v) for v in piece) for piece in pieces)
    return (*outer, last), first, second


def results_of(
    logits: Any, loss: Any, labels: Any = None, step_losses: np.ndarray | None = None
) -> Mapping[str, Mapping[str, Any]]:
    """Return the few arrays by which Paddle's reproduction guide compares: {stage: {name: array}}."""
    results = {"forward": {"logits": np.array(logits)}, "loss": {"loss": np.array(loss)}}
    if labels is not None:
        order = np.argsort(-np.array(logits), axis=1, kind="stable")
        hits = order[:, :5] == np.array(labels)[:, None]
        results["metric"] = {"acc_top1": hits[:, :1].any(1).mean(), "acc_top5": hits.any(1).mean()}
    if step_losses is not None:
        results["losses"] = {f"loss_{step}": np.array(loss) for step, loss in enumerate(step_losses, 1)}
    return results
