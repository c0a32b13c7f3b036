"""A model's width and a head of another number of classes."""

import numpy as np
import pytest

import paddle_inline
import torch_ref
from paddle_inline.utils.errors import UserError

SMALL = {
    "inline_deit_digits": {"depth": 1},
    "inline_pvt_tiny": {"img_size": 32, "depths": (1, 1, 1, 1)},
    "inline_swin_tiny": {"img_size": 32, "depths": (1, 1, 1, 1)},
    "inline_cswin_tiny": {"img_size": 32, "depths": (1, 1, 1, 1)},
    "soft_tiny": {"img_size": 32, "depths": (1, 1, 1, 1)},
}

TORCH = {"float64": "DoubleTensor", "int64": "LongTensor", "uint8": "ByteTensor"}


def paddle_zeros(*shape):
    import paddle

    return paddle.zeros(shape)


def torch_zeros(*shape):
    import torch

    return torch.zeros(shape)


@pytest.mark.parametrize(
    ("package", "zeros"), [(paddle_inline, paddle_zeros), (torch_ref, torch_zeros)], ids=["paddle", "torch"]
)
class TestResetClassifier:
    @pytest.mark.parametrize("name", SMALL)
    def test_another_head_and_all_else_as_before(self, package, zeros, name):
        model = package.create_model(name, num_classes=4, **SMALL[name])
        model.eval()
        before = {key: np.asarray(value.detach()) for key, value in model.state_dict().items()}
        x = zeros(1, 3, 32, 32)
        model.reset_classifier(7)
        assert tuple(model(x).shape) == (1, 7) and model.spec.num_classes == 7
        assert not model.head.training
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(
            np.array_equal(np.asarray(after[key].detach()), value)
            for key, value in before.items()
            if not key.startswith("head.")
        )
        model.reset_classifier(0)
        assert tuple(model(x).shape) == (1, model.num_features)

    def test_a_number_that_no_model_has_changes_nothing(self, package, zeros):
        model = package.create_model("inline_deit_digits", depth=1)
        head = model.head
        for wrong in (-1, 2.5, True, None):
            with pytest.raises((UserError, torch_ref.utils.errors.UserError), match="num_classes"):
                model.reset_classifier(wrong)
        assert model.head is head and model.spec.num_classes == 10

    def test_the_new_head_has_the_precision_of_the_model(self, package, zeros):
        model = package.create_model("inline_deit_digits", depth=1)
        if package is torch_ref:
            model.double()
        else:
            model.to(dtype="float64")
        model.reset_classifier(3)
        assert str(model.head.weight.dtype).endswith("float64")


def test_names_of_classes_go_with_the_head_that_they_are_of():
    model = paddle_inline.create_model("inline_deit_digits", depth=1, num_classes=2)
    model.description = {
        "model": model.name,
        "overrides": {"num_classes": 2},
        "classes": ["a", "b"],
        "format": 1,
    }
    model.reset_classifier(3)
    assert model.description == {"model": model.name, "overrides": {"num_classes": 3}, "format": 1}

    @pytest.mark.parametrize("name", [*SMALL, "backbone"])
    @pytest.mark.parametrize("kind", ["float64", "int64", "uint8"])
    def test_images_of_a_type_that_no_layer_takes(self, package, zeros, name, kind):
        if name == "backbone":
            model = package.create_backbone("inline_pvt_tiny", depths=(1, 1, 1, 1))
        else:
            model = package.create_model(name, **SMALL[name])
        x = zeros(1, 3, 32, 32)
        x = x.astype(kind) if package is paddle_inline else x.type(f"torch.{TORCH[kind]}")
        with pytest.raises(
            ValueError, match=rf"images of type {kind} for a model of float32: .* images\.astype\('float32'\)"
        ) as caught:
            model(x)
        assert type(caught.value).__name__ == "UserError"
        if kind == "float64":
            assert len(model.to(dtype=x.dtype)(x)) in (1, 4)
