"""Checkpoints of grey, RGBA, multispectral and rectangular images cross both ways and say so."""

import pytest
import torch

import paddle_inline
import torch_ref
from convert.checkpoint import ConversionOptions, training_hints
from convert.cli import parse_overrides
from convert.conversion import convert
from convert.identify import identify
from convert.parity import compare
from paddle_inline.weights import open_weights

SMALL = {
    "inline_deit_digits": {"depth": 1, "embed_dim": 16, "num_heads": 2, "img_size": (24, 32)},
    "inline_pvt_tiny": {
        "depths": (1, 1, 1, 1),
        "embed_dims": (8, 8, 16, 16),
        "num_heads": (1, 1, 2, 2),
        "img_size": (64, 96),
    },
    "soft_digits": {"embed_dims": (16, 16, 16, 16), "num_heads": (1, 1, 1, 1), "img_size": (64, 96)},
}
MEAN = {1: [0.449], 3: [0.485, 0.456, 0.406], 4: [0.485, 0.456, 0.406, 0.485]}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("channels", [1, 4, 5])
def test_there_and_back(tmp_path, name, channels):
    overrides = {**SMALL[name], "in_chans": channels}
    model = torch_ref.create_model(name, **overrides)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    size = {"img_size": overrides["img_size"]}
    known = ConversionOptions(model=name if name.startswith("soft") else None, overrides=size)
    outcome = convert(tmp_path / "a.pth", tmp_path / "b.pdparams", "paddle", known)
    assert outcome.verification["passed"]
    ours = paddle_inline.create_model(weights=tmp_path / "b.pdparams")
    assert ours.spec.in_chans == channels and ours.img_size == overrides["img_size"]
    transform = open_weights(tmp_path / "b.pdparams")[1].get("transform")
    if channels == 5:
        assert transform is None  # no picture has them
    else:
        assert transform["mean"] == MEAN[channels] and transform["img_size"] == list(overrides["img_size"])
    convert(tmp_path / "b.pdparams", tmp_path / "c.safetensors", "torch", ConversionOptions(verify=False))
    theirs = torch_ref.create_model(weights=tmp_path / "c.safetensors")
    assert theirs.spec == model.spec
    for key, value in model.state_dict().items():
        assert torch.equal(theirs.state_dict()[key], value), key


@pytest.mark.parametrize("name", SMALL)
def test_the_frameworks_agree_on_grey_rectangles(name):
    assert compare(name, in_chans=1, **SMALL[name]).passed


@pytest.mark.parametrize("text", ["(64, 96)", "[64, 96]", "64"])
def test_sizes_on_the_command_line(text):
    size = parse_overrides(["img_size", text])["img_size"]
    assert paddle_inline.create_model("inline_deit_digits", img_size=size).img_size in ((64, 96), (64, 64))


@pytest.mark.parametrize(
    "size, found", [(384, 384), ([192, 640], (192, 640)), ((64, 32), (64, 32)), ("big", None)]
)
def test_settings_in_a_checkpoint_may_give_both_sides(size, found):
    assert training_hints({"config": {"data": {"img_size": size}}}).get("img_size") == found


def test_the_size_in_the_settings_decides_between_rectangles():
    shapes = {
        key: tuple(value.shape)
        for key, value in torch_ref.create_model("inline_deit_tiny", img_size=(192, 640)).state_dict().items()
    }
    assert identify(shapes, hints={"img_size": (192, 640)}).overrides == {"img_size": (192, 640)}
