"""What a model costs: parameters, and the multiply-adds of one image.

Multiply-adds are those of matrix products and convolutions, which is what the papers count as FLOPs:
layers and bare products alike, so attention's are in. They are counted as the model runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import nn

from .compiled import paused

CONVOLUTIONS = (nn.Conv1D, nn.Conv2D, nn.Conv3D)


@dataclass(frozen=True)
class Profile:
    """What was counted.

    Attributes:
        params: trainable numbers; a BatchNorm's running statistics are none.
        macs: multiply-adds of one image by kind, "Linear" and "convolution" layers, and outside layers
            "matmul" and "conv2d": in these models attention's own products and its local filter.
    """

    params: int
    macs: dict[str, int]

    @property
    def total(self) -> int:
        """All multiply-adds of one image."""
        return sum(self.macs.values())


@contextmanager
def counted_macs(model: nn.Layer) -> Iterator[Counter[str]]:
    """Count the multiply-adds of what `model` does inside the `with` block, by kind, in a Counter.

    Linear and convolution layers are counted by hooks; outside layers, `paddle.matmul` and `F.conv2d` are,
    which are replaced inside the block: no other thread should use Paddle then.
    """
    macs: Counter[str] = Counter()

    def count_linear(layer: nn.Layer, inputs: Any, output: paddle.Tensor) -> None:
        macs["Linear"] += math.prod(output.shape) * layer.weight.shape[0]

    def count_convolution(layer: nn.Layer, inputs: Any, output: paddle.Tensor) -> None:
        macs["convolution"] += math.prod(output.shape) * math.prod(layer.weight.shape[1:])

    def matmul(x, y, transpose_x=False, *rest, **named):
        output = product(x, y, transpose_x, *rest, **named)
        macs["matmul"] += math.prod(output.shape) * x.shape[-2 if transpose_x else -1]
        return output

    def conv2d(x, weight, *rest, **named):
        output = convolve(x, weight, *rest, **named)
        macs["conv2d"] += math.prod(output.shape) * math.prod(weight.shape[1:])
        return output

    product, convolve = paddle.matmul, F.conv2d
    with ExitStack() as undo:
        for layer in model.sublayers(include_self=True):
            if isinstance(layer, nn.Linear):
                undo.callback(layer.register_forward_post_hook(count_linear).remove)
            elif isinstance(layer, CONVOLUTIONS):
                undo.callback(layer.register_forward_post_hook(count_convolution).remove)
        undo.enter_context(paused())
        undo.enter_context(_replaced(paddle, "matmul", matmul))
        undo.enter_context(_replaced(F, "conv2d", conv2d))
        yield macs


@contextmanager
def _replaced(module: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, original)


def profile(model: nn.Layer, shape: Sequence[int] | None = None) -> Profile:
    """Count a model's parameters and the multiply-adds of one image.

    Args:
        model: a paddle.nn.Layer; it is run once in eval mode and left in the mode it was in.
        shape: the image, (channels, height, width); None: what the model was built for.
    """
    if shape is None:
        size = model.spec.img_size
        shape = (model.spec.in_chans, *((size, size) if isinstance(size, int) else size))
    training = model.training
    model.eval()
    try:
        with paddle.no_grad(), counted_macs(model) as macs:
            model(paddle.zeros([1, *shape]))
    finally:
        if training:
            model.train()
    params = sum(math.prod(tensor.shape) for tensor in model.parameters() if not tensor.stop_gradient)
    return Profile(params, dict(macs))
