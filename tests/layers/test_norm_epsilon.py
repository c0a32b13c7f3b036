"""Layer normalisation: its epsilon, which Paddle's kernel rounds to float32, and the gradient of a frozen one."""

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


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_frozen_norm_passes_its_weight_on_to_the_gradient(dtype):
    """Paddle's own passes on the gradient of a norm whose weight is 1."""
    random, found = np.random.default_rng(0), []
    x, weight, gradient = (
        random.standard_normal(shape).astype(dtype) for shape in ((3, 5, 6), (6,), (3, 5, 6))
    )
    for frozen in (False, True):
        layer = LayerNorm(6)
        layer.to(dtype=dtype)
        layer.weight.set_value(weight)
        layer.weight.stop_gradient = layer.bias.stop_gradient = frozen
        for forward in (layer, lambda x, layer=layer: paddle.nn.LayerNorm.forward(layer, x)):
            images = paddle.to_tensor(x, stop_gradient=False)
            out = forward(images)
            (out * paddle.to_tensor(gradient)).sum().backward()
            found.append((out.numpy(), images.grad.numpy()))
        assert (layer.weight.grad is None) == frozen
    (out, free), (_, plain), (same, ours), (_, theirs) = found
    np.testing.assert_array_equal(out, same)
    np.testing.assert_array_equal(free, ours)
    assert np.abs(theirs - plain).max() > 0.1  # what the correction is for
