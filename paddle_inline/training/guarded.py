"""Optimizer steps that are taken or not by a number on the device, which the host does not wait for.

A step whose gradients are not finite leaves weights, slots of the optimizer and averages as they are. Asked on the
host, as `if math.isfinite(norm)`, it costs a wait in every step; here `go`, a tensor of one boolean, decides:

- on a CPU the kernels of AdamW and Adam are told to skip (on a GPU they would fetch that word for every tensor);
- otherwise the state is kept from before the step, and one of both is selected, element by element.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import paddle
from paddle import _C_ops
from paddle.base.layer_helper import LayerHelper

from ..ops import kernels
from .flat import FlatAdamW

LEAST_ROWS = 1000  # for several threads in one tensor's step; Paddle's default


class Adam(paddle.optimizer.Adam):
    """`Adam` whose kernels leave everything as it is where `skip` says so: a tensor [1] of bool; None: never."""

    skip: paddle.Tensor | None = None

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> Any:
        if self.skip is None:
            return super()._append_optimize_op(block, param_and_grad)
        _update(_C_ops.adam_, self, param_and_grad)
        return None


class AdamW(paddle.optimizer.AdamW):
    """`AdamW` whose kernels leave everything as it is where `skip` says so: a tensor [1] of bool; None: never.

    Attributes:
        fused: whether one kernel updates the tensors of a group together (`flat.FlatAdamW`).
    """

    skip: paddle.Tensor | None = None
    fused = False
    flat: FlatAdamW | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return Paddle's own form of the state, in which every parameter has powers of the betas of its own."""
        release(self)
        return super().state_dict()

    def set_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        release(self)
        super().set_state_dict(state_dict)

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> Any:
        if self.skip is None:
            return super()._append_optimize_op(block, param_and_grad)
        _update(_C_ops.adamw_, self, param_and_grad)
        return None


def _update(kernel, optimizer, given):
    """Update one parameter by the kernel of Adam or AdamW, unless `skip` says otherwise."""
    pair = _pair(optimizer, given)  # which sets the group's decay
    decay = (1.0, optimizer._weight_decay, True) if isinstance(optimizer, AdamW) else ()
    master = _master(optimizer, pair[0])
    with_amsgrad = hasattr(optimizer, "_amsgrad")  # Paddle 3 has two arguments more
    kernel(
        *pair,
        *(
            optimizer._create_param_lr(pair),
            *_moments(optimizer, pair[0]),
            *((None,) if with_amsgrad else ()),
        ),
        *(*_powers(optimizer, pair[0]), master, optimizer.skip),
        *(optimizer._beta1, optimizer._beta2, optimizer._epsilon, *decay),
        *(optimizer._lazy_mode, LEAST_ROWS, master is not None, False),
        *((False,) if with_amsgrad else ()),
    )


def _pair(optimizer, given):
    """Return (parameter, gradient), having set the values of their group where there are groups."""
    return optimizer._update_param_group(given) if isinstance(given, dict) else given


def _moments(optimizer, parameter):
    names = optimizer._moment1_acc_str, optimizer._moment2_acc_str
    return [optimizer._get_accumulator_master(name, parameter) for name in names]


def _powers(optimizer, parameter):
    names = optimizer._beta1_pow_acc_str, optimizer._beta2_pow_acc_str
    return [optimizer._get_accumulator_master(name, parameter) for name in names]


def _master(optimizer, parameter):
    half = getattr(optimizer, "_multi_precision", False) and parameter.dtype in (
        paddle.float16,
        paddle.bfloat16,
    )
    return optimizer._master_weights[parameter.name] if half else None


@paddle.no_grad()
def guarded_step(optimizer: paddle.optimizer.Optimizer, go: paddle.Tensor) -> None:
    """Take an optimizer's step where `go` is true, and leave its parameters and slots as they are where it is not.

    Args:
        optimizer: any of Paddle's.
        go: [1] bool, on the device; it is not read here.
    """
    if getattr(optimizer, "fused", False):
        optimizer.flat = optimizer.flat or FlatAdamW(optimizer)
        if optimizer.flat.step(go):
            return
    if isinstance(optimizer, AdamW) and go.place.is_cpu_place() and _step_by_loop(optimizer, go):
        return
    if isinstance(optimizer, (Adam, AdamW)) and go.place.is_cpu_place():
        optimizer.skip = go.logical_not()
        try:
            optimizer.step()
        finally:
            optimizer.skip = None
        return
    create_slots(optimizer)
    before = [(tensor, tensor.detach().clone()) for tensor in state_of(optimizer)]
    optimizer.step()
    for tensor, earlier in before:
        select(go, tensor, earlier, output=tensor)


def _step_by_loop(optimizer: AdamW, go: paddle.Tensor) -> bool:
    """Take AdamW's step by one loop over the tensors of a group; return whether it can be done so."""
    groups = [
        {
            **group,
            "params": [p for p in group["params"] if not p.stop_gradient and p._grad_ivar() is not None],
        }
        for group in _groups(optimizer)
    ]
    tensors = [each for group in groups for p in group["params"] for each in (p, p._grad_ivar())]
    if (
        optimizer._grad_clip is not None
        or getattr(optimizer, "_amsgrad", False)
        or not isinstance(optimizer._parameter_list[0], dict)
        or not kernels.takes(*tensors)
        or not all(each.is_contiguous() for each in tensors)
    ):
        return False
    create_slots(optimizer)
    go = go.astype("float32")
    for group in (group for group in groups if group["params"]):
        optimizer._update_param_group(group)
        parameters = group["params"]
        slots = [[*_moments(optimizer, p), *_powers(optimizer, p)] for p in parameters]
        optimizer._create_global_learning_rate()
        kernels.adamw(
            [parameters, [p._grad_ivar() for p in parameters], *zip(*slots)],
            optimizer._create_param_lr((parameters[0], None)),
            go,
            (optimizer._beta1, optimizer._beta2),
            optimizer._epsilon,
            optimizer._weight_decay,
        )
    return True


def release(optimizer: paddle.optimizer.Optimizer) -> None:
    """Let every parameter have slots of its own, for whoever reads or writes them by Paddle's means."""
    flat = getattr(optimizer, "flat", None)
    if flat is not None:
        flat.release()


def select(go: paddle.Tensor, new: paddle.Tensor, old: paddle.Tensor, *, output: paddle.Tensor) -> None:
    """Write `new` into `output` where `go` [1] is true, else `old`: of one shape; NaN in the other does no harm."""
    where = go.reshape([1] * new.ndim)
    chosen = paddle.where(where.expand(new.shape) if new.ndim else where, new.detach(), old)
    paddle.assign(chosen, output=output)


def create_slots(optimizer: paddle.optimizer.Optimizer) -> None:
    """Let an optimizer create its slots and float32 masters, with their first values, where it has none yet.

    On a GPU, the powers of the betas move there from the host, where Paddle keeps them.
    """
    block = paddle.base.framework.default_main_program().global_block()
    if getattr(optimizer, "helper", None) is None:  # Paddle 2.6 asks for what its own step makes first
        optimizer.helper = LayerHelper(type(optimizer).__name__)
    for group in _groups(optimizer):
        trained = [each for each in group["params"] if not each.stop_gradient]
        whole = isinstance(optimizer._parameter_list[0], dict)
        optimizer._create_accumulators(block, {**group, "params": trained} if whole else trained)
        for parameter in trained:
            owner = _master(optimizer, parameter)
            name = parameter.name if owner is None else owner.name
            for slots in optimizer._accumulators.values():
                slot = slots.get(name)
                if slot is not None and slot.place.is_cpu_place() and not parameter.place.is_cpu_place():
                    moved = slot._copy_to(parameter.place, True)
                    moved.name = slot.name
                    slots[name] = moved


def state_of(optimizer: paddle.optimizer.Optimizer) -> Iterator[paddle.Tensor]:
    """Yield what a step changes: trained parameters, slots, float32 masters."""
    for group in _groups(optimizer):
        yield from (each for each in group["params"] if not each.stop_gradient)
    for slots in (*optimizer._accumulators.values(), optimizer._master_weights):
        yield from slots.values()


def _groups(optimizer):
    first = optimizer._parameter_list[0]
    return optimizer._param_groups if isinstance(first, dict) else [{"params": optimizer._parameter_list}]
