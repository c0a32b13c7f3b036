"""Train mode: rates of zero change nothing, other rates draw anew, and recomputation draws the same twice."""

import numpy as np
import paddle
import pytest
import torch

import paddle_inline
import torch_ref

PYRAMID = {"depths": (1, 2, 1, 1), "num_heads": (2, 2, 2, 4), "img_size": 64, "num_classes": 5}
MODELS = {
    "inline_deit_digits": {"depth": 3},
    "inline_pvt_tiny": {**PYRAMID, "embed_dims": (8, 8, 12, 16), "attn_type": "ISIS"},
    "inline_swin_tiny": {**PYRAMID, "embed_dim": 8, "attn_type": "SMSI1", "window_size": 64},
    "inline_cswin_tiny": {**PYRAMID, "embed_dim": 8, "attn_type": "SMSI1"},
}
RATES = {"drop_rate": 0.2, "drop_path_rate": 0.4}


class Paddle:
    package, tensor, seed = paddle_inline, staticmethod(paddle.to_tensor), staticmethod(paddle.seed)


class Torch:
    package, tensor, seed = torch_ref, staticmethod(torch.tensor), staticmethod(torch.manual_seed)


def run(framework, name, weights=None, **overrides):
    """(logits, gradient of every parameter) of one training pass, and the model."""
    model = framework.package.create_model(name, **MODELS[name], **overrides)
    if weights is not None:
        framework.package.load_weights(model, weights)
    framework.seed(7)
    images = np.random.RandomState(0).standard_normal((4, 3, *model.img_size)).astype("float32")
    logits = model(framework.tensor(images))
    (logits**2).sum().backward()
    gradients = {key: p.grad.numpy() for key, p in model.named_parameters() if p.grad is not None}
    return logits.detach().numpy(), gradients, model


def weights_of(model):
    return {key: value.detach().numpy().copy() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("framework", [Paddle, Torch])
@pytest.mark.parametrize("name", MODELS)
class TestTrainMode:
    def test_rates_of_zero_equal_eval(self, framework, name):
        logits, _, model = run(framework, name)
        images = np.random.RandomState(0).standard_normal((4, 3, *model.img_size)).astype("float32")
        assert model.training
        model.eval()
        np.testing.assert_array_equal(model(framework.tensor(images)).detach().numpy(), logits)

    def test_rates_change_training_alone(self, framework, name):
        logits, _, model = run(framework, name)
        noisy, _, noisy_model = run(framework, name, weights_of(model), **RATES)
        assert np.abs(noisy - logits).max() > 1e-3 * np.abs(logits).max()
        noisy_model.eval()
        images = np.random.RandomState(0).standard_normal((4, 3, *model.img_size)).astype("float32")
        np.testing.assert_array_equal(noisy_model(framework.tensor(images)).detach().numpy(), logits)

    def test_recomputation_draws_the_same_twice(self, framework, name):
        """Else gradients would be of another function than the logits."""
        logits, gradients, model = run(framework, name, **RATES)
        again, recomputed, _ = run(framework, name, weights_of(model), recompute=True, **RATES)
        np.testing.assert_array_equal(again, logits)
        assert gradients.keys() == recomputed.keys()
        for key, gradient in gradients.items():
            np.testing.assert_array_equal(recomputed[key], gradient, err_msg=key)
