"""Run a model of either framework and report every named sublayer to a Listener (listener.py), forward and backward.

bfloat16 has one meaning on every machine, because Paddle has no bfloat16 kernels on a CPU (not even of a
matrix product): weights, images, the output of every sublayer and the gradients that pass there are rounded
to bfloat16, and what happens inside a sublayer is computed in float32.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_inline.utils.errors import UserError
from paddle_inline.utils.tf32 import without_tf32

from .inputs import draw_read_out
from .listener import KeyedArray, Listener, ListenerFactory
from .recording import MODEL, Recording

if TYPE_CHECKING:
    import paddle
    import torch

DTYPES = ("float64", "float32", "bfloat16")


def check_dtype(dtype: str) -> None:
    """Raise UserError unless `dtype` is one that models are compared in."""
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} must be one of {', '.join(DTYPES)}")


def record_torch(
    model: torch.nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    dtype: str = "float64",
    backward: bool = True,
    into: ListenerFactory = Recording,
) -> Any:
    """Run a torch.nn.Module on a batch.

    Args:
        model: in the mode that is wanted; its numbers are put into `dtype` and stay there.
        images: [B, C, H, W]
        labels: [B]
        dtype: "float64", "float32" or "bfloat16" (see above).
        backward: compute the gradients of the mean cross-entropy as well.
        into: makes the Listener: a Recording, or one that compares or digests as it listens and keeps nothing.

    Returns:
        The listener.

    Raises:
        UserError: an unknown dtype.
    """
    import torch

    check_dtype(dtype)
    rounded = dtype == "bfloat16"
    kind = torch.float32 if rounded else getattr(torch, dtype)

    def round_off(tensor):
        return tensor.to(torch.bfloat16).to(kind) if tensor.is_floating_point() else tensor

    model.to(kind)
    x = torch.tensor(np.asarray(images)).to(kind)
    if rounded:
        x = round_off(x)
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.data = round_off(tensor.data)
    x.requires_grad_(backward)

    def numpy(tensor):
        return tensor.detach().cpu().numpy()

    listener = into("torch", torch.__version__, getattr(model, "name", type(model).__name__), dtype)
    hooks = _Hooks(
        listener,
        torch.Tensor,
        numpy,
        (lambda tensor: tensor.requires_grad) if backward else None,
        round_off if rounded else None,
    )
    handles = [module.register_forward_hook(hooks.of(name)) for name, module in model.named_modules()]
    with _removed_after(handles), torch.set_grad_enabled(backward):
        logits = hooks.logits(model(x), lambda values: torch.tensor(values, dtype=kind, device=x.device))
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels, device=x.device))
        if not backward:
            listener.finished(numpy(loss))
            return listener
        model.zero_grad()
        loss.backward()
        gradients = {
            name: numpy(torch.zeros_like(p) if p.grad is None else p.grad)
            for name, p in model.named_parameters()
            if p.requires_grad
        }
        listener.finished(numpy(loss), numpy(x.grad), gradients)
        model.zero_grad()
    return listener


def record_paddle(
    model: paddle.nn.Layer,
    images: np.ndarray,
    labels: np.ndarray,
    dtype: str = "float64",
    backward: bool = True,
    into: ListenerFactory = Recording,
) -> Any:
    """Run a paddle.nn.Layer on a batch; arguments, result and errors as for `record_torch`."""
    import paddle

    from paddle_inline.weights.torch_layout import tensor_rules

    check_dtype(dtype)
    rounded = dtype == "bfloat16"
    kind = "float32" if rounded else dtype

    def round_off(tensor):
        return tensor.astype("bfloat16").astype(kind) if tensor.is_floating_point() else tensor

    model.to(dtype=kind)
    x = paddle.to_tensor(np.asarray(images)).astype(kind)
    if rounded:
        x = round_off(x)
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.set_value(round_off(tensor.detach()))
    x.stop_gradient = not backward

    def numpy(tensor):
        return tensor.numpy()

    listener = into("paddle", paddle.__version__, getattr(model, "name", type(model).__name__), dtype)
    hooks = _Hooks(
        listener,
        paddle.Tensor,
        numpy,
        (lambda tensor: not tensor.stop_gradient) if backward else None,
        round_off if rounded else None,
    )
    handles = [
        layer.register_forward_post_hook(hooks.of(name))
        for name, layer in model.named_sublayers(include_self=True)
    ]
    with _removed_after(handles), without_tf32(), paddle.set_grad_enabled(backward):
        logits = hooks.logits(model(x), lambda values: paddle.to_tensor(values, dtype=kind))
        loss = paddle.nn.functional.cross_entropy(logits, paddle.to_tensor(labels))
        if not backward:
            listener.finished(numpy(loss))
            return listener
        model.clear_gradients()
        loss.backward()
        # batch statistics count as parameters in Paddle, but as such that are not trained
        parameters, gradients = {name: p for name, p in model.named_parameters() if p.trainable}, {}
        for name, (torch_name, rule) in tensor_rules(model).items():
            if name in parameters:
                p = parameters[name]
                gradient = numpy(paddle.zeros_like(p) if p.grad is None else p.grad)
                gradients[torch_name] = gradient.T if rule.transpose else gradient
        listener.finished(numpy(loss), numpy(x.grad), gradients)
        model.clear_gradients()
    return listener


class _Hooks:
    """Forward hooks that report to a listener; a tensor that is seen twice has one key, and is read once."""

    def __init__(
        self,
        listener: Listener,
        tensor_class: type,
        numpy: Callable[[Any], np.ndarray],
        has_gradient: Callable[[Any], bool] | None,
        round_off: Callable[[Any], Any] | None,
    ) -> None:
        self.listener, self.tensor_class = listener, tensor_class
        self.numpy, self.round_off = numpy, round_off
        self.has_gradient = has_gradient if listener.wants_gradients else None
        self.seen: dict[int, KeyedArray] = {}  # by id, as long as the tensor with this id lives
        self.keys = itertools.count()
        self.counts: dict[str, int] = {}

    def keyed(self, tensor: Any) -> KeyedArray:
        place = id(tensor)
        if place not in self.seen:
            key = next(self.keys)
            self.seen[place] = (key, self.numpy(tensor))
            finalizer = weakref.finalize(tensor, self.seen.pop, place, None)
            finalizer.atexit = False  # type: ignore[misc]  # a property, which typeshed does not say
            if self.has_gradient and self.has_gradient(tensor):
                # returns None: a hook's value would replace the gradient
                tensor.register_hook(lambda gradient: self.listener.gradient(key, self.numpy(gradient)))
        return self.seen[place]

    def logits(self, output: Any, tensor: Callable[[np.ndarray], Any]) -> Any:
        """Return the logits of a model, or those that are read out of a backbone's maps, reported as the model's."""
        if isinstance(output, self.tensor_class):
            return output
        parts = []
        for i, x in enumerate(output):
            pixels, channels = draw_read_out(i, x.shape[1], x.shape[2] * x.shape[3])
            parts.append((x.flatten(2) @ tensor(pixels)).squeeze(-1) @ tensor(channels))
        logits = sum(parts[1:], parts[0])
        logits = self.round_off(logits) if self.round_off else logits
        self.listener.called(
            MODEL, "read-out of the maps", [self.keyed(x) for x in output], self.keyed(logits)
        )
        return logits

    def of(self, name: str) -> Callable[..., Any]:
        name = name or MODEL

        def hook(layer: Any, inputs: Any, output: Any) -> Any:
            if isinstance(output, list):  # a backbone's maps, of which its logits are read out
                outputs = [self.round_off(x) if self.round_off else x for x in output]
                for i, x in enumerate(outputs):
                    given = [self.keyed(y) for y in _flat(inputs) if isinstance(y, self.tensor_class)]
                    self.listener.called(f"map {i}", type(layer).__name__, given, self.keyed(x))
                return outputs if self.round_off else None
            if not isinstance(output, self.tensor_class):
                return None
            if self.round_off:
                output = self.round_off(output)
            count = self.counts[name] = self.counts.get(name, 0) + 1
            self.listener.called(
                name if count == 1 else f"{name}#{count}",
                type(layer).__name__,
                [self.keyed(x) for x in _flat(inputs) if isinstance(x, self.tensor_class)],
                self.keyed(output),
            )
            return output if self.round_off else None

        return hook


def _flat(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        if isinstance(item, (list, tuple)):
            yield from _flat(item)
        else:
            yield item


@contextmanager
def _removed_after(handles: Iterable[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
