"""Stochastic depth and dropout: what is kept, how it is scaled, and when nothing happens."""

import importlib

import numpy as np
import paddle
import pytest
import torch

TWINS = pytest.mark.parametrize(
    ("package", "tensor"),
    [
        pytest.param("paddle_inline", paddle.to_tensor, id="paddle"),
        pytest.param("torch_ref", torch.tensor, id="torch"),
    ],
)
SAMPLES = 4000


def layers(package, module):
    return importlib.import_module(f"{package}.layers.{module}")


@TWINS
class TestDropPath:
    def test_whole_samples_are_dropped_or_scaled(self, package, tensor):
        x = np.random.RandomState(0).uniform(1, 2, (SAMPLES, 3, 2)).astype("float32")
        out = layers(package, "drop_path").DropPath(0.3)(tensor(x)).numpy()
        kept = out[:, 0, 0] > 0
        np.testing.assert_allclose(out[kept], x[kept] / 0.7, rtol=1e-6)
        assert (out[~kept] == 0).all()
        assert abs(kept.mean() - 0.7) < 5 * (0.7 * 0.3 / SAMPLES) ** 0.5  # five standard errors
        neighbours = (kept[1:] & kept[:-1]).mean()
        assert abs(neighbours - 0.49) < 0.04  # samples are drawn independently

    def test_gradients_are_scaled_as_the_output_is(self, package, tensor):
        x = tensor(np.ones((64, 5), "float32"))
        x.stop_gradient = False  # Paddle's way; to torch a plain attribute
        if package == "torch_ref":
            x.requires_grad_()
        out = layers(package, "drop_path").DropPath(0.5)(x)
        out.sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), out.detach().numpy())
        assert set(np.unique(out.detach().numpy())) == {0, 2}

    def test_nothing_happens_at_rate_zero_or_in_eval_mode(self, package, tensor):
        x = tensor(np.ones((8, 2), "float32"))
        drop_path = layers(package, "drop_path").DropPath
        assert drop_path(0.0)(x) is x
        layer = drop_path(0.9)
        layer.eval()
        assert layer(x) is x

    @pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
    def test_the_type_is_kept(self, package, tensor, dtype):
        x = tensor(np.ones((8, 2), "float32"))
        x = x.astype(dtype) if package == "paddle_inline" else x.to(getattr(torch, dtype))
        assert layers(package, "drop_path").DropPath(0.5)(x).dtype == x.dtype

    def test_rates_rise_linearly_to_the_last_block(self, package, tensor):
        depth_rates = layers(package, "drop_path").depth_rates
        np.testing.assert_allclose(depth_rates(0.2, 5), [0, 0.05, 0.1, 0.15, 0.2], rtol=1e-12)
        assert depth_rates(0.2, 1) == [0]
        assert depth_rates(0.0, 3) == [0, 0, 0]


@TWINS
def test_dropout_draws_each_element_and_keeps_the_mean(package, tensor):
    x = np.random.RandomState(0).uniform(1, 2, (200, 100)).astype("float32")
    layer = layers(package, "basic").Dropout(0.2)
    out = layer(tensor(x)).numpy()
    kept = out > 0
    np.testing.assert_allclose(out[kept], x[kept] / 0.8, rtol=1e-6)
    assert abs(kept.mean() - 0.8) < 5 * (0.8 * 0.2 / kept.size) ** 0.5
    assert kept.mean(1).min() > 0.5 and kept.mean(1).max() < 1  # by element, not by sample
    layer.eval()
    np.testing.assert_array_equal(layer(tensor(x)).numpy(), x)
