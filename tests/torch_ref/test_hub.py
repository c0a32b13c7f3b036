"""Folders of the Hugging Face hub's layout: both packages and timm read what any of them wrote."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import paddle
import pytest
import timm
import torch

import paddle_inline
import torch_ref
from paddle_inline.data.published import published_transform
from torch_ref.timm_registry import register_with_timm

ROOT = Path(__file__).parents[2]
PACKAGES = [paddle_inline, torch_ref]
MODELS = {
    "inline_deit_digits": {"depth": 1, "embed_dim": 16, "num_heads": 2, "num_classes": 3, "img_size": 48},
    "inline_pvt_tiny": {
        "depths": (1, 1, 1, 1),
        "embed_dims": (8, 8, 16, 16),
        "num_heads": (1, 1, 2, 2),
        "img_size": 64,
    },
    "inline_swin_tiny": {"depths": (1, 1, 1, 1), "embed_dim": 8, "num_heads": (1, 1, 2, 2), "num_classes": 2},
    "soft_digits": {"num_classes": 4},
}
CLASSES = {"inline_deit_digits": ["cat", "dog", "eel"]}


@pytest.fixture(scope="module", autouse=True)
def registered():
    register_with_timm()


@pytest.fixture(scope="module", params=MODELS)
def case(request, tmp_path_factory):
    """(name, images, logits, folders: by Paddle, by torch_ref from that, by timm from that)."""
    name, above = request.param, tmp_path_factory.mktemp("hub")
    paddle.seed(0)
    model = paddle_inline.create_model(name, **MODELS[name])
    model.eval()
    transform = published_transform(name, model.spec.img_size)
    folders = [above / "paddle", above / "torch", above / "timm"]
    paddle_inline.save_pretrained(model, folders[0], transform=transform, classes=CLASSES.get(name))
    torch_ref.save_pretrained(torch_ref.from_pretrained(folders[0]), folders[1])
    through = timm.create_model(f"local-dir:{folders[1]}", pretrained=True)
    timm.models.save_for_hf(through, folders[2], safe_serialization=True)
    images = np.random.RandomState(0).randn(2, 3, *model.img_size).astype("float32")
    with paddle.no_grad():
        return name, images, model(paddle.to_tensor(images)).numpy(), folders


def logits(model, images):
    model.eval()
    if isinstance(model, torch.nn.Module):
        with torch.no_grad():
            return model(torch.from_numpy(images)).numpy()
    with paddle.no_grad():
        return model(paddle.to_tensor(images)).numpy()


@pytest.mark.parametrize("writer", range(3), ids=["paddle", "torch_ref", "timm"])
def test_every_reader_reads_every_writer(case, writer):
    name, images, expected, folders = case
    for package in PACKAGES:
        model = package.from_pretrained(folders[writer])
        np.testing.assert_allclose(logits(model, images), expected, atol=2e-6)
        assert model.description.get("classes") == CLASSES.get(name)
        assert model.description["transform"]["mean"] == [0.485, 0.456, 0.406]
    model = timm.create_model(f"local-dir:{folders[writer]}", pretrained=True)
    np.testing.assert_allclose(logits(model, images), expected, atol=2e-6)


def test_the_two_packages_write_the_same(case):
    _, _, _, (ours, theirs, _) = case
    one, other = (json.loads((folder / "config.json").read_text()) for folder in (ours, theirs))
    for config in (one, other):
        config["paddle_inline"].pop("sha256")
    one.pop("model_args"), other.pop("model_args")
    assert one == other


def test_timm_s_tools_find_how_images_are_made(case):
    _, _, _, folders = case
    model = timm.create_model(f"local-dir:{folders[0]}", pretrained=True)
    found = timm.data.resolve_model_data_config(model)
    side = model.spec.img_size
    assert found["input_size"] == [3, side, side]
    mode = ("squash", 1.0) if side == 32 else ("squash", 0.875)
    assert (found["crop_mode"], found["crop_pct"]) == mode
    assert model.num_classes == model.spec.num_classes


def test_timm_without_weights_builds_the_same_model(case):
    _, images, expected, folders = case
    for folder in folders:
        model = timm.create_model(f"local-dir:{folder}")
        assert logits(model, images).shape == expected.shape
        assert not np.allclose(logits(model, images), expected, atol=1e-3)


def test_a_new_head_through_timm(case):
    _, images, _, folders = case
    with pytest.warns(UserWarning, match="head set to zero"):
        model = timm.create_model(f"local-dir:{folders[0]}", pretrained=True, num_classes=7)
    assert model.num_classes == 7 and "classes" not in model.description
    assert logits(model, images).shape == (2, 7)


def test_backbones_through_timm(case):
    name, _, _, folders = case
    if name == "inline_deit_digits":
        pytest.skip("it has maps of one stride alone")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backbone = timm.create_model(f"local-dir:{folders[0]}", pretrained=True, features_only=True).eval()
    state = torch_ref.from_pretrained(folders[0]).state_dict()
    shared = [key for key in backbone.state_dict() if key.endswith("proj.weight")]
    assert shared and all(torch.equal(backbone.state_dict()[key], state[key]) for key in shared)


def test_a_repository_through_timm(monkeypatch, case):
    _, images, expected, folders = case

    def download(name, file, **options):
        return str(folders[0] / file)

    def snapshot(name, revision, allow_patterns):
        assert (name, revision) == ("me/my-model", None)
        return str(folders[0])

    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    model = timm.create_model("hf-hub:me/my-model", pretrained=True)
    np.testing.assert_allclose(logits(model, images), expected, atol=2e-6)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_a_tampered_folder_is_refused(case, tmp_path, package):
    folder = Path(shutil.copytree(case[3][0], tmp_path / "m"))
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-3] ^= 4
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="its SHA-256 is another") as caught:
        package.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    config = json.loads((folder / "config.json").read_text())
    config["paddle_inline"].pop("sha256")
    config["model_args"]["kernel_function"] = "relu"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"kernel_function='relu', the weights|unknown override of soft_digits"
    ):
        package.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        package.from_pretrained(folder)


@pytest.mark.parametrize("file", ["hub.py", "hub_config.py"])
def test_both_packages_have_one_text(file):
    ours, theirs = (
        (ROOT / package / "utils" / file).read_bytes() for package in ("paddle_inline", "torch_ref")
    )
    assert ours == theirs


def test_what_torch_cannot_save_is_said(tmp_path):
    with pytest.raises(ValueError, match="save_pretrained takes a model of create_model, not a Linear"):
        torch_ref.save_pretrained(torch.nn.Linear(1, 1), tmp_path / "m")
    model = torch_ref.create_model("inline_deit_digits", depth=1)
    torch.nn.init.constant_(model.head.bias, float("inf"))
    with pytest.raises(ValueError, match=r"head\.bias has values that are NaN or infinite"):
        torch_ref.save_pretrained(model, tmp_path / "m")
    assert not list(tmp_path.iterdir())
