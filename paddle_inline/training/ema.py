"""An exponential moving average of a model's weights and buffers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import paddle

from .flat import Flat
from .guarded import select

FLOATS = (paddle.float32, paddle.float64, paddle.float16, paddle.bfloat16)


class Ema:
    """average <- decay * average + (1 - decay) * model, after every step.

    Floating buffers (BatchNorm statistics) are averaged like weights, whole numbers are copied.

    Args:
        model: the layer to follow; the average starts as a copy of it.
        decay: at least 0 and below 1.
        warmup: the decay grows with the steps (`decay_at`).
        fused: let a few kernels update all tensors of a type together, for GPUs (`flat`): the same bits.

    Attributes:
        go: [1] bool on the device, not read here: whether there was a step to take in; None: there was.
    """

    go: paddle.Tensor | None = None

    def __init__(
        self, model: paddle.nn.Layer, decay: float, *, warmup: bool = False, fused: bool = False
    ) -> None:
        self.decay, self.warmup = decay, warmup
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.flats: dict[str, tuple[list[str], Flat]] = {}
        if fused:
            types = dict.fromkeys(value.dtype for value in self.average.values())
            for dtype in (each for each in types if each in FLOATS):
                names = [name for name, value in self.average.items() if value.dtype == dtype]
                self.flats[str(dtype)] = names, Flat([self.average[name] for name in names])

    @paddle.no_grad()
    def update(self, model: paddle.nn.Layer, step: int = 1) -> None:
        """Take the model's present weights into the average, after step 1, 2, ... of the run."""
        decay = decay_at(step, self.decay) if self.warmup else self.decay
        own, together = model.state_dict(), set()
        for names, flat in self.flats.values():
            if flat.holds():
                together.update(names)
                self._take(flat.whole, flat.gathered([own[name] for name in names]), decay)
        for name, value in own.items():
            if name not in together:
                self._take(self.average[name], value.detach(), decay)

    def _take(self, average, value, decay):
        if average.dtype in FLOATS:
            value = average * decay + value * (1 - decay)
        if self.go is None:
            paddle.assign(value, output=average)
        else:
            select(self.go, value, average, output=average)

    @paddle.no_grad()
    def copy_from(self, model: paddle.nn.Layer) -> None:
        """Make the average equal to the model."""
        for name, value in model.state_dict().items():
            paddle.assign(value.detach(), output=self.average[name])

    @contextmanager
    def applied_to(self, model: paddle.nn.Layer) -> Iterator[paddle.nn.Layer]:
        """Give the model the average's weights inside this context, and its own again afterwards."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self._write(self.average, model)
        try:
            yield model
        finally:
            self._write(own, model)

    @staticmethod
    @paddle.no_grad()
    def _write(weights, model):
        for name, value in model.state_dict().items():
            paddle.assign(weights[name], output=value)


def decay_at(step: int, decay: float) -> float:
    """Return the decay after step 1, 2, ... under a warm-up: 0 at first, `decay` in the end.

    timm's ModelEmaV3 with use_warmup, warmup_gamma 1 and warmup_power 2/3.
    """
    return max(0.0, min(1 - max(step, 1) ** (-2 / 3), decay))


def initial_share(decay: float, steps: int, *, warmup: bool = False) -> float:
    """Return the share of the weights of the beginning in the average after so many steps."""
    return 0.0 if warmup and steps else decay**steps


def total_decay(decay: float, images_per_step: int, reference: int | None) -> float:
    """Return the decay of one step: `decay`, or, given for `reference` images, to the power of their share."""
    return decay if reference is None else decay ** (images_per_step / reference)
