"""Optimizers: decay groups by rule, and state by the names of a model's parameters.

Paddle keys optimizer state by process-wide names such as `linear_7.w_0_moment1_0`. They depend on
what else was built before: loaded into another process's model they can belong to another layer,
silently. Here state is read and written as {parameter's name in the model: {slot: array}}.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import paddle

from ..ops import kernels
from ..utils.errors import UserError
from .guarded import Adam, AdamW, release


class Group(NamedTuple):
    """Parameters that share a weight decay, and why."""

    rule: str
    names: list[str]
    weight_decay: float


def decay_groups(model: paddle.nn.Layer, weight_decay: float) -> list[Group]:
    """Sort every trainable parameter into a group; the first rule that matches wins.

    Named tokens and tables (the model's `NO_DECAY`, parts of names) and vectors (one dimension:
    biases, norms) do not decay; matrices and convolutions do.
    """
    groups = {
        "named": Group(f"named {getattr(model, 'NO_DECAY', ())}", [], 0.0),
        "vector": Group("vectors and biases", [], 0.0),
        "matrix": Group("all others", [], weight_decay),
    }
    for name, parameter in model.named_parameters():
        if parameter.stop_gradient:
            continue
        if any(part in name for part in getattr(model, "NO_DECAY", ())):
            groups["named"].names.append(name)
        elif parameter.ndim <= 1 or name.endswith(".bias"):
            groups["vector"].names.append(name)
        else:
            groups["matrix"].names.append(name)
    return [group for group in groups.values() if group.names]


def make_optimizer(
    name: str,
    model: paddle.nn.Layer,
    groups: list[Group],
    *,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum: float = 0.9,
    multi_precision: bool = False,
    fused: bool = False,
) -> paddle.optimizer.Optimizer:
    """Build the optimizer of a model; its rate is set before every step with `set_lr`.

    Args:
        name: `adamw`; `sgd` with nesterov momentum; `adam`, whose decay is an L2 penalty.
        groups: of `decay_groups`.
        multi_precision: keep float32 masters of 16-bit weights.
        fused: let one kernel update the tensors of a group together (adamw alone; see `flat`).

    Raises:
        ValueError: if the groups leave out or repeat a trainable parameter.
    """
    parameters = dict(model.named_parameters())
    grouped = [name for group in groups for name in group.names]
    trainable = [name for name, p in parameters.items() if not p.stop_gradient]
    if sorted(grouped) != sorted(trainable):
        odd = sorted(set(grouped) ^ set(trainable)) or "repeated names"
        raise ValueError(f"the optimizer's groups do not match the model's parameters: {odd}")
    settings: list[dict[str, Any]] = [
        {"params": [parameters[n] for n in group.names], "weight_decay": group.weight_decay}
        for group in groups
    ]
    shared: dict[str, Any] = dict(learning_rate=0.0, parameters=settings, multi_precision=multi_precision)
    if name == "sgd":
        for group in settings:  # Momentum forgets a group's decay, not a parameter's own
            for parameter in group["params"]:
                parameter.regularizer = paddle.regularizer.L2Decay(group["weight_decay"])
        return paddle.optimizer.Momentum(momentum=momentum, use_nesterov=True, weight_decay=0.0, **shared)
    shared.update(beta1=betas[0], beta2=betas[1], epsilon=eps, weight_decay=0.0)
    if name == "adam":
        return Adam(**shared)
    optimizer = {"adamw": AdamW}[name](**shared)
    optimizer.fused = fused
    return optimizer


@paddle.no_grad()
def clip_gradients(parameters: Iterable[paddle.Tensor], largest: float | None, wait: bool = True) -> Any:
    """Scale the gradients down to a global norm of at most `largest`; None leaves them as they are.

    As `paddle.nn.utils.clip_grad_norm_`, whose norm takes seven times as long, and without a wait for the device.

    Args:
        wait: return a number, which waits for the device; if not, a tensor [1] of float64 that stays on it.

    Returns:
        The global norm before.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    by_kernel = (
        bool(gradients)
        and gradients[0].place.is_cpu_place()
        and kernels.takes(*gradients)
        and all(gradient.is_contiguous() for gradient in gradients)
    )
    if by_kernel:
        squares = kernels.square_sums(gradients)
    else:
        wide = [g if g.dtype in (paddle.float32, paddle.float64) else g.astype("float32") for g in gradients]
        squares = paddle.stack([g.square().sum() for g in wide])
    norm = squares.sum().sqrt().astype("float64").reshape([1])
    if largest is not None:
        # In float64, as Python's numbers; Paddle 2.6 rounds a number that is added to float32, but not a tensor.
        bound, one = norm + _wide(1e-6), _wide(1.0)
        factor = paddle.where(_wide(largest) < bound, _wide(largest) / bound, one)
        if by_kernel:
            kernels.scale(gradients, factor.astype("float32"))
        for gradient in [] if by_kernel else gradients:
            gradient.multiply_(factor.astype(gradient.dtype))
    return norm.item() if wait else norm


def _wide(number: float) -> paddle.Tensor:
    return paddle.full([1], number, "float64")


MASTER = "master_weight"


def optimizer_state(
    model: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer
) -> dict[str, dict[str, np.ndarray]]:
    """Return {parameter's name in the model: {slot: array}}; empty before the first step."""
    state: dict[str, dict[str, np.ndarray]] = {}
    for name, parameter in model.named_parameters():
        slots = {slot: values.numpy() for slot, values in _slots(optimizer, parameter).items()}
        master = optimizer._master_weights.get(parameter.name)
        if master is not None:
            slots[MASTER] = master.numpy()
        if slots:
            state[name] = slots
    return state


def load_optimizer_state(
    model: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer, state: dict[str, dict[str, np.ndarray]]
) -> None:
    """Load what `optimizer_state` returned, whatever this process calls the parameters.

    Raises:
        UserError: if names, slots or shapes differ; nothing has been changed then.
    """
    check_optimizer_state(model, optimizer, state)
    release(optimizer)
    for name, parameter in model.named_parameters():
        slots = _slots(optimizer, parameter)
        for slot, value in state.get(name, {}).items():
            if slot == MASTER:
                optimizer._master_weights[parameter.name].set_value(value)
            else:
                slots[slot].set_value(value)


def _slots(optimizer, parameter):
    """Return {slot: tensor} of a parameter, which under `multi_precision` stand under its master's name."""
    master = optimizer._master_weights.get(parameter.name)
    names = [parameter.name] if master is None else [parameter.name, master.name]
    return {
        slot: values[name]
        for slot, values in optimizer._accumulators.items()
        for name in names
        if name in values
    }


def check_optimizer_state(
    model: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer, state: dict[str, dict[str, np.ndarray]]
) -> None:
    """Refuse a state that `load_optimizer_state` cannot load; errors as there.

    An optimizer that has taken no step gets its slots here.
    """
    own = optimizer_state(model, optimizer)
    if state and not own:
        _create_slots(optimizer, [p for _, p in model.named_parameters() if not p.stop_gradient])
        own = optimizer_state(model, optimizer)
    problems = [f"  + {name} (in the state, not in the model)" for name in state if name not in own]
    problems += [f"  - {name} (in the model, not in the state)" for name in own if name not in state]
    for name in state.keys() & own.keys():
        a = {slot: value.shape for slot, value in state[name].items()}
        b = {slot: value.shape for slot, value in own[name].items()}
        if a != b:
            problems.append(f"  ! {name}: the state has {a}, the model {b}")
    if problems:
        raise UserError("the optimizer state is another model's:\n" + "\n".join(sorted(problems)))


def _create_slots(optimizer, parameters):
    """Make an optimizer create its state: one step of zero gradients at rate zero."""
    rate = optimizer.get_lr()
    for parameter in parameters:
        parameter.clear_gradient()
        (parameter * 0).sum().backward()
    optimizer.set_lr(0.0)
    optimizer.step()
    optimizer.clear_grad()
    optimizer.set_lr(rate)
