"""The protocol of whatever records, compares or judges a model's forward and backward pass, sublayer by sublayer."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar, Protocol

import numpy as np

# A tensor that passes between sublayers: a key, the same whenever the same tensor comes again, and its values.
KeyedArray = tuple[Hashable, np.ndarray]


class Listener(Protocol):
    """Hears one forward pass of one model in one framework and, if there is one, the backward pass.

    `called` comes once for each call of a sublayer, when the call ends, so the innermost sublayers first; then
    `gradient` once for each of those tensors that the loss depends on; then `finished` once. Names and layouts are
    PyTorch's, whichever framework runs. capture.py tells it of a pass as it happens, `Recording.replay` of one that
    was kept. Recording (recording.py) keeps everything, Comparison (comparison.py) compares with the other framework's
    recording, Arbiter (arbiter.py) measures two recordings against this pass, Digest (golden.py) keeps a few numbers
    of each tensor.

    Attributes:
        wants_gradients: False: `gradient` need not be called, and gradients between sublayers are not read.
    """

    wants_gradients: ClassVar[bool]

    def called(self, name: str, kind: str, inputs: Sequence[KeyedArray], output: KeyedArray) -> None:
        """Hear that a call of a sublayer returned.

        Args:
            name: the sublayer's; from its second call on with "#2", "#3", ...
            kind: its class.
            inputs: the tensors among its arguments.
            output: the tensor that it returned.
        """

    def gradient(self, key: Hashable, array: np.ndarray) -> None:
        """Hear the gradient of the loss with respect to the tensor with this key."""

    def finished(
        self,
        loss: np.ndarray,
        input_gradient: np.ndarray | None = None,
        parameter_gradients: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Hear that the pass is over.

        Args:
            loss: the mean cross-entropy.
            input_gradient: its gradient with respect to the images; None for a forward pass alone.
            parameter_gradients: {PyTorch name: gradient in PyTorch's layout}; None for a forward pass alone.
        """


class ListenerFactory(Protocol):
    """Makes the listener for a pass from what is known before it begins."""

    def __call__(self, framework: str, version: str, model: str, dtype: str, /) -> Listener:
        """Return the listener for `model` in `framework` ("torch" or "paddle") of this version, run in `dtype`."""
