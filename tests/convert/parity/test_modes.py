"""Train mode: with rates of zero it is eval in both frameworks, layer by layer; with others both drop
alike."""

import numpy as np
import paddle
import pytest
import torch

from convert.parity.run import compare_models, create_pair
from paddle_inline.layers.basic import Dropout
from paddle_inline.layers.drop_path import DropPath
from tests.convert.parity.specs import SMALL, small
from torch_ref.layers.basic import Dropout as TorchDropout
from torch_ref.layers.drop_path import DropPath as TorchDropPath

RATE, COUNT = 0.3, 20_000


@pytest.mark.parametrize("family", SMALL)
def test_train_mode_agrees_layer_by_layer(family):
    """Batch norms included, which in SOFT are another function then."""
    name, overrides = small(family)
    ours, theirs = create_pair(name, **overrides)
    ours.train()
    theirs.train()
    report = compare_models(ours, theirs, batch=5)
    assert report.passed, (report.divergence, report.worst())
    if family.startswith("soft"):
        for key, value in theirs.state_dict().items():
            if key.endswith(("running_mean", "running_var")):
                own = key.replace("running_mean", "_mean").replace("running_var", "_variance")
                np.testing.assert_allclose(
                    ours.state_dict()[own].numpy(), value.numpy(), rtol=1e-10, atol=1e-13
                )


@pytest.mark.parametrize("family", SMALL)
def test_rates_reach_the_same_sublayers(family):
    name, overrides = small(family)
    ours, theirs = create_pair(name, **overrides, drop_rate=0.1, drop_path_rate=RATE)

    def rates(sublayers):
        found = {}
        for key, layer in sublayers:
            if isinstance(layer, (DropPath, TorchDropPath)):
                found[key] = layer.rate
            elif isinstance(layer, (Dropout, TorchDropout)):
                found[key] = layer.p
        return found

    found = rates(ours.named_sublayers())
    assert found == rates(theirs.named_modules())
    assert max(found.values()) == pytest.approx(RATE) and 0 in found.values()


def kept(make, tensor, seed, shape):
    seed(0)
    layer = make(RATE)
    layer.train()
    return layer(tensor(np.ones(shape, "float32"))).numpy()


FRAMEWORKS = {
    "paddle": (DropPath, Dropout, paddle.to_tensor, paddle.seed),
    "torch": (TorchDropPath, TorchDropout, torch.tensor, torch.manual_seed),
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_stochastic_depth_keeps_whole_samples_and_scales_them(framework):
    drop_path, _, tensor, seed = FRAMEWORKS[framework]
    out = kept(drop_path, tensor, seed, (COUNT, 2, 3))
    assert (out == out[:, :1, :1]).all()
    np.testing.assert_allclose(np.unique(out), [0, 1 / (1 - RATE)], rtol=1e-6)
    # four standard deviations of a binomial share
    assert abs((out[:, 0, 0] > 0).mean() - (1 - RATE)) < 4 * np.sqrt(RATE * (1 - RATE) / COUNT)
    assert abs(out.mean() - 1) < 4 * np.sqrt(RATE / (1 - RATE) / COUNT)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_dropout_keeps_elements_and_scales_them(framework):
    _, dropout, tensor, seed = FRAMEWORKS[framework]
    out = kept(dropout, tensor, seed, (COUNT // 10, 10))
    np.testing.assert_allclose(np.unique(out), [0, 1 / (1 - RATE)], rtol=1e-6)
    assert abs((out > 0).mean() - (1 - RATE)) < 4 * np.sqrt(RATE * (1 - RATE) / COUNT)
    assert not (out == out[:, :1]).all()
