"""Weights for other channels, and models found by their tensors, in both packages."""

import warnings

import numpy as np
import paddle
import pytest
import torch

import paddle_inline
import torch_ref
from paddle_inline.utils.errors import UserError
from paddle_inline.weights.bfloat16 import from_bfloat16, to_bfloat16
from paddle_inline.weights.channels import fit_convolution, other_channels

FAMILIES = {
    "inline_deit_digits": {"depth": 1, "embed_dim": 8, "num_heads": 2, "img_size": 16},
    "inline_pvt_tiny": {
        "depths": (1, 1, 1, 1),
        "embed_dims": (8, 8, 8, 8),
        "num_heads": (1, 1, 1, 1),
        "img_size": 64,
    },
    "inline_swin_tiny": {
        "depths": (1, 2, 2, 1),
        "embed_dim": 8,
        "num_heads": (1, 1, 1, 1),
        "attn_type": "ISSS",
        "img_size": 224,
    },
    "inline_cswin_tiny": {"depths": (1, 1, 1, 1), "embed_dim": 8, "num_heads": (1, 1, 2, 2), "img_size": 64},
    "soft_digits": {"embed_dims": (8, 8, 8, 8), "num_heads": (1, 1, 1, 1)},
}
PACKAGES = [paddle_inline, torch_ref]


def stored(package, folder, model):
    """A model's state dict as its framework writes it."""
    if package is paddle_inline:
        paddle.save(model.state_dict(), str(folder / "w.pdparams"))
        return folder / "w.pdparams"
    torch.save(model.state_dict(), folder / "w.pth")
    return folder / "w.pth"


def values(model, name):
    return model.state_dict()[name].numpy()


@pytest.mark.parametrize("given, channels", [(3, 1), (3, 2), (3, 4), (3, 5), (3, 7), (1, 3), (1, 4)])
def test_weights_are_fitted_as_timm_fits_them(given, channels):
    helpers = pytest.importorskip("timm.models")
    weight = np.random.RandomState(0).standard_normal((5, 3, 4, 4)).astype("float32")
    weight = weight[:, :given]
    found = fit_convolution(weight, channels)
    assert found.shape == (5, channels, 4, 4) and found.dtype == weight.dtype
    if given == 3:
        expected = helpers.adapt_input_conv(channels, torch.from_numpy(weight)).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6)
    grey = np.random.RandomState(1).standard_normal((4, 4))
    alike = [
        np.einsum("dchw,hw->d", w.astype("f8"), grey) for w in (weight, found)
    ]  # the same in all channels
    np.testing.assert_allclose(*alike, atol=1e-5) if channels % given == 0 or channels == 1 else None


def test_bfloat16_stays_bfloat16():
    weight = to_bfloat16(np.random.RandomState(0).standard_normal((2, 3, 1, 1)))
    for channels in (1, 4):
        found = fit_convolution(weight, channels)
        assert found.dtype == np.uint16
        expected = fit_convolution(from_bfloat16(weight).astype("float64"), channels)
        np.testing.assert_array_equal(found, to_bfloat16(expected))


@pytest.mark.parametrize(
    "own, found, fits",
    [
        ((8, 1, 4, 4), (8, 3, 4, 4), True),
        ((8, 1, 4, 4), (8, 1, 4, 4), False),
        ((8, 1, 4, 4), (8, 4, 4, 4), False),
        ((8, 1, 4, 4), (8, 3, 7, 7), False),
        ((8, 1, 4, 4), (9, 3, 4, 4), False),
        ((8, 2, 4, 4), (8, 3, 4, 4), False),  # of another convolution
        ((8, 1, 4), (8, 3, 4), False),
    ],
)
def test_only_a_first_convolution_is_fitted(own, found, fits):
    assert other_channels(own, found, 1) == fits


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_rgb_weights_in_grey_and_with_alpha(tmp_path, package, name):
    model = package.create_model(name, **FAMILIES[name])
    path = stored(package, tmp_path, model)
    first = next(
        key for key, tensor in model.state_dict().items() if tensor.ndim == 4 and tensor.shape[1] == 3
    )
    for channels in (1, 4):
        with pytest.warns(UserWarning, match=r"w\.pd|w\.pth"):
            found = package.create_model(name, weights=path, in_chans=channels, **FAMILIES[name])
        weight = values(model, first)
        expected = weight.sum(1, keepdims=True) if channels == 1 else weight[:, [0, 1, 2, 0]] * 0.75
        np.testing.assert_allclose(values(found, first), expected, atol=1e-6)
        for key in set(model.state_dict()) - {first}:
            np.testing.assert_array_equal(values(found, key), values(model, key))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        package.create_model(name, weights=path, in_chans=3, **FAMILIES[name])
    with pytest.warns(UserWarning, match="head set to zero"):
        found = package.create_model(name, weights=path, in_chans=1, num_classes=3, **FAMILIES[name])
    assert values(found, first).shape[1] == 1 and not values(found, "head.weight").any()


@pytest.mark.parametrize("name", ["inline_deit_digits", "inline_pvt_tiny", "inline_swin_tiny", "soft_digits"])
def test_both_packages_fit_a_size_alike(tmp_path, name):
    sizes = {"inline_swin_tiny": 448, "inline_deit_digits": (32, 24)}
    size = sizes.get(name, (96, 64))
    model = torch_ref.create_model(name, **FAMILIES[name])
    torch.save(model.state_dict(), tmp_path / "w.pth")
    from convert import torch_to_paddle

    ours = paddle_inline.create_model(name, **FAMILIES[name])
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    arrays = torch_to_paddle(state, ours)
    paddle.save({key: paddle.to_tensor(value) for key, value in arrays.items()}, str(tmp_path / "w.pdparams"))
    rest = {key: value for key, value in FAMILIES[name].items() if key != "img_size"}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        theirs = torch_ref.create_model(name, weights=tmp_path / "w.pth", img_size=size, **rest)
        ours = paddle_inline.create_model(name, weights=tmp_path / "w.pdparams", img_size=size, **rest)
    assert len(said) >= 2 or name == "soft_digits"
    fitted = torch_to_paddle({key: value.numpy() for key, value in theirs.state_dict().items()}, ours)
    for key, value in ours.state_dict().items():
        np.testing.assert_allclose(value.numpy(), fitted[key], atol=1e-6, err_msg=key)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
class TestAFileThatDoesNotNameItsModel:
    @pytest.mark.parametrize(
        "sizes", [{}, {"num_classes": 3, "in_chans": 1}, {"img_size": 48}, {"num_classes": 0}]
    )
    def test_it_is_found_by_its_tensors(self, package, tmp_path, sizes):
        model = package.create_model("inline_deit_digits", **sizes)
        path = stored(package, tmp_path, model)
        headless = ", without a head" if sizes.get("num_classes") == 0 else ""
        said = rf"does not name its model: by its tensors it is of inline_deit_digits{headless}$"
        with pytest.warns(UserWarning, match=said):
            found = package.create_model(weights=path)
        assert found.name == model.name and found.img_size == model.img_size
        assert found.spec.num_classes == model.spec.num_classes and found.spec.in_chans == model.spec.in_chans

    def test_several_models_of_the_same_tensors_are_named(self, package, tmp_path):
        path = stored(package, tmp_path, package.create_model("soft_tiny"))
        with pytest.raises(
            UserError if package is paddle_inline else ValueError, match="soft_tiny, soft_norm_tiny"
        ):
            package.create_model(weights=path)

    def test_tensors_of_no_model_are_said(self, package, tmp_path):
        path = stored(package, tmp_path, package.create_model("inline_deit_digits", depth=3))
        with pytest.raises(ValueError, match="its tensors are those of no model in list_models"):
            package.create_model(weights=path)

    def test_the_size_of_soft_is_no_position_s(self, package, tmp_path):
        model = package.create_model("soft_digits")
        found = package.create_model("soft_digits", weights=stored(package, tmp_path, model))
        assert found.img_size == (32, 32)
