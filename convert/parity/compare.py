"""Compare two recordings sublayer by sublayer and name the first that parts ways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import tolerance
from .capture import Recording, record_paddle, record_torch
from .weights import rule_batch, rule_weights


@dataclass(frozen=True)
class Row:
    """One compared tensor. Errors: the largest difference, absolute and by the measure of its kind."""

    kind: str  # "output", "output gradient", "parameter gradient", "input gradient", "loss"
    name: str
    shape: tuple[int, ...]
    max_abs: float
    max_rel: float
    tolerance: float

    @property
    def passed(self):
        """Whether the error is within the tolerance; one that is not a number is not."""
        return self.max_rel <= self.tolerance


@dataclass(frozen=True)
class Report:
    """The outcome of a comparison: every row, and the first sublayer that differs, if any."""

    model: str
    dtype: str
    rows: tuple[Row, ...]
    first_divergence: str | None  # the sublayer's name; in the backward pass the first from the loss
    versions: dict[str, str]

    @property
    def passed(self):
        """Whether every row passed."""
        return all(row.passed for row in self.rows)

    def worst(self, kind):
        """The row of this kind with the largest relative error, or None if there is none."""
        rows = [row for row in self.rows if row.kind == kind]
        return max(rows, key=lambda row: np.inf if np.isnan(row.max_rel) else row.max_rel, default=None)


def compare(name, weights=None, dtype="float64", seed=0, backward=True, batch=2, **overrides):
    """Run one model in both frameworks on the same batch and compare every named sublayer.

    Args:
        name: one of `list_models()`; `overrides`: as for `create_model`.
        weights: a `.pdparams` file (or {Paddle name: array}); None draws test weights in which
            every tensor matters (weights.py).
        dtype: "float64", "float32" or "bfloat16": that of weights, input and computation.
        seed: of the test weights and the batch.
        backward: compare gradients too: of every sublayer's output, every parameter, the input.
        batch: images in the batch.
    Returns:
        A Report.
    Raises:
        ValueError: as `create_model` and `load_weights` do; an unknown dtype.
    """
    ours, theirs = create_pair(name, weights, seed, **overrides)
    return compare_models(ours, theirs, dtype, seed, backward, batch)


def create_pair(name, weights=None, seed=0, **overrides):
    """(paddle_inline model, torch_ref model) in eval mode with the same weights, float64 test weights if
    `weights` is None. Arguments and errors as for `compare`."""
    import torch

    import paddle_inline
    import torch_ref

    from ..translate import paddle_to_torch, torch_to_paddle

    ours = paddle_inline.create_model(name, **overrides)
    theirs = torch_ref.create_model(name, **overrides)
    if weights is None:
        template = {key: value.numpy() for key, value in theirs.state_dict().items()}
        state = rule_weights(template, seed)
        ours.to(dtype="float64")
        theirs.double()
        paddle_inline.load_weights(ours, torch_to_paddle(state, ours))
    else:
        paddle_inline.load_weights(ours, weights)
        state = paddle_to_torch({key: value.numpy() for key, value in ours.state_dict().items()}, ours)
    theirs.load_state_dict({key: torch.as_tensor(value) for key, value in state.items()})
    ours.eval()
    theirs.eval()
    return ours, theirs


def compare_models(ours, theirs, dtype="float64", seed=0, backward=True, batch=2):
    """`compare` for two models that exist: a paddle.nn.Layer and its torch.nn.Module twin."""
    check_frameworks()
    if dtype not in tolerance.OUTPUT:
        raise ValueError(f"dtype {dtype!r} must be one of {', '.join(tolerance.OUTPUT)}")
    images, labels = rule_batch(ours.spec, batch, seed)
    reference = record_torch(theirs, images, labels, dtype, backward)
    candidate = record_paddle(ours, images, labels, dtype, backward)
    return compare_recordings(reference, candidate, getattr(ours, "name", type(ours).__name__), dtype)


def check_frameworks():
    """Refuse to compare Paddle with itself: after `paddle.enable_compat()`, `import torch` is Paddle."""
    import paddle
    import torch

    if torch is paddle or "paddle" in (getattr(torch, "__file__", None) or "paddle"):
        raise RuntimeError(
            f"`import torch` gives {torch!r}, not PyTorch: paddle.enable_compat() is on; "
            "start a new process without it"
        )


def compare_recordings(reference: Recording, candidate: Recording, model: str, dtype: str) -> Report:
    """The Report on two recordings of one model: numpy only, no framework needed."""
    outputs, gradients = tolerance.OUTPUT[dtype], tolerance.GRADIENT[dtype]
    ours, theirs = ({call.name: call for call in r.calls} for r in (candidate, reference))
    if list(ours) != list(theirs):
        missing = [n for n in [*ours, *theirs] if n not in ours or n not in theirs]
        raise ValueError(f"the two models do not call the same sublayers in the same order: {missing[:8]}")
    floor = tolerance.GRADIENT_FLOOR * max(
        (np.linalg.norm(g) for g in reference.parameter_gradients.values()), default=0
    )
    rows, blamed = [], None
    for name, call in theirs.items():
        row = _row("output", name, call.output, ours[name].output, outputs, _relative_to_largest)
        rows.append(row)
        if blamed is None and not row.passed and _agree(call.inputs, ours[name].inputs, outputs):
            blamed = name
    rows.append(_row("loss", "", reference.loss, candidate.loss, outputs, _relative_to_largest))

    def gradient_row(kind, name, theirs, ours):
        return _row(kind, name, theirs, ours, gradients, lambda d, r: _relative_to_element(d, r, floor))

    for name, call in reversed(theirs.items()):
        if call.gradient is not None and ours[name].gradient is not None:
            rows.append(gradient_row("output gradient", name, call.gradient, ours[name].gradient))
    for name, gradient in reversed(reference.parameter_gradients.items()):
        rows.append(gradient_row("parameter gradient", name, gradient, candidate.parameter_gradients[name]))
    if reference.input_gradient is not None:
        rows.append(gradient_row("input gradient", "", reference.input_gradient, candidate.input_gradient))
    if blamed is None:
        blamed = next((_owner(row) for row in rows if not row.passed), None)
    versions = {r.framework: r.version for r in (reference, candidate)}
    return Report(model, dtype, tuple(rows), blamed, versions)


def _owner(row):
    """The sublayer that a failed row speaks of."""
    return row.name.rsplit(".", 1)[0] if row.kind == "parameter gradient" else row.name or row.kind


def _row(kind, name, reference, candidate, allowed, measure):
    if reference.shape != candidate.shape:
        return Row(kind, name, reference.shape, np.inf, np.inf, allowed)
    difference = np.abs(candidate.astype("float64") - reference.astype("float64"))
    worst = float(difference.max()) if difference.size else 0.0
    return Row(kind, name, reference.shape, worst, float(measure(difference, reference)), allowed)


def _relative_to_largest(difference, reference):
    """Outputs: the largest difference by the largest value of the reference."""
    largest = np.abs(reference).max(initial=0)
    return difference.max(initial=0) / largest if largest else difference.max(initial=0)


def _relative_to_element(difference, reference, floor):
    """Gradients: each difference by its element, or by the tensor's root mean square if that is larger."""
    rms = max(np.linalg.norm(reference.astype("float64")), floor) / np.sqrt(max(reference.size, 1))
    scale = np.maximum(np.abs(reference), rms)
    return (difference / np.where(scale > 0, scale, 1)).max(initial=0)


def _agree(theirs, ours, allowed):
    return len(theirs) == len(ours) and all(
        _row("input", "", a, b, allowed, _relative_to_largest).passed for a, b in zip(theirs, ours)
    )
