"""An export's ONNX file as OpenVINO runs it best: the same sums, by fewer and larger operators.

B batch, N = H * W tokens, C channels.

A file for every engine and batch holds what all of them can do: the local residual is nine shifted products there. One
convolution with a group for each image and channel is faster, but OpenVINO's CPU plugin runs it only where the filters'
shape is known, which holds B. So `simplify` changes the graph in memory, when it was read and has its batch: files stay
as they are, and earlier exports gain as well. What is not exactly as expected is left alone, and the check of an export
compares what comes of it with the model, for a known batch and for any.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

TAPS = 9  # of a 3 x 3 filter


@cache
def openvino_core() -> Any:
    """Return this process's one `openvino.Core`, which is never taken down.

    A Core's CPU plugin gives the thread a stack for signals and, when it ends, puts back the one that it found. When
    two end in the order in which they began, what is put back is gone, and the next signal that Python handles
    (Ctrl-C, the end of a loader's process) ends the process with a segmentation fault.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    import openvino

    return openvino.Core()


class _SignalStack(ctypes.Structure):
    """Linux's stack_t."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Give the thread the stack for signals that it had, after a library that makes Cores of its own."""
    openvino_core()  # what it gives lasts
    if sys.platform != "linux":
        yield
        return
    libc, before = ctypes.CDLL(None), _SignalStack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        gc.collect()
        libc.sigaltstack(ctypes.byref(before), None)


def simplify(program: Any) -> None:
    """Change an `openvino.Model` into a faster one of the same outputs; reshape it before, if it is for one batch."""
    drop_no_operations(program)
    for node in program.get_ordered_ops():
        if node.get_type_name() == "ReduceMean":
            join_means(node)
    for node in program.get_ordered_ops():
        if node.get_type_name() == "VariadicSplit" and node.get_output_size() == TAPS:
            filter_by_convolution(node)


def drop_no_operations(program: Any) -> None:
    """Take out `Identity`, and sums with a zero, which Paddle's `scale` adds to each product."""
    for node in program.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "Identity" or (kind == "Add" and _adds_nothing(node)):
            _replace(node.output(0), node.input_value(0))


def join_means(last: Any) -> None:
    """Turn a mean over rows of means over columns, [.., R, N / R, C], into one mean over N."""
    first = _producer(last.input_value(0), "ReduceMean")
    split = first and _producer(first.input_value(0), "Reshape")
    if (
        first is None
        or split is None
        or any(_constant(node.input_value(1)) != [-2] for node in (first, last))
        or first.get_keep_dims()
    ):
        return
    source, shape = split.input_value(0), _constant(split.input_value(1))
    rank = len(source.get_partial_shape())
    if shape is None or len(shape) != rank + 1 or source.get_partial_shape()[rank - 1] != shape[-1]:
        return
    from openvino import opset13 as ops

    before = source.get_partial_shape()[rank - 2]
    if before.is_dynamic or shape[-2] * shape[-3] != before.get_length():
        return
    _replace(last.output(0), ops.reduce_mean(source, [-2], last.get_keep_dims()).output(0))


def filter_by_convolution(split: Any) -> None:
    """Turn nine shifted products, whose weights come out of `split`, into one convolution with B * C groups.

    Left alone where B is open: the plugin refuses filters of an open shape.
    """
    taps, kernel = _taps(split), _kernel(split)
    if taps is None or kernel is None or split.get_output_partial_shape(0).is_dynamic:
        return
    from openvino import opset13 as ops

    tokens, (height, width, channels), total = taps
    # A part of a split is copied by a reshape, and OpenVINO 2026.4 turns it wrongly without one (CSwin, batch 1).
    heads = _heads(tokens, (height, width, channels))
    if heads is None:
        image = ops.transpose(ops.reshape(tokens, [-1, height, width, channels], False), [0, 3, 1, 2])
    else:
        image = ops.transpose(heads, [0, 1, 3, 2])
    filtered = ops.group_convolution(
        ops.reshape(image, [1, -1, height, width], False),
        ops.reshape(kernel, [-1, 1, 1, 3, 3], False),
        [1, 1],
        [1, 1],
        [1, 1],
        [1, 1],
    )
    flat = ops.reshape(filtered, [-1, channels, height * width], False)
    _replace(total, ops.transpose(flat, [0, 2, 1]).output(0))


def _kernel(split: Any) -> Any | None:
    """Return the output that holds the filters [B, C, 3, 3]; None: `split` is of something else."""
    transposed = _producer(split.input_value(0), "Transpose")
    flat = transposed and _producer(transposed.input_value(0), "Reshape")
    if (
        transposed is None
        or flat is None
        or _constant(split.input_value(1)) != [1]
        or _constant(transposed.input_value(1)) != [0, 2, 1]
    ):
        return None
    return flat.input_value(0)


def _heads(tokens: Any, sides: tuple[int, int, int]) -> Any | None:
    """Return the output that holds the tokens as heads [B, h, N, d], which the attention has made of them.

    None: there is none, the batch is 1, whose tokens are turned as fast, or they are made a map for LePE as well.
    """
    batch, found = tokens.get_partial_shape()[0], None
    for user in tokens.get_target_inputs():
        node = user.get_node()
        if node.get_type_name() != "Reshape":
            continue
        shape = node.get_output_partial_shape(0)
        if len(shape) == 4 and tuple(shape)[1:] == sides:
            return None
        transposed = _only_user(node.output(0), "Transpose")
        if (
            transposed is not None
            and _constant(transposed.input_value(1)) == [0, 2, 1, 3]
            and _splits_channels(shape, sides)
        ):
            found = transposed.output(0)
    return None if batch == 1 else found


def _splits_channels(shape: Any, sides: tuple[int, int, int]) -> bool:
    """Whether a shape is [B, N, h, d] of tokens [B, N = H * W, C = h * d]."""
    height, width, channels = sides
    if len(shape) != 4 or any(each.is_dynamic for each in tuple(shape)[1:]):
        return False
    tokens, heads, head_dim = (each.get_length() for each in tuple(shape)[1:])
    return tokens == height * width and heads * head_dim == channels


def _taps(split: Any) -> tuple[Any, tuple[int, int, int], Any] | None:
    """Return (tokens [B, N, C], (H, W, C), the sum of the products); None where anything is not as expected."""
    padded, shifts, products = [], [], []
    for output in split.outputs():
        product = _only_user(output, "Multiply")
        tap = product and _producer(product.input_value(0), "Reshape")
        part = tap and _producer(tap.input_value(0), "Slice")
        if not part:
            return None
        padded.append(part.input_value(0))
        start, step, axes = (_constant(part.input_value(i)) for i in (1, 3, 4))
        if start is None or axes != [1, 2] or step != [1, 1]:
            return None
        shifts.append(tuple(start))
        products.append(product)
    wide = _producer(padded[0], "Concat")
    if not wide or any(one != padded[0] for one in padded):
        return None
    tall = wide.get_input_size() == 3 and _producer(wide.input_value(1), "Concat")
    if not tall or tall.get_input_size() != 3 or wide.get_axis() != 2 or tall.get_axis() != 1:
        return None
    zeros = [node.input_value(i) for node in (wide, tall) for i in (0, 2)]
    rows = _producer(tall.input_value(1), "Reshape")
    if not rows or not all(_is_zero(one) for one in zeros):
        return None
    tokens = rows.input_value(0)
    shape, row_shape = tokens.get_partial_shape(), rows.get_output_partial_shape(0)
    if (
        len(shape) != 3
        or len(row_shape) != 3
        or any(shape[i].is_dynamic or row_shape[i].is_dynamic for i in (1, 2))
    ):
        return None
    channels, height = shape[2].get_length(), row_shape[1].get_length()
    width = shape[1].get_length() // height
    edges = wide.input_value(0).get_partial_shape()[2], tall.input_value(0).get_partial_shape()[1]
    whole = padded[0].get_partial_shape()
    if edges != (channels, 1) or (whole[1], whole[2]) != (height + 2, (width + 2) * channels):
        return None
    if shifts != [(y, x * channels) for y in range(3) for x in range(3)]:
        return None
    total = _sum_of(products)
    return None if total is None else (tokens, (height, width, channels), total)


def _sum_of(products: list[Any]) -> Any | None:
    """Return the output that is the sum of all products and nothing else, added one after the other."""
    total = products[0].output(0)
    for product in products[1:]:
        add = _only_user(total, "Add")
        if add is None or _only_user(product.output(0), "Add") is None:
            return None
        pair = [add.input_value(i) for i in (0, 1)]
        if total not in pair or product.output(0) not in pair:
            return None
        total = add.output(0)
    return total


def _is_zero(output: Any) -> bool:
    node = output.get_node()
    if node.get_type_name() == "Broadcast":
        return _is_zero(node.input_value(0))
    return node.get_type_name() == "Constant" and not np.any(node.get_data())


def _adds_nothing(add: Any) -> bool:
    one, zero = add.input_value(0), add.input_value(1)
    node = zero.get_node()
    return (
        node.get_type_name() == "Constant"
        and node.get_data().size == 1
        and not np.any(node.get_data())
        and len(zero.get_partial_shape()) <= len(one.get_partial_shape())
    )


def _producer(output: Any, kind: str) -> Any | None:
    node = output.get_node()
    return node if node.get_type_name() == kind else None


def _only_user(output: Any, kind: str) -> Any | None:
    users = list(output.get_target_inputs())
    node = users[0].get_node() if len(users) == 1 else None
    return node if node is not None and node.get_type_name() == kind else None


def _constant(output: Any) -> list[int] | None:
    node = output.get_node()
    return node.get_data().ravel().tolist() if node.get_type_name() == "Constant" else None


def _replace(old: Any, new: Any) -> None:
    for user in list(old.get_target_inputs()):
        user.replace_source_output(new)
