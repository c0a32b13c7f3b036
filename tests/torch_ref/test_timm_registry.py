"""timm finds and builds the reference models."""

import sys
import warnings

import pytest
import timm
import torch

import torch_ref
from tests.models.backbones import SMALL
from torch_ref.timm_registry import register_with_timm


@pytest.fixture(autouse=True, scope="module")
def registered():
    register_with_timm()


def test_every_model_is_listed():
    assert set(torch_ref.list_models()) <= set(timm.list_models())


def test_a_second_call_adds_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_with_timm()


def test_a_torchvision_of_another_torch_is_said(tmp_path, monkeypatch):
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "__init__.py").touch()
    fault = tmp_path / "timm" / "models.py"
    fault.write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    for name in [name for name in sys.modules if name.split(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("torch_ref.timm_registry.version", lambda package: f"0.99 ({package})")
    with pytest.raises(
        ValueError, match=r"torchvision 0\.99 .* torch .*::nms does not exist.* pip install"
    ) as caught:
        register_with_timm()
    assert type(caught.value).__name__ == "UserError"
    fault.write_text("raise RuntimeError('another fault')")
    with pytest.raises(RuntimeError, match="another fault"):
        register_with_timm()


def test_overrides_pass_through():
    model = timm.create_model("inline_deit_digits", num_classes=3, in_chans=1, img_size=16)
    assert (model.spec.num_classes, model.spec.in_chans, model.spec.img_size) == (3, 1, 16)


def test_pretrained_says_what_to_do():
    with pytest.raises(ValueError, match="inline_deit_digits has no weights to download; pass weights=FILE"):
        timm.create_model("inline_deit_digits", pretrained=True)


@pytest.mark.parametrize("label", ["pvt", "swin SSSS", "cswin MSMI1", "soft", "soft_norm"])
def test_features_alone_are_a_backbone(label):
    name, sizes = SMALL[label]
    model = timm.create_model(name, features_only=True, out_indices=(1, -1), num_classes=3, **sizes)
    twin = torch_ref.create_backbone(name, out_indices=(1, 3), **sizes).eval()
    twin.load_state_dict(model.state_dict())
    assert model.feature_info.channels() == twin.out_channels == ([16, 64] if "swin" in label else [8, 16])
    assert model.feature_info.reduction() == twin.strides == [8, 32]
    images = torch.randn(1, 3, 40, 70, generator=torch.Generator().manual_seed(0))
    maps = model.eval()(images)
    assert [tuple(x.shape[2:]) for x in maps] == [(8, 12), (2, 3)]
    assert all(torch.equal(mine, other) for mine, other in zip(maps, twin(images)))


def test_features_of_one_stride_are_refused():
    with pytest.raises(ValueError, match="inline_deit_tiny has maps of one stride alone"):
        timm.create_model("inline_deit_tiny", features_only=True)
