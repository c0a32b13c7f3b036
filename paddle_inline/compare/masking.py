"""Tokens taken out of every query's attention inside a network, wherever a form sums the values.

B batch, h heads, N tokens, d head width, C channels, H x W token grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import paddle

from ..layers.attention.gated import RotaryAttention
from ..layers.attention.gla import GatedLinearAttention
from ..layers.attention.local import EnhancedAttention
from ..layers.attention.undivided import NormAttention
from ..layers.basic import Module
from ..ops.attention.undivided import normalise_channels
from ..ops.tokens import Size, concat_channels, merge_heads, split_heads
from .rows import NoRows, attention_layers, check_rows, inputs_of, method_replaced


@contextmanager
def masked(model: Module, choose: Callable[[Size, int], np.ndarray]) -> Iterator[None]:
    """Take tokens out of every query's attention meanwhile: their weights are 0, the others as they were.

    What a form adds to its attention (filters of the values, gates) stays.

    Args:
        model: with layers of attention.
        choose: (grid, prefix tokens) -> [N, N] booleans, which tokens j are taken from query i.

    Raises:
        NoRows: the network has no rows, or its layers do not pass q, k and v through one method.
    """
    check_rows(model)
    with ExitStack() as undo:
        for layer in attention_layers(model):
            undo.enter_context(_masked_layer(layer, choose))
        yield


@contextmanager
def _masked_layer(layer: Module, choose: Callable[[Size, int], np.ndarray]) -> Iterator[None]:
    """Subtract what the chosen tokens give, where the form has summed the values and before what it does to the sum."""
    state: dict[str, Any] = {}

    def begin(layer: Module, inputs: tuple[Any, ...]) -> None:
        x, size = inputs[:2]
        weights = layer.rows(x, size)
        taken = paddle.to_tensor(choose(size, x.shape[1] - size[0] * size[1]))
        state.update(done=False, input=(x, size), taken=weights * taken.astype(weights.dtype))
        state["kept"] = weights - state["taken"]

    def end(layer: Module, inputs: tuple[Any, ...], output: paddle.Tensor) -> None:
        if not state["done"]:
            raise NoRows(f"{type(layer).__name__} does not show where it sums the values")

    with ExitStack() as undo:
        undo.callback(layer.register_forward_pre_hook(begin).remove)
        _mask_sum(layer, state, undo)
        undo.callback(layer.register_forward_post_hook(end).remove)
        yield


def _mask_sum(layer: Module, state: dict[str, Any], undo: ExitStack) -> None:
    """Put what masks a layer's sum in its place; `state` gets its weights before each call, `undo` takes it back."""

    def summed(v: paddle.Tensor, which: str = "taken") -> paddle.Tensor:
        """Sum heads of values [B, h, N, d] with the weights that are taken, or kept."""
        state["done"] = True
        weights = state[which]
        if weights.shape[1] == v.shape[1]:
            return paddle.matmul(weights, v)
        sets = zip(
            paddle.split(weights, 2, axis=1), paddle.split(v, 2, axis=3)
        )  # of PolaFormer: half of d each
        return paddle.concat([paddle.matmul(*pair) for pair in sets], axis=3)

    if isinstance(layer, GatedLinearAttention):

        def before_norm(norm: Module, inputs: tuple[paddle.Tensor, ...]) -> paddle.Tensor:
            return inputs[0] - summed(inputs_of(layer, *state["input"])[1][0][2])

        undo.callback(layer.g_norm.register_forward_pre_hook(before_norm).remove)
    elif isinstance(layer, EnhancedAttention):

        def before_projection(proj: Module, inputs: tuple[paddle.Tensor, ...]) -> paddle.Tensor:
            weights, scales = state["taken"], inputs_of(layer, *state["input"])[1]
            state["done"] = True
            each = zip(paddle.split(weights, len(scales), axis=1), scales)
            return inputs[0] - concat_channels([merge_heads(paddle.matmul(w, v)) for w, (_, _, v) in each])

        undo.callback(layer.proj.register_forward_pre_hook(before_projection).remove)
    elif isinstance(layer, NormAttention):

        def normed(q: paddle.Tensor, k: paddle.Tensor, v: paddle.Tensor, *more: Any) -> paddle.Tensor:
            return normalise_channels(merge_heads(summed(split_heads(v, layer.num_heads), "kept")))

        undo.enter_context(method_replaced(layer, "attend", normed))
    else:
        name = "combine" if isinstance(layer, RotaryAttention) else "mix"
        mix, attend = getattr(layer, name), layer.attend

        def masked_mix(q: paddle.Tensor, k: paddle.Tensor, v: paddle.Tensor, *more: Any) -> paddle.Tensor:
            return mix(q, k, v, *more) - summed(v)

        def masked_attend(q: paddle.Tensor, k: paddle.Tensor, v: paddle.Tensor, *more: Any) -> paddle.Tensor:
            out = attend(q, k, v, *more)  # which calls masked_mix, unless the form has no `mix`
            return out if state["done"] else out - merge_heads(summed(split_heads(v, layer.num_heads)))

        undo.enter_context(method_replaced(layer, name, masked_mix))
        undo.enter_context(method_replaced(layer, "attend", masked_attend))
