"""Many tensors in one piece of memory, so that one kernel updates them all: for GPUs, where each launch costs.

A model of 150 parameters has 450 tensors that AdamW changes; kept from before a step and selected one by one they
would cost more than a thousand launches. `Flat` makes each a view of a part of one tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import paddle
from paddle import _C_ops

ALIGNED = 256  # bytes, at which each view begins, as memory of its own would
CHUNK = 1 << 16  # numbers of a tensor that one block of the kernel takes


class Flat:
    """Tensors of one type that share one piece of memory; each keeps its shape, values and identity.

    Args:
        tensors: at least one; they become views of parts of `whole`.

    Attributes:
        whole: [numbers of all, and zeros between them].
    """

    @paddle.no_grad()
    def __init__(self, tensors: Sequence[paddle.Tensor]) -> None:
        self.tensors = list(tensors)
        first = self.tensors[0]
        step = ALIGNED // first.element_size()
        begins, end = [], 0
        self.gaps = []  # zeros behind each tensor
        for tensor in self.tensors:
            begins.append(end)
            count = math.prod(tensor.shape)
            self.gaps.append(paddle.zeros([-count % step], first.dtype))
            end += count + -count % step
        self.whole = paddle.zeros([end], first.dtype)
        for begin, tensor in zip(begins, self.tensors):
            shape = list(tensor.shape)
            part = self.whole._slice(begin, begin + math.prod(shape))
            paddle.assign(tensor.detach().reshape([-1]), output=part)
            part._share_buffer_to(tensor)
            tensor.get_tensor()._set_dims(shape)
        self.places = [tensor.data_ptr() for tensor in self.tensors]

    def gathered(self, tensors: Sequence[paddle.Tensor]) -> paddle.Tensor:
        """Return other tensors of the same shapes as one, in the same places."""
        parts = [
            each for pair in zip((t.detach().reshape([-1]) for t in tensors), self.gaps) for each in pair
        ]
        return paddle.concat([each for each in parts if each.shape[0]])

    def holds(self) -> bool:
        """Whether all tensors are still views of it: whoever gave one other memory has ended that."""
        return all(tensor.data_ptr() == place for tensor, place in zip(self.tensors, self.places))


class _Part:
    """The parameters of one group and type with their moments and masters, and one power of each beta for all."""

    def __init__(self, optimizer, group, parameters):
        self.group, self.parameters = group, parameters
        self.masters = [optimizer._master_weights.get(each.name) for each in parameters]
        self.half = self.masters[0] is not None
        owners = self.masters if self.half else parameters  # whose names the slots have
        self.names = [each.name for each in owners]
        slots = optimizer._accumulators
        self.moments = [
            [slots[kind][name] for name in self.names]
            for kind in (optimizer._moment1_acc_str, optimizer._moment2_acc_str)
        ]
        kinds = optimizer._beta1_pow_acc_str, optimizer._beta2_pow_acc_str
        self.own = {kind: {name: slots[kind][name] for name in self.names} for kind in kinds}
        self.power = [own[self.names[0]] for own in self.own.values()]
        for kind, shared in zip(kinds, self.power):
            slots[kind].update(dict.fromkeys(self.names, shared))
        lists = [parameters, *self.moments, *([self.masters] if self.half else [])]
        self.flats = [Flat(each) for each in lists]


class FlatAdamW:
    """The steps of an AdamW with one kernel a group, one selection a group: what it gives is AdamW's, bit for bit.

    Where a step cannot be taken so (a parameter without a gradient, counts of steps that differ), the optimizer's own
    loop takes it.

    Args:
        optimizer: with parameter groups.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.parts: list[_Part] = []  # made at the first step

    def step(self, go: paddle.Tensor) -> bool:
        """Take a step where `go` [1] is true; return whether it could be done here."""
        groups = self.optimizer._param_groups
        trained = [each for group in groups for each in group["params"] if not each.stop_gradient]
        if not trained or any(each._grad_ivar() is None for each in trained):
            self.release()
            return False
        if not self.parts or not all(flat.holds() for part in self.parts for flat in part.flats):
            self.release()
            if not self._build():
                return False
        for part in self.parts:
            self._step_of(part, go)
        return True

    def release(self) -> None:
        """Give every parameter powers of the betas of its own again; the next step begins anew.

        For whoever writes the optimizer's slots: a checkpoint that is loaded, a step of the optimizer's own.
        """
        for part in self.parts:
            for (kind, own), shared in zip(part.own.items(), part.power):
                for slot in own.values():
                    if slot is not shared:
                        paddle.assign(shared, output=slot)
                self.optimizer._accumulators[kind].update(own)
        self.parts = []

    def _build(self) -> bool:
        from .guarded import create_slots

        optimizer = self.optimizer
        create_slots(optimizer)
        kinds = optimizer._beta1_pow_acc_str, optimizer._beta2_pow_acc_str
        parts = []
        for group in optimizer._param_groups:
            of_type: dict[Any, list[paddle.Tensor]] = {}
            for each in group["params"]:
                if not each.stop_gradient:
                    of_type.setdefault(each.dtype, []).append(each)
            for parameters in of_type.values():
                for kind in kinds:
                    powers = [optimizer._get_accumulator_master(kind, each) for each in parameters]
                    if len({*paddle.concat(powers).tolist()}) > 1:
                        return False
                parts.append((group, parameters))
        self.parts = [_Part(optimizer, *each) for each in parts]
        return True

    def _step_of(self, part, go):
        from .guarded import select

        optimizer = self.optimizer
        before = [flat.whole.clone() for flat in part.flats]
        count = len(part.parameters)
        optimizer._update_param_group({**part.group, "params": part.parameters})
        with_amsgrad = hasattr(optimizer, "_amsgrad")  # Paddle 3 has two arguments more
        optimizer._create_global_learning_rate()
        _C_ops.fused_adam_(
            part.parameters,
            [each._grad_ivar() for each in part.parameters],
            optimizer._create_param_lr((part.parameters[0], None)),
            *part.moments,
            *((None,) if with_amsgrad else ()),
            *([power] * count for power in part.power),
            part.masters if part.half else None,
            None,
            *(optimizer._beta1, optimizer._beta2, optimizer._epsilon, CHUNK, optimizer._weight_decay),
            *(True, part.half, True),  # AdamW; with masters; the powers are advanced here
            *((False,) if with_amsgrad else ()),
        )
        for flat, earlier in zip(part.flats, before):
            select(go, flat.whole, earlier, output=flat.whole)
        for power, beta in zip(part.power, (optimizer._beta1, optimizer._beta2)):
            select(go, power * paddle.full([1], beta, power.dtype), power, output=power)
