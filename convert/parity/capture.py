"""Run a model of either framework and keep what every named sublayer took, gave, and was told backwards.

bfloat16 has one meaning on every machine, because Paddle has no bfloat16 kernels on a CPU (not even of a
matrix product): weights, images, the output of every sublayer and the gradients that pass there are rounded
to bfloat16, and what happens inside a sublayer is computed in float32.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial

import numpy as np

from .recording import MODEL, Call, Recording, Value

DTYPES = ("float64", "float32", "bfloat16")


def check_dtype(dtype):
    """ValueError unless `dtype` is one that models are compared in."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} must be one of {', '.join(DTYPES)}")


def record_torch(model, images, labels, dtype="float64", backward=True):
    """Record a torch.nn.Module.

    Args:
        model: in the mode that is wanted; its numbers are put into `dtype` and stay there.
        images, labels: numpy, [B, C, H, W] and [B].
        dtype: "float64", "float32" or "bfloat16" (see above).
        backward: record the gradients of the mean cross-entropy as well.
    Returns:
        A Recording.
    Raises:
        ValueError: an unknown dtype.
    """
    import torch

    check_dtype(dtype)
    rounded = dtype == "bfloat16"
    kind = torch.float32 if rounded else getattr(torch, dtype)

    def round_off(tensor):
        return tensor.to(torch.bfloat16).to(kind) if tensor.is_floating_point() else tensor

    model.to(kind)
    images = torch.tensor(np.asarray(images)).to(kind)
    if rounded:
        images = round_off(images)
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.data = round_off(tensor.data)
    images.requires_grad_(backward)

    def numpy(tensor):
        return tensor.detach().cpu().numpy()

    recording = Recording("torch", torch.__version__, getattr(model, "name", type(model).__name__), dtype)
    hooks = _Hooks(
        recording,
        torch.Tensor,
        numpy,
        (lambda tensor: tensor.requires_grad) if backward else None,
        round_off if rounded else None,
    )
    for name, module in model.named_modules():
        hooks.handles.append(module.register_forward_hook(hooks.of(name)))
    with _removed_after(hooks), torch.set_grad_enabled(backward):
        loss = torch.nn.functional.cross_entropy(model(images), torch.tensor(labels, device=images.device))
        recording.loss = numpy(loss)
        if backward:
            model.zero_grad()
            loss.backward()
            recording.input_gradient = numpy(images.grad)
            recording.parameter_gradients = {
                name: numpy(torch.zeros_like(p) if p.grad is None else p.grad)
                for name, p in model.named_parameters()
            }
            model.zero_grad()
    return recording


def record_paddle(model, images, labels, dtype="float64", backward=True):
    """Record a paddle.nn.Layer; arguments, result and errors as for `record_torch`."""
    import paddle

    from ..rules import tensor_rules

    check_dtype(dtype)
    rounded = dtype == "bfloat16"
    kind = "float32" if rounded else dtype

    def round_off(tensor):
        return tensor.astype("bfloat16").astype(kind) if tensor.is_floating_point() else tensor

    model.to(dtype=kind)
    images = paddle.to_tensor(np.asarray(images)).astype(kind)
    if rounded:
        images = round_off(images)
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.set_value(round_off(tensor.detach()))
    images.stop_gradient = not backward

    def numpy(tensor):
        return tensor.numpy()

    recording = Recording("paddle", paddle.__version__, getattr(model, "name", type(model).__name__), dtype)
    hooks = _Hooks(
        recording,
        paddle.Tensor,
        numpy,
        (lambda tensor: not tensor.stop_gradient) if backward else None,
        round_off if rounded else None,
    )
    for name, layer in model.named_sublayers(include_self=True):
        hooks.handles.append(layer.register_forward_post_hook(hooks.of(name)))
    with _removed_after(hooks), paddle.set_grad_enabled(backward):
        loss = paddle.nn.functional.cross_entropy(model(images), paddle.to_tensor(labels))
        recording.loss = numpy(loss)
        if backward:
            model.clear_gradients()
            loss.backward()
            recording.input_gradient = numpy(images.grad)
            # batch statistics count as parameters in Paddle, but as such that are not trained
            parameters = {name: p for name, p in model.named_parameters() if p.trainable}
            for name, (torch_name, rule) in tensor_rules(model).items():
                if name in parameters:
                    p = parameters[name]
                    gradient = numpy(paddle.zeros_like(p) if p.grad is None else p.grad)
                    recording.parameter_gradients[torch_name] = gradient.T if rule.transpose else gradient
            model.clear_gradients()
    return recording


class _Hooks:
    """Forward hooks that fill a recording; a tensor that is seen twice is kept once."""

    def __init__(self, recording, tensor_class, numpy, wants_gradient, round_off):
        self.recording, self.tensor_class = recording, tensor_class
        self.numpy, self.wants_gradient, self.round_off = numpy, wants_gradient, round_off
        self.seen = {}  # id -> (tensor, value); holding the tensor keeps its id its own
        self.counts = {}
        self.handles = []

    def value(self, tensor):
        if id(tensor) not in self.seen:
            value = Value(self.numpy(tensor))
            self.seen[id(tensor)] = (tensor, value)
            if self.wants_gradient and self.wants_gradient(tensor):
                keep = partial(_keep_gradient, value, self.numpy)
                self.handles.append(tensor.register_hook(keep))
        return self.seen[id(tensor)][1]

    def of(self, name):
        name = name or MODEL

        def hook(layer, inputs, output):
            if not isinstance(output, self.tensor_class):
                return None
            if self.round_off:
                output = self.round_off(output)
            count = self.counts[name] = self.counts.get(name, 0) + 1
            values = [self.value(x) for x in _flat(inputs) if isinstance(x, self.tensor_class)]
            label = name if count == 1 else f"{name}#{count}"
            self.recording.calls.append(Call(label, type(layer).__name__, values, self.value(output)))
            return output if self.round_off else None

        return hook


def _flat(items):
    for item in items:
        if isinstance(item, (list, tuple)):
            yield from _flat(item)
        else:
            yield item


def _keep_gradient(value, numpy, gradient):
    value.gradient = numpy(gradient)


@contextmanager
def _removed_after(hooks):
    """Let go of every hook and tensor in the end: neither framework frees a tensor whose hook refers to it."""
    try:
        yield
    finally:
        for handle in hooks.handles:
            handle.remove()
        hooks.seen.clear()
