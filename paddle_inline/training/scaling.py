"""The loss scale of float16, whose every decision stays on the device.

Small gradients would be 0 in float16: the loss is multiplied by a scale and the gradients divided by it. A step whose
gradients overflow is left out and lowers the scale; many good ones in a row raise it (Micikevicius et al., ICLR 2018,
arXiv 1710.03740, section 3.2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
from paddle import _C_ops

from .guarded import guarded_step

NUMBERS = ("incr_ratio", "decr_ratio", "incr_every_n_steps", "decr_every_n_nan_or_inf")


class LossScaler:
    """`paddle.amp.GradScaler` with its rule and its state, which waits for the device in none of its methods.

    Args:
        scale: at first.
        incr_ratio, incr_every_n_steps: so many good steps in a row multiply the scale by that.
        decr_ratio, decr_every_n_nan_or_inf: so many bad ones in a row do.
    """

    def __init__(
        self,
        scale: float = 2.0**16,
        *,
        incr_ratio: float = 2.0,
        decr_ratio: float = 0.5,
        incr_every_n_steps: int = 2000,
        decr_every_n_nan_or_inf: int = 1,
    ) -> None:
        self.incr_ratio, self.decr_ratio = incr_ratio, decr_ratio
        self.incr_every_n_steps, self.decr_every_n_nan_or_inf = incr_every_n_steps, decr_every_n_nan_or_inf
        self.size = paddle.full([1], scale, "float32")
        self.good, self.bad = paddle.zeros([1], "int32"), paddle.zeros([1], "int32")  # in a row
        self.finite = paddle.ones([1], "bool")  # the gradients of the present step

    def scale(self, loss: paddle.Tensor) -> paddle.Tensor:
        """Return a loss [] times the scale."""
        return loss * self.size.astype(loss.dtype).reshape(loss.shape)

    @paddle.no_grad()
    def unscale_(self, optimizer: paddle.optimizer.Optimizer) -> None:
        """Divide the gradients by the scale, and see whether all are finite."""
        of_type: dict[Any, list[paddle.Tensor]] = {}
        for group in optimizer._parameter_list:
            for parameter in group["params"] if isinstance(group, dict) else [group]:
                gradient = parameter._grad_ivar()
                if gradient is not None:
                    of_type.setdefault(gradient.dtype, []).append(gradient)
        self.finite = paddle.ones([1], "bool")
        for dtype, gradients in of_type.items():
            size = self.size.astype("float64") if dtype == paddle.float64 else self.size
            _, overflow = _C_ops.check_finite_and_unscale_(gradients, size)
            self.finite = self.finite.logical_and(overflow.logical_not())

    def step(self, optimizer: paddle.optimizer.Optimizer, go: paddle.Tensor | None = None) -> paddle.Tensor:
        """Take a step where the gradients are finite, and `go` [1] is true; return whether it was taken, [1] bool."""
        taken = self.finite if go is None else self.finite.logical_and(go)
        guarded_step(optimizer, taken)
        return taken

    @paddle.no_grad()
    def update(self) -> None:
        """Change the scale, after each step."""
        zero = paddle.zeros([1], "int32")
        good = paddle.where(self.finite, self.good + 1, zero)
        bad = paddle.where(self.finite, zero, self.bad + 1)
        raised, lowered = good == self.incr_every_n_steps, bad == self.decr_every_n_nan_or_inf
        size = paddle.where(raised, self.size * self.incr_ratio, self.size)
        self.size = paddle.where(lowered, size * self.decr_ratio, size)
        self.good, self.bad = paddle.where(raised, zero, good), paddle.where(lowered, zero, bad)

    def state_dict(self) -> dict[str, Any]:
        """Return what `paddle.amp.GradScaler` would."""
        return {
            "scale": self.size.numpy(),
            **{name: getattr(self, name) for name in NUMBERS},
            "incr_count": self.good.item(),
            "decr_count": self.bad.item(),
            "use_dynamic_loss_scaling": True,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state of this class or of `paddle.amp.GradScaler`."""
        for name in NUMBERS:
            setattr(self, name, state[name])
        self.size = paddle.to_tensor(np.asarray(state["scale"], "float32").reshape(1))
        self.good, self.bad = (
            paddle.full([1], int(state[name]), "int32") for name in ("incr_count", "decr_count")
        )
