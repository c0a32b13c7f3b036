"""Layer normalisation: its epsilon, which Paddle's kernel rounds to float32."""

import numpy as np
import paddle
import pytest

from paddle_inline.layers.basic import LayerNorm


@pytest.mark.parametrize("eps", [1e-5, 1e-6])
def test_epsilon_is_exact_in_float64(eps):
    layer = LayerNorm(6, eps)
    layer.to(dtype="float64")
    x = np.random.default_rng(0).standard_normal((4, 6)) * 1e-4  # variances far below epsilon
    centred = x - x.mean(1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True) + eps)
    assert np.abs(layer(paddle.to_tensor(x)).numpy() - expected).max() < 1e-14 * np.abs(expected).max()
    rounded = paddle.nn.LayerNorm.forward(layer, paddle.to_tensor(x)).numpy()
    assert np.abs(rounded - expected).max() > 1e-10 * np.abs(expected).max()  # what the correction is for
