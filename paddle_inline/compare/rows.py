"""The rows of attention inside a network: recorded and measured.

B batch, h heads, N tokens, d head width, C channels, H x W token grid, P prefix tokens (class token), N = P + H * W.
A row holds the weights w_ij with which query i sums the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import paddle

from ..layers.attention.gated import RotaryAttention
from ..layers.attention.gla import GatedLinearAttention
from ..layers.attention.local import EnhancedAttention
from ..layers.basic import Module
from ..ops.tokens import Size, split_heads
from ..utils.errors import UserError


class Record(NamedTuple):
    """What one layer of attention did to a batch."""

    weights: np.ndarray  # its rows, [B, h, N, N]; of forms with two sets [B, 2 h, N, N]
    queries: np.ndarray  # of each row, [B, h, N, d] or [B, 2 h, N, d]
    size: Size  # (H, W)


class NoRows(UserError):
    """A form's outputs are not sums of values with a weight for each token; the message says why."""


def attention_layers(model: Module) -> list[Module]:
    """Return a network's layers of attention that can show their rows, the first block's first."""
    return [layer for layer in model.sublayers() if hasattr(layer, "rows") and hasattr(layer, "project")]


def inputs_of(layer: Module, x: paddle.Tensor, size: Size) -> tuple[str, list[tuple[paddle.Tensor, ...]]]:
    """Return the name of the method that makes a layer's q, k and v, and what it gives, a tuple for each scale.

    q and the others are tokens [B, N, C] or heads [B, h, N, d], as the layer has them.
    """
    if isinstance(layer, EnhancedAttention):
        return "scales", layer.scales(x, size)
    if isinstance(layer, GatedLinearAttention):
        return "parts", [layer.parts(layer.local(x, size))]
    if isinstance(layer, RotaryAttention):
        return "parts", [layer.parts(x, size)]
    return "project", [layer.project(x, size)]


def heads(layer: Module, part: paddle.Tensor) -> paddle.Tensor:
    """Return tokens [B, N, C] or heads as heads [B, h, N, d]."""
    return split_heads(part, layer.num_heads) if part.ndim == 3 else part


def check_rows(model: Module) -> None:
    """Raise NoRows if any layer of attention in a network has no rows, with its own reason."""
    layers = attention_layers(model)
    if not layers:
        raise NoRows("its layers of attention do not show rows")
    for layer in layers:
        if not getattr(layer, "ROWS", True):
            raise NoRows("its outputs are not sums of the values with one weight for each token and head")


@paddle.no_grad()
def recorded(model: Module, images: paddle.Tensor) -> list[Record]:
    """Run a network on images [B, C, H, W] and return the record of every layer of attention, in their order.

    Raises:
        NoRows: it has none to show.
    """
    check_rows(model)
    records: list[Record] = []

    def keep(layer: Module, inputs: tuple[Any, ...]) -> None:
        x, size = inputs[:2]
        try:
            weights = layer.rows(x, size)
        except UserError as error:
            raise NoRows(str(error)) from None
        if weights.shape[2] != weights.shape[3]:
            raise NoRows("its keys are not its tokens (a reduction ratio above 1)")
        queries = [heads(layer, part[0]).numpy() for part in inputs_of(layer, x, size)[1]]
        sets = weights.shape[1] // (len(queries) * layer.num_heads)  # of rows with the same queries
        records.append(Record(weights.numpy(), np.concatenate(queries * sets, axis=1), size))

    with ExitStack() as undo:
        for layer in attention_layers(model):
            undo.callback(layer.register_forward_pre_hook(keep).remove)
        model(images)
    return records


# ---------------------------------------------------------------- injectivity


def confused_share(record: Record, agreement: float = 1e-3, difference: float = 0.1) -> float:
    """Return the share of pairs of different queries, in every image and head, whose rows agree.

    Args:
        record: of a layer.
        agreement: rows agree whose distance is at most this share of the longer one, in the sum of absolute values.
        difference: queries are different whose distance is at least this share of the usual query's length.

    Returns:
        From 0 to 1; NaN where no two queries are different.
    """
    pairs = confused = 0
    every_head = (part.reshape(-1, *part.shape[2:]) for part in (record.weights, record.queries))
    for rows, q in zip(*every_head):
        first, second = np.triu_indices(len(q), 1)
        apart = np.linalg.norm(q[first] - q[second], axis=1) >= difference * np.linalg.norm(q, axis=1).mean()
        lengths = np.abs(rows).sum(axis=1)
        distance = np.abs(rows[first[apart]] - rows[second[apart]]).sum(axis=1)
        longer = np.maximum(lengths[first[apart]], lengths[second[apart]])
        pairs += len(distance)
        confused += (distance <= agreement * longer).sum().item()
    return confused / pairs if pairs else float("nan")


def derivative_rank(layer: Module, size: Size, seed: int = 0, query: int = 0, smallest: float = 1e-7) -> int:
    """Return the rank of the derivative of a query's row with respect to that query, at random inputs.

    Through sums over queries, means, agents and landmarks a query also acts on itself, with weight 1 / N. That part is
    taken away: the query's successor is made equal to it, and what this one does to the row is subtracted.

    Args:
        layer: of float64, in evaluation mode; size: its grid (H, W).
        seed: of the standard normal q, k and v.
        query: its number.
        smallest: singular values above this share of the largest count.

    Returns:
        From 0 to d; a form with several sets of rows is measured on its first.
    """
    draws = np.random.RandomState(seed)
    tokens = layer.prefix_tokens + size[0] * size[1]
    x = paddle.to_tensor(draws.standard_normal((1, tokens, layer_width(layer))))
    name, (first, *others) = inputs_of(layer, x, size)
    parts = [draws.standard_normal(part.shape) for part in first[:3]]
    query += layer.prefix_tokens
    parts[0][..., query + 1, :] = parts[0][..., query, :]
    q, k, v = (paddle.to_tensor(part) for part in parts)
    q.stop_gradient = False
    made = (q, k, v, *first[3:])
    with method_replaced(layer, name, lambda *given: [made, *others] if name == "scales" else made):
        row = layer.rows(x, size)[0, 0, query]
        derivative = np.stack([_gradient(layer, row[j], q) for j in range(row.shape[0])])  # [N, N, d]
    direct = derivative[:, query] - derivative[:, query + 1]
    values = np.linalg.svd(direct, compute_uv=False)
    return (values > smallest * values.max()).sum().item() if values.max() > 0 else 0


def layer_width(layer: Module) -> int:
    """Return the channels C of a layer's input."""
    return next(part.weight.shape[1] for name, part in layer.named_children() if name == "proj")


def _gradient(layer: Module, number: paddle.Tensor, q: paddle.Tensor) -> np.ndarray:
    """Return the derivative of a number with respect to the first head's queries, [N, d]."""
    (found,) = paddle.grad(number, q, retain_graph=True, allow_unused=True)
    return heads(layer, paddle.zeros_like(q) if found is None else found)[0, 0].numpy()


@contextmanager
def method_replaced(layer: Module, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Put a function in the place of a layer's method meanwhile."""
    object.__setattr__(layer, name, function)
    try:
        yield
    finally:
        object.__delattr__(layer, name)


# ---------------------------------------------------------------- locality


def neighbourhood(size: Size, prefix: int) -> np.ndarray:
    """Return [N, N] booleans: whether token j is among the 3x3 patches around patch i, itself included.

    Prefix tokens have no neighbours and are nobody's.
    """
    y, x = np.divmod(np.arange(size[0] * size[1]), size[1])
    near = (np.abs(y[:, None] - y) <= 1) & (np.abs(x[:, None] - x) <= 1)
    return np.pad(near, ((prefix, 0), (prefix, 0)))


def as_many_elsewhere(near: np.ndarray, prefix: int, draws: np.random.RandomState) -> np.ndarray:
    """Return [N, N] booleans with as many tokens in each row as `near` has, drawn among all patches."""
    chosen = np.zeros_like(near)
    patches = np.arange(prefix, len(near))
    for i, count in enumerate(near.sum(axis=1)):
        chosen[i, draws.choice(patches, count, replace=False)] = True
    return chosen


def local_share(record: Record) -> float:
    """Return the mean share of a patch's weight, in absolute value, that lies on its 3x3 neighbourhood.

    Only what lies on patches counts, of patches that have all nine neighbours where the grid has any such.
    """
    prefix = record.weights.shape[2] - record.size[0] * record.size[1]
    near = neighbourhood(record.size, prefix)[prefix:, prefix:]
    inner = near.sum(axis=1) == near.sum(axis=1).max()
    weights = np.abs(record.weights[:, :, prefix:, prefix:][:, :, inner])
    total = weights.sum(axis=-1)
    share = (weights * near[inner]).sum(axis=-1) / np.where(total > 0, total, 1)
    return share[total > 0].mean().item() if (total > 0).any() else float("nan")


def row_facts(record: Record) -> dict[str, float]:
    """Return {"negative": share of the weights below 0, "low", "high": 5th and 95th percentile of the rows' sums}."""
    low, high = np.percentile(record.weights.sum(axis=-1), [5, 95])
    return {"negative": (record.weights < -1e-9).mean().item(), "low": low.item(), "high": high.item()}


# ---------------------------------------------------------------- pictures


def attention_map(record: Record, image: int, query: int) -> np.ndarray:
    """Return one query's weights over the patches, the mean over heads: [H, W]."""
    prefix = record.weights.shape[2] - record.size[0] * record.size[1]
    return record.weights[image, :, query, prefix:].mean(axis=0).reshape(record.size)
