"""Batch normalisation: PyTorch's running statistics in Paddle."""

import numpy as np
import paddle
import pytest

from paddle_inline.layers.batch_norm import BatchNorm2d


def batches(count, *shape):
    return np.random.default_rng(0).standard_normal((count, *shape)) * 3 + 1


def test_running_statistics_by_hand():
    layer = BatchNorm2d(2)
    layer.train()
    (x,) = batches(1, 3, 2, 1, 2).astype("float32")
    layer(paddle.to_tensor(x))
    assert np.allclose(layer._mean.numpy(), 0.1 * x.mean((0, 2, 3)), atol=1e-6)
    unbiased = x.transpose(1, 0, 2, 3).reshape(2, -1).var(axis=1, ddof=1)
    assert np.allclose(layer._variance.numpy(), 0.9 + 0.1 * unbiased, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 4, 3, 5), (1, 4, 1, 2)], ids=["2x4x3x5", "two_numbers"])
def test_five_steps_and_their_gradients_are_pytorch_s(shape):
    import torch

    from torch_ref.layers.batch_norm import BatchNorm2d as Reference

    ours, theirs = BatchNorm2d(4), Reference(4).double()
    ours.to(dtype="float64")
    for ours_p, theirs_p in zip((ours.weight, ours.bias), (theirs.weight, theirs.bias)):
        values = np.random.default_rng(1).standard_normal(4)
        ours_p.set_value(values)
        theirs_p.data = torch.tensor(values)
    ours.train()
    for x in batches(5, *shape):
        a, b = paddle.to_tensor(x, stop_gradient=False), torch.tensor(x, requires_grad=True)
        (ours(a) ** 3).sum().backward()
        (theirs(b) ** 3).sum().backward()
        assert np.abs(a.grad.numpy() - b.grad.numpy()).max() < 1e-11 * max(b.grad.abs().max().item(), 1)
    for grad, expected in ((ours.weight.grad, theirs.weight.grad), (ours.bias.grad, theirs.bias.grad)):
        assert np.abs(grad.numpy() - expected.numpy()).max() < 1e-11 * expected.abs().max().item()
    assert np.abs(ours._mean.numpy() - theirs.running_mean.numpy()).max() < 1e-14
    assert np.abs(ours._variance.numpy() - theirs.running_var.numpy()).max() < 1e-13
    ours.eval()
    theirs.eval()
    x = batches(1, *shape)[0]
    difference = ours(paddle.to_tensor(x)).numpy() - theirs(torch.tensor(x)).detach().numpy()
    assert np.abs(difference).max() < 1e-13


def test_one_number_per_channel_has_no_variance():
    layer = BatchNorm2d(2)
    layer.train()
    with pytest.raises(ValueError, match=r"more than 1 value per channel.*\[1, 2, 1, 1\]"):
        layer(paddle.zeros([1, 2, 1, 1]))
    layer.eval()
    assert layer(paddle.zeros([1, 2, 1, 1])).shape == [1, 2, 1, 1]


def test_statistics_are_constants_to_training_and_move_in_train_mode_alone():
    layer = BatchNorm2d(2)
    assert [name for name, p in layer.named_parameters() if not p.stop_gradient] == ["weight", "bias"]
    layer.eval()
    layer(paddle.ones([2, 2, 2, 2]))
    assert layer._mean.tolist() == [0, 0] and layer._variance.tolist() == [1, 1]


def test_epsilon_is_exact_in_float64():
    """Paddle rounds it to float32: without the correction this is off by 1e-8."""
    layer = BatchNorm2d(2)
    layer.to(dtype="float64")
    layer.eval()
    layer._variance.set_value(np.zeros(2))
    x = batches(1, 2, 2, 3, 3)[0]
    assert np.abs(layer(paddle.to_tensor(x)).numpy() * 1e-5**0.5 / x - 1).max() < 1e-15


@pytest.mark.parametrize("frozen", ["weight", "bias"])
@pytest.mark.parametrize("training", [True, False])
def test_what_learns_beside_a_frozen_part_has_its_gradient(frozen, training):
    """Paddle's own operator gives it none."""
    layer, x = BatchNorm2d(3), paddle.randn([4, 3, 5, 5])
    layer.train() if training else layer.eval()
    x.stop_gradient = False
    factor = paddle.randn(x.shape)

    def gradients():
        layer.clear_gradients()
        x.clear_gradient()
        (layer(x) * factor).sum().backward()
        return {
            "x": x.grad.numpy(),
            **{n: p.grad.numpy() for n, p in layer.named_parameters() if p.grad is not None},
        }

    whole = gradients()
    getattr(layer, frozen).stop_gradient = True
    layer.clear_gradients()
    part = gradients()
    assert getattr(layer, frozen).stop_gradient and whole.keys() - part.keys() <= {frozen}
    for name in {"x", "weight", "bias"} - {frozen}:
        np.testing.assert_allclose(part[name], whole[name], rtol=1e-5, atol=1e-6)
