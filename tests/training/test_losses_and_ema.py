"""Losses and the averaged weights, against timm and by hand."""

import numpy as np
import paddle
import pytest

from paddle_inline.training.ema import Ema, decay_at, initial_share, total_decay
from paddle_inline.training.losses import make_loss, smoothed_cross_entropy, soft_target_cross_entropy


@pytest.fixture
def batch():
    rng = np.random.RandomState(0)
    logits = rng.standard_normal((6, 5)) * 3
    targets = rng.dirichlet([1.0] * 5, 6)
    return logits, np.array([0, 4, 2, 2, 1, 3]), targets


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_smoothed_cross_entropy_equals_timm(batch, smoothing):
    torch, timm_loss = pytest.importorskip("torch"), pytest.importorskip("timm.loss")
    logits, labels, _ = batch
    theirs_in = torch.tensor(logits, requires_grad=True)
    theirs = timm_loss.LabelSmoothingCrossEntropy(smoothing)(theirs_in, torch.tensor(labels))
    theirs.backward()
    ours_in = paddle.to_tensor(logits, stop_gradient=False)
    ours = make_loss(False, smoothing)(ours_in, paddle.to_tensor(labels))
    ours.backward()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-14)
    np.testing.assert_allclose(ours_in.grad.numpy(), theirs_in.grad.numpy(), rtol=0, atol=1e-15)


def test_soft_target_cross_entropy_equals_timm(batch):
    torch, timm_loss = pytest.importorskip("torch"), pytest.importorskip("timm.loss")
    logits, _, targets = batch
    theirs_in = torch.tensor(logits, requires_grad=True)
    theirs = timm_loss.SoftTargetCrossEntropy()(theirs_in, torch.tensor(targets))
    theirs.backward()
    ours_in = paddle.to_tensor(logits, stop_gradient=False)
    ours = make_loss(True, 0.1)(ours_in, paddle.to_tensor(targets))
    ours.backward()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-14)
    np.testing.assert_allclose(ours_in.grad.numpy(), theirs_in.grad.numpy(), rtol=0, atol=1e-15)


def test_one_hot_targets_make_the_losses_one(batch):
    targets = paddle.to_tensor(np.eye(5)[batch[1]] * 0.9 + 0.02)  # Paddle 2.6 rounds what it adds to float32
    logits, labels, _ = (paddle.to_tensor(part) for part in batch)
    soft = soft_target_cross_entropy(logits, targets)
    assert soft.item() == pytest.approx(smoothed_cross_entropy(logits, labels, 0.1).item(), abs=1e-14)


def small_model():
    return paddle.nn.Sequential(paddle.nn.Linear(3, 4), paddle.nn.BatchNorm1D(4))


def test_ema_by_hand_buffers_too():
    model = small_model()
    ema = Ema(model, 0.75)
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    model[0].weight.set_value(model[0].weight + 1.0)
    model[1]._mean.set_value(model[1]._mean + 2.0)
    ema.update(model)
    np.testing.assert_allclose(ema.average["0.weight"].numpy(), before["0.weight"] + 0.25, atol=1e-7)
    np.testing.assert_allclose(ema.average["1._mean"].numpy(), before["1._mean"] + 0.5, atol=1e-7)
    np.testing.assert_array_equal(ema.average["0.bias"].numpy(), before["0.bias"])


def test_ema_equals_timm_over_steps():
    torch, utils = pytest.importorskip("torch"), pytest.importorskip("timm.utils")
    model = paddle.nn.Linear(3, 4)
    theirs = torch.nn.Linear(3, 4)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(model.weight.numpy().T))
    ema, timm_ema = Ema(model, 0.9), utils.ModelEmaV2(theirs, decay=0.9)
    for step in range(20):
        shift = np.random.RandomState(step).standard_normal((3, 4)).astype(np.float32)
        model.weight.set_value(model.weight + paddle.to_tensor(shift))
        with torch.no_grad():
            theirs.weight.add_(torch.tensor(shift.T))
        ema.update(model)
        timm_ema.update(theirs)
    # float32, 20 steps of three roundings each of values below 8
    ours = ema.average["weight"].numpy().T
    np.testing.assert_allclose(ours, timm_ema.module.weight.detach().numpy(), rtol=0, atol=2e-6)


def test_ema_is_put_in_and_taken_out_again():
    model = small_model()
    ema = Ema(model, 0.5)
    model[0].weight.set_value(model[0].weight + 1.0)
    own = model[0].weight.numpy().copy()
    with pytest.raises(KeyError), ema.applied_to(model):
        np.testing.assert_allclose(model[0].weight.numpy(), own - 1.0, atol=1e-6)
        raise KeyError  # an evaluation that fails leaves the model as it was, too
    np.testing.assert_array_equal(model[0].weight.numpy(), own)
    assert not model[0].weight.stop_gradient


def test_decay_of_an_update():
    assert total_decay(0.9996, 1024, 4096) == 0.9996**0.25
    assert total_decay(0.99996, 1024, None) == 0.99996


@pytest.mark.parametrize("decay", [0.9, 0.9996, 0.99996])
def test_the_warm_up_of_the_average_is_timm_s(decay):
    torch, utils = pytest.importorskip("torch"), pytest.importorskip("timm.utils")
    theirs = utils.ModelEmaV3(torch.nn.Linear(1, 1), decay=decay, use_warmup=True)
    for step in (1, 2, 3, 10, 1000, 10**6, 10**8):
        assert decay_at(step, decay) == pytest.approx(theirs.get_decay(step), rel=1e-12)


def test_the_average_warms_up():
    model = paddle.nn.Linear(1, 1)
    ema = Ema(model, 0.99, warmup=True)
    start = model.weight.numpy().item()
    values, expected = [start + 1, start + 2, start + 4], start
    for step, value in enumerate(values, start=1):
        model.weight.set_value(paddle.full([1, 1], value))
        ema.update(model, step)
        decay = 1 - step ** (-2 / 3)
        expected = decay * expected + (1 - decay) * value
    assert ema.average["weight"].numpy().item() == pytest.approx(expected, rel=1e-6)
    assert initial_share(0.99996, 100) == pytest.approx(0.996, abs=1e-4)
    assert initial_share(0.99996, 100, warmup=True) == 0
