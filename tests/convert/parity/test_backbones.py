"""Backbones are among the suite's models: every sublayer, forward and backward, at a size that nothing divides."""

import json

import numpy as np
import paddle
import pytest
import torch

import paddle_inline
from convert.__main__ import main
from convert.parity import compare, compare_recordings
from convert.parity.models import backbones
from convert.parity.recording import MODEL, load_recording
from convert.parity.run import compare_models, create_pair
from paddle_inline.utils.errors import UserError
from tests.models.backbones import SMALL

LABELS = ("pvt ISIS", "swin SSSS", "cswin MSMI1", "soft", "soft_norm")


def small(label, **overrides):
    name, own = SMALL[label]
    return f"backbone:{name}", {**own, **overrides}


@pytest.mark.parametrize("label", LABELS)
def test_every_family(label):
    name, overrides = small(label)
    report = compare(name, batch=2, **overrides)
    assert report.passed, (report.divergence, report.worst())
    assert (report.model, report.subject["input"]) == (name, [2, 3, 133, 77])
    rows = {row.name: row.shape for row in report.of_kind("output")}
    channels = (8, 16, 32, 64) if "swin" in label else (8, 8, 12, 16)
    for i, (count, stride) in enumerate(zip(channels, (4, 8, 16, 32))):
        assert rows[f"map {i}"] == (2, count, 160 // stride, 96 // stride)
    assert rows[MODEL] == (2, 5)
    ours, theirs = create_pair(name, **overrides)
    containers = (paddle.nn.LayerList, torch.nn.ModuleList)
    for sublayers in (ours.named_sublayers(), theirs.named_modules()):
        wanted = {key for key, layer in sublayers if key and not isinstance(layer, containers)}
        assert wanted - set(rows) == ({"layers.3.downsample"} if label == "swin SSSS" else set())
    trained = {key for key, p in theirs.named_parameters()}
    assert {row.name for row in report.of_kind("parameter gradient")} == trained
    assert not [row for row in report.rows if row.kind == "parameter gradient" and row.max_rel != row.max_rel]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lower_precisions(dtype):
    name, overrides = small("swin SSSS", img_size=(64, 96))
    report = compare(name, dtype=dtype, batch=8, **overrides)
    assert report.passed, (report.divergence, report.worst())


def test_what_may_be_chosen():
    name, overrides = small("cswin SSSS", img_size=(33, 140), out_indices=(2, 0), crop=True, frozen_stages=1)
    report = compare(name, batch=1, **overrides)
    assert report.passed, report.divergence
    rows = {row.name: row.shape for row in report.of_kind("output")}
    assert (rows["map 0"], rows["map 1"]) == ((1, 32, 3, 9), (1, 8, 9, 35))
    assert not [row.name for row in report.of_kind("parameter gradient") if row.name.startswith("stage1")]


@pytest.mark.parametrize(
    ("label", "place"),
    [
        ("swin SSSS", "layers.1.blocks.1.attn.proj"),
        ("cswin MSMI1", "stage2.0.attns.1.get_v"),
        ("pvt ISIS", "patch_embed2.proj"),
        ("soft", "block1.0.att.mha.attn.Qlandmark_op"),
        ("swin SSSS", "norm2"),
    ],
)
def test_what_is_broken_is_named(label, place):
    name, overrides = small(label)
    ours, theirs = create_pair(name, **overrides)
    weight = dict(ours.named_sublayers())[place].weight
    value = weight.numpy().copy()
    value.flat[5] += 1e-3
    weight.set_value(value)
    report = compare_models(ours, theirs, batch=2)
    assert not report.passed
    assert report.first_divergence == place


def test_a_missing_padding_is_named(monkeypatch):
    """The last windows' zeros stand at the wrong side: the block that pads is named."""
    from paddle_inline.models import inline_swin

    def wrong(x, size, padded):
        flipped = inline_swin.crop_tokens.__globals__["pad_tokens"](x.flip([1]), size, padded)
        return flipped.flip([1])

    name, overrides = small("swin SSSS")
    ours, theirs = create_pair(name, **overrides)
    monkeypatch.setattr(inline_swin, "pad_tokens", wrong)
    report = compare_models(ours, theirs, batch=2)
    assert report.first_divergence == "layers.0.blocks.0"


def test_weights_of_a_file(tmp_path):
    """A classifier's, in its own framework's file; the output norms are drawn."""
    name, overrides = SMALL["swin SSSS"]
    model = paddle_inline.create_model(name, **overrides, num_classes=7)
    paddle.save(model.state_dict(), str(tmp_path / "a.pdparams"))
    report = compare(f"backbone:{name}", tmp_path / "a.pdparams", batch=1, **overrides)
    assert report.passed, report.divergence
    ours, _ = create_pair(
        f"backbone:{name}", {k: v.numpy() for k, v in model.state_dict().items()}, **overrides
    )
    np.testing.assert_array_equal(
        ours.layers[0].blocks[0].mlp.fc1.weight, model.layers[0].blocks[0].mlp.fc1.weight
    )
    assert (ours.norm0.weight.numpy() != 1).all()


def test_the_commands(tmp_path, capsys):
    name, overrides = small("pvt")
    options = ["--model", name, "--batch", "1", "--backward"]
    pairs = ["--opts", *(str(part) for pair in overrides.items() for part in pair)]
    assert main(["verify", *options, "--json", str(tmp_path / "a.json"), *pairs]) == 0
    (found,) = json.loads((tmp_path / "a.json").read_text())["reports"]
    assert found["model"] == name
    for framework in ("torch", "paddle"):
        assert main(["record", str(tmp_path / framework), "--framework", framework, *options, *pairs]) == 0
    assert compare_recordings(load_recording(tmp_path / "torch"), load_recording(tmp_path / "paddle")).passed
    capsys.readouterr()


def test_what_is_refused():
    with pytest.raises(
        UserError, match=r"backbone:inline_pvt_tiny has no head to train: .* or give inline_pvt_tiny"
    ):
        compare("backbone:inline_pvt_tiny", steps=2)
    with pytest.raises(UserError, match="inline_deit_tiny has maps of one stride alone"):
        compare("backbone:inline_deit_tiny")
    with pytest.raises(UserError, match=r"unknown backbone 'inline_pvt'"):
        compare("backbone:inline_pvt")
    with pytest.raises(UserError, match=r"img_size .* must be a positive int"):
        compare("backbone:inline_pvt_tiny", img_size="x")
    assert backbones(["inline_deit_tiny", "soft_tiny"]) == ["backbone:soft_tiny"]
