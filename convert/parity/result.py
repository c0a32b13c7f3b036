"""The outcome of a comparison: a row for each tensor, the first divergence, the report. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .recording import describe_machine

NAMES = {"torch": "PyTorch", "paddle": "Paddle"}  # of the frameworks, for readers
RECORDED = "recorded numbers"  # a reference that is no framework


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
    def noise(self) -> bool:
        """Whether PyTorch itself is further from the truth than the tolerance, so that agreement with it
        would show nothing: Paddle's distance alone is judged then."""
        return self.torch_distance is not None and self.tolerance < self.torch_distance < np.inf

    @property
    def passed(self) -> bool:
        """Whether error and distance are within their limits; one that is not a number is not."""
        distance, allowed = self.paddle_distance, self.allowed_distance
        near = distance is None or allowed is None or distance <= allowed
        return bool((self.noise or self.max_rel <= self.tolerance) and near)

    @property
    def ratio(self) -> float:
        """The error as a share of its tolerance; of noise, the distance as a share of its limit."""
        if self.noise and self.paddle_distance is not None and self.allowed_distance is not None:
            return self.paddle_distance / self.allowed_distance
        return self.max_rel / self.tolerance if self.tolerance else np.inf if self.max_rel else 0.0


@dataclass(frozen=True)
class Divergence:
    """The first sublayer that differs: its inputs agree and its output (or, backwards, the gradient that it passes
    on) does not."""

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
    subject: dict[str, Any] = field(default_factory=dict)  # seed, batch, weights, overrides
    seconds: float = 0.0
    results: Mapping[str, Any] = field(default_factory=dict)  # {framework: see metrics.results_of}
    reference: str = "PyTorch"  # what was compared with, and what was compared, for readers
    candidate: str = "Paddle"

    @property
    def passed(self) -> bool:
        """Whether every row passed, and there was one."""
        return bool(self.rows) and all(row.passed for row in self.rows)

    @property
    def first_divergence(self) -> str | None:
        """The name of the first sublayer that differs, or None."""
        return self.divergence.name if self.divergence else None

    def of_kind(self, *kinds: str) -> list[Row]:
        """The rows of these kinds, in the order in which they were computed."""
        return [row for row in self.rows if row.kind in kinds]

    def worst(self, *kinds: str) -> Row | None:
        """The row (of these kinds, or of all) nearest to its tolerance or furthest beyond; None without.
        Noise that passed comes last."""
        rows = self.of_kind(*kinds) if kinds else self.rows
        rows = [row for row in rows if not (row.noise and row.passed)] or rows
        return max(rows, key=lambda row: np.inf if np.isnan(row.ratio) else row.ratio, default=None)

    @property
    def noise(self) -> list[Row]:
        """The rows whose reference is noise: see Row."""
        return [row for row in self.rows if row.noise]

    def further_from_truth(self) -> tuple[int, int] | None:
        """(PyTorch, Paddle): on how many tensors each is further from the float64 truth than the other, by a
        tenth at least; None where there was no truth to compare with."""
        judged = [
            (row.torch_distance, row.paddle_distance)
            for row in self.rows
            if row.torch_distance is not None and row.paddle_distance is not None
        ]
        if not judged:
            return None
        return sum(torch > 1.1 * paddle for torch, paddle in judged), sum(
            paddle > 1.1 * torch for torch, paddle in judged
        )

    def most_disputed(self) -> Row | None:
        """The row where Paddle is furthest from the truth beyond PyTorch, by the limit; None without one."""
        judged = [
            (row.paddle_distance / row.allowed_distance, row)
            for row in self.rows
            if row.paddle_distance is not None and row.allowed_distance
        ]
        return max(judged, key=lambda pair: pair[0], default=(0.0, None))[1]
