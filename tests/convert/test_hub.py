"""`python -m convert to-hub`: a checkpoint of either framework becomes a folder that all three sides read."""

import json
import os

import numpy as np
import paddle
import pytest
import timm
import torch

import paddle_inline
import torch_ref
from convert.__main__ import main
from torch_ref.timm_registry import register_with_timm

SMALL = {"embed_dim": 8, "depth": 1, "num_heads": 2, "num_classes": 3}


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("hub") / "a.pth"
    torch.save(
        {"model": torch_ref.create_model("inline_deit_digits", **SMALL).state_dict(), "epoch": 3}, path
    )
    return path


def test_a_checkpoint_becomes_a_folder_that_all_read(tmp_path, capsys, checkpoint):
    folder = tmp_path / "m"
    assert run("to-hub", checkpoint, folder, "--license", "mit") == 0
    said = capsys.readouterr().out
    assert "verified: forward pass in float64" in said and f"wrote {folder}" in said
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "model.safetensors"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert (
        card.startswith("---\nlicense: mit\n") and "Converted from `a.pth`; forward pass in float64" in card
    )
    config = json.loads((folder / "config.json").read_text())
    assert (
        config["pretrained_cfg"]["crop_mode"] == "squash"
        and config["paddle_inline"]["transform"]["img_size"] == 32
    )
    state = torch.load(checkpoint, weights_only=True)["model"]
    register_with_timm()
    theirs = torch_ref.from_pretrained(folder)
    through = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert all(
        torch.equal(state[name], model.state_dict()[name]) for model in (theirs, through) for name in state
    )
    ours = paddle_inline.from_pretrained(folder)
    images = np.random.RandomState(0).randn(1, 3, 32, 32).astype("float32")
    with paddle.no_grad(), torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(images)).numpy()
        ours.eval()
        np.testing.assert_allclose(ours(paddle.to_tensor(images)).numpy(), expected, atol=2e-6)


def test_sizes_and_no_proof(tmp_path, checkpoint):
    folder = tmp_path / "m"
    assert run("to-hub", checkpoint, folder, "--num-classes", 5, "--img-size", 48, "--no-verify") == 0
    model = paddle_inline.from_pretrained(folder)
    assert (model.num_classes, model.spec.img_size) == (5, 48)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert (
        "not verified: converted with --no-verify" in card
        and "Changed: head set to zero (3 -> 5 classes)" in card
    )


def test_what_makes_no_folder_is_refused(tmp_path, capsys, checkpoint):
    (tmp_path / "file").write_text("")
    assert run("to-hub", checkpoint, tmp_path / "file", "--no-verify") == 2
    assert f"error: output {tmp_path / 'file'} is a file; name a folder" in capsys.readouterr().err
    backbone = torch_ref.create_backbone("soft_digits")
    torch.save(backbone.state_dict(), tmp_path / "b.pth")
    assert run("to-hub", tmp_path / "b.pth", tmp_path / "m", "--no-verify") == 2
    assert "is of a backbone: folders of the hub are of classifiers" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_inspect_takes_such_a_folder(tmp_path, capsys, checkpoint):
    folder = tmp_path / "m"
    assert run("to-hub", checkpoint, folder, "--no-verify") == 0
    capsys.readouterr()
    assert run("inspect", folder) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{folder / 'model.safetensors'}: safetensors, ") and "inline_deit_digits" in said
