"""Below float64 neither framework is right: the distance of both from the float64 truth decides. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from .listener import KeyedArray
from .metrics import gradient_floor, norm
from .recording import Recording


class Arbiter:
    """A Listener to the float64 truth that measures how far two recordings are from it.

    Attributes:
        distances: {(kind of row, name): (the reference's distance, the candidate's)}, by the norm of the truth.
    """

    wants_gradients: ClassVar[bool] = True

    def __init__(self, reference: Recording, candidate: Recording) -> None:
        self.sides = (reference, candidate)
        self.calls = (reference.by_name, candidate.by_name)
        self.floor = gradient_floor(reference)
        self.distances: dict[tuple[str, str], tuple[float, float]] = {}
        self.outputs_of: dict[
            Hashable, list[str]
        ] = {}  # key -> the names of the calls that it is the output of

    def called(self, name: str, kind: str, inputs: Sequence[KeyedArray], output: KeyedArray) -> None:
        """Measure a sublayer's output."""
        key, truth = output
        if all(name in calls for calls in self.calls):
            self.outputs_of.setdefault(key, []).append(name)
            self.judge("output", name, [calls[name].output.array for calls in self.calls], truth, 0)

    def gradient(self, key: Hashable, array: np.ndarray) -> None:
        """Measure the gradient of the loss with respect to a tensor."""
        for name in self.outputs_of.get(key, ()):
            self.judge("output gradient", name, [calls[name].output.gradient for calls in self.calls], array)

    def finished(
        self,
        loss: np.ndarray,
        input_gradient: np.ndarray | None = None,
        parameter_gradients: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Measure the loss, and its gradients with respect to parameters and images."""
        self.judge("loss", "", [side.loss for side in self.sides], loss, 0)
        for name, truth in (parameter_gradients or {}).items():
            found = [side.parameter_gradients.get(name) for side in self.sides]
            self.judge("parameter gradient", name, found, truth)
        self.judge("input gradient", "", [side.input_gradient for side in self.sides], input_gradient)

    def judge(
        self,
        kind: str,
        name: str,
        sides: Sequence[np.ndarray | None],
        truth: np.ndarray | None,
        floor: float | None = None,
    ) -> None:
        """Measure both sides' distance from the truth, if all three are there.

        Args:
            kind: of the row, with `name`.
            name: of the sublayer or parameter.
            sides: the reference's array and the candidate's.
            truth: the same in float64.
            floor: the smallest norm to measure by; None: that of gradients.
        """
        if truth is None or any(side is None for side in sides):
            return
        truth = np.asarray(truth, "float64")
        size = max(norm(truth), self.floor if floor is None else floor) or 1
        reference, candidate = (
            norm(np.asarray(side, "float64") - truth) / size if np.shape(side) == truth.shape else np.inf
            for side in sides
        )
        self.distances[kind, name] = reference, candidate
