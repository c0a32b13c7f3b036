"""InLine-DeiT: shapes, options and equality of the twins at sizes that no release has."""

import numpy as np
import paddle
import pytest
import torch

import paddle_inline
import torch_ref
from convert.parity import compare

SMALL = {"embed_dim": 24, "num_heads": 2, "depth": 3, "img_size": 16, "num_classes": 7}


def build(package, **overrides):
    model = package.create_model("inline_deit_digits", **{**SMALL, **overrides})
    model.eval()
    return model


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"attn_type": "S"},
        {"attn_type": "IIII", "kernel_function": "relu"},
        {"kernel_function": "leaky_relu"},
        {"kernel_function": "exp"},
        {"num_heads": 1},
        {"img_size": (8, 20)},
        {"img_size": 4, "num_classes": 1},
        {"in_chans": 1, "mlp_ratio": 2.5, "patch_size": 8},
    ],
    ids=str,
)
def test_the_twins_agree(overrides):
    report = compare("inline_deit_digits", batch=3, **{**SMALL, **overrides})
    assert report.passed, report.first_divergence


@pytest.mark.parametrize(
    ("package", "tensor"), [(paddle_inline, paddle.to_tensor), (torch_ref, torch.tensor)]
)
class TestForward:
    def test_features_head_and_whole_agree(self, package, tensor):
        model = build(package)
        x = tensor(np.random.RandomState(0).standard_normal((2, 3, 16, 16)).astype("float32"))
        features = model.forward_features(x)
        assert list(features.shape) == [2, 17, 24]
        logits = model.forward_head(features)
        assert list(logits.shape) == [2, 7]
        np.testing.assert_array_equal(logits.detach().numpy(), model(x).detach().numpy())

    def test_without_classes_there_is_no_head(self, package, tensor):
        model = build(package, num_classes=0)
        x = tensor(np.zeros((2, 3, 16, 16), "float32"))
        assert list(model(x).shape) == [2, 24]
        assert not any(name.startswith("head") for name in model.state_dict())

    def test_intermediates_are_maps_of_the_chosen_blocks(self, package, tensor):
        model = build(package, img_size=(8, 16))
        x = tensor(np.random.RandomState(0).standard_normal((2, 3, 8, 16)).astype("float32"))
        maps = model.forward_intermediates(x)
        assert [list(m.shape) for m in maps] == [[2, 24, 2, 4]] * 3
        last = model.forward_intermediates(x, indices=[-1, 0])
        np.testing.assert_array_equal(last[0].detach().numpy(), maps[2].detach().numpy())
        np.testing.assert_array_equal(last[1].detach().numpy(), maps[0].detach().numpy())
        normed = model.norm(last[0].flatten(2).transpose(*((1, 2) if package is torch_ref else ([0, 2, 1],))))
        np.testing.assert_allclose(
            normed.detach().numpy(), model.forward_features(x)[:, 1:].detach().numpy(), atol=1e-6
        )
        with pytest.raises(ValueError, match=r"block 3 does not exist; indices lie in -3 \.\. 2"):
            model.forward_intermediates(x, indices=[3])

    def test_another_size_says_how_to_build_for_it(self, package, tensor):
        with pytest.raises(ValueError, match=r"\(3, 20, 20\).*built for \(3, 16, 16\).*img_size=\(20, 20\)"):
            build(package)(tensor(np.zeros((1, 3, 20, 20), "float32")))

    def test_recompute_changes_no_gradient(self, package, tensor):
        plain, again = build(package), build(package, recompute=True)
        weights = {name: value.detach().numpy() for name, value in plain.state_dict().items()}
        package.load_weights(again, weights)
        x = np.random.RandomState(0).standard_normal((2, 3, 16, 16)).astype("float32")
        gradients = []
        for model in (plain, again):
            model.train()
            model(tensor(x)).sum().backward()
            gradients.append(
                {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
            )
        assert gradients[0].keys() == gradients[1].keys()
        for name, gradient in gradients[0].items():
            np.testing.assert_array_equal(gradient, gradients[1][name], err_msg=name)
