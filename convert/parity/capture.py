"""Run a model of either framework and keep what every named sublayer took, gave, and was told backwards.

A recording is plain numpy in PyTorch's layout, so that two recordings compare without either framework.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from ..rules import tensor_rules

MODEL = "(model)"  # the name of the whole model among its sublayers


@dataclass
class Call:
    """One call of one sublayer, in the order in which calls end: the innermost first."""

    name: str  # the sublayer's; from its second call on, with "#2", "#3", ...
    inputs: list[np.ndarray]
    output: np.ndarray
    gradient: np.ndarray | None = None  # of the loss by `output`


@dataclass
class Recording:
    """What one framework computed for one batch."""

    framework: str
    version: str
    calls: list[Call] = field(default_factory=list)
    loss: np.ndarray | None = None
    input_gradient: np.ndarray | None = None
    parameter_gradients: dict[str, np.ndarray] = field(default_factory=dict)  # by PyTorch name


def record_torch(model, images, labels, dtype, backward=True):
    """Record a torch.nn.Module on images [B, C, H, W] and labels [B] (numpy), in `dtype`."""
    import torch

    model = model.to(getattr(torch, dtype))
    recording = Recording("torch", torch.__version__)
    images = torch.tensor(images, dtype=getattr(torch, dtype), requires_grad=backward)

    def numpy(tensor):
        tensor = tensor.detach()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()

    def listen(tensor, call):
        tensor.register_hook(lambda gradient: setattr(call, "gradient", numpy(gradient)))

    hooks = _Hooks(recording, torch.Tensor, numpy, listen if backward else None)
    handles = [module.register_forward_hook(hooks.of(name)) for name, module in model.named_modules()]
    with _removed_after(handles), torch.set_grad_enabled(backward):
        loss = torch.nn.functional.cross_entropy(model(images), torch.tensor(labels))
        recording.loss = numpy(loss)
        if backward:
            model.zero_grad()
            loss.backward()
            recording.input_gradient = numpy(images.grad)
            recording.parameter_gradients = {
                name: numpy(torch.zeros_like(p) if p.grad is None else p.grad)
                for name, p in model.named_parameters()
            }
    return recording


def record_paddle(model, images, labels, dtype, backward=True):
    """Record a paddle.nn.Layer on images [B, C, H, W] and labels [B] (numpy), in `dtype`."""
    import paddle

    model.to(dtype=dtype)
    recording = Recording("paddle", paddle.__version__)
    images = paddle.to_tensor(images).astype(dtype)
    images.stop_gradient = not backward

    def numpy(tensor):
        return (tensor.astype("float32") if tensor.dtype == paddle.bfloat16 else tensor).numpy()

    def listen(tensor, call):
        tensor.register_hook(lambda gradient: setattr(call, "gradient", numpy(gradient)))

    hooks = _Hooks(recording, paddle.Tensor, numpy, listen if backward else None)
    handles = [
        layer.register_forward_post_hook(hooks.of(name))
        for name, layer in model.named_sublayers(include_self=True)
    ]
    with _removed_after(handles), paddle.set_grad_enabled(backward):
        loss = paddle.nn.functional.cross_entropy(model(images), paddle.to_tensor(labels))
        recording.loss = numpy(loss)
        if backward:
            model.clear_gradients()
            loss.backward()
            recording.input_gradient = numpy(images.grad)
            parameters = dict(model.named_parameters())
            for name, (torch_name, rule) in tensor_rules(model).items():
                if name in parameters:
                    p = parameters[name]
                    gradient = numpy(paddle.zeros_like(p) if p.grad is None else p.grad)
                    recording.parameter_gradients[torch_name] = gradient.T if rule.transpose else gradient
    return recording


class _Hooks:
    """Forward hooks that fill a recording; a tensor seen twice is copied once."""

    def __init__(self, recording, tensor_class, numpy, listen):
        self.recording, self.tensor_class = recording, tensor_class
        self.numpy, self.listen = numpy, listen
        self.seen = {}  # id -> (tensor, array); holding the tensor keeps its id its own
        self.counts = {}

    def array(self, tensor):
        if id(tensor) not in self.seen:
            self.seen[id(tensor)] = (tensor, self.numpy(tensor))
        return self.seen[id(tensor)][1]

    def of(self, name):
        name = name or MODEL

        def hook(layer, inputs, output):
            if not isinstance(output, self.tensor_class):
                return
            count = self.counts[name] = self.counts.get(name, 0) + 1
            call = Call(
                name if count == 1 else f"{name}#{count}",
                [self.array(x) for x in inputs if isinstance(x, self.tensor_class)],
                self.array(output),
            )
            self.recording.calls.append(call)
            if self.listen and self._differentiable(output):
                self.listen(output, call)

        return hook

    @staticmethod
    def _differentiable(tensor):
        return tensor.requires_grad if hasattr(tensor, "requires_grad") else not tensor.stop_gradient


@contextmanager
def _removed_after(handles):
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
