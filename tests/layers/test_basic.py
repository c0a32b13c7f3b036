"""The base of Paddle's layers: casting a model leaves its integers alone."""

import numpy as np
import paddle
import pytest

from paddle_inline.layers.basic import Module, Sequential
from paddle_inline.layers.window_attention import WindowSoftmaxAttention


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("wrap", [lambda layer: layer, Sequential], ids=["itself", "inside another"])
def test_casting_keeps_indices(dtype, wrap):
    layer = WindowSoftmaxAttention(4, 2, grid=(12, 12))
    expected = layer.relative_position_index.numpy()
    assert expected.max() == 528  # bfloat16 has no 257
    wrap(layer).to(dtype=dtype)
    assert layer.relative_position_index.dtype == paddle.int64
    np.testing.assert_array_equal(layer.relative_position_index.numpy(), expected)
    assert str(layer.relative_position_bias_table.dtype).endswith(dtype)
    assert str(layer.qkv.weight.dtype).endswith(dtype)


def test_floating_buffers_are_cast():
    layer = Module()
    layer.register_buffer("mask", paddle.zeros([2]))
    layer.to(dtype="float64")
    assert layer.mask.dtype == paddle.float64
    layer.to(device="cpu")  # no dtype: each tensor keeps its own
    assert layer.mask.dtype == paddle.float64
