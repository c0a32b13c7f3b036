"""Conversions: bit-equal both ways, verified on real forward passes, whole or not at all."""

import hashlib
import json
from collections import OrderedDict

import numpy as np
import paddle
import pytest
import torch

import paddle_inline
import torch_ref
from convert import conversion
from convert.checkpoint import ConversionOptions, open_checkpoint, training_hints
from convert.conversion import convert
from convert.errors import CheckFailedError, UnfitWeightsError
from convert.formats.source import open_source
from convert.parity.inputs import rule_weights
from paddle_inline.weights.safe_pickle import Inert
from paddle_inline.weights.torch_layout import KEEP, names_of

SMALL = {
    "inline_deit_digits": {"depth": 2, "embed_dim": 16, "num_heads": 2},
    "inline_pvt_tiny": {
        "depths": (1, 1, 1, 2),
        "embed_dims": (8, 8, 16, 16),
        "num_heads": (1, 1, 2, 2),
        "img_size": 64,
        "num_classes": 7,
    },
    "inline_swin_tiny": {
        "depths": (1, 2, 2, 1),
        "embed_dim": 8,
        "num_heads": (1, 1, 2, 2),
        "attn_type": "ISSI",
        "num_classes": 7,
    },
    "inline_cswin_tiny": {
        "depths": (1, 1, 1, 1),
        "embed_dim": 8,
        "num_heads": (2, 4, 8, 16),
        "num_classes": 7,
    },
    "soft_digits": {"embed_dims": (16, 16, 16, 16), "num_heads": (1, 1, 1, 1)},
}
NO_CHECK = ConversionOptions(verify=False)


def torch_state(name, dtype="float32", seed=0, **overrides):
    model = torch_ref.create_model(name, **{**SMALL[name], **overrides})
    state = rule_weights({key: value.numpy() for key, value in model.state_dict().items()}, seed)
    kind = getattr(torch, dtype)
    return OrderedDict(
        (key, torch.from_numpy(np.array(value)).to(kind if value.dtype.kind == "f" else torch.int64))
        for key, value in state.items()
    )


def saved(tmp_path, name, **options):
    path = tmp_path / f"{name}.pth"
    torch.save(torch_state(name, **options), path)
    return path


def same(first, second):
    return list(first) == list(second) and all(
        first[key].dtype == second[key].dtype and torch.equal(first[key], second[key]) for key in first
    )


@pytest.mark.parametrize("name", SMALL)
def test_a_stranger_s_file_becomes_a_verified_one_in_one_call(tmp_path, name):
    said = []
    outcome = convert(saved(tmp_path, name), tmp_path / "m.pdparams", "paddle", log=said.append)
    assert outcome.verification["passed"]
    assert outcome.verification["logits"] <= 1e-9
    assert outcome.verification["bits"] == "equal to the source's"
    assert any(line.startswith("verified: forward pass in float64") for line in said)
    model = paddle_inline.create_model(weights=tmp_path / "m.pdparams")
    plain = paddle_inline.create_model(outcome.identity.name, **outcome.identity.overrides)
    assert plain.set_state_dict(paddle.load(str(tmp_path / "m.pdparams"))) == ([], [])
    theirs = torch_ref.create_model(outcome.identity.name, **outcome.identity.overrides)
    theirs.load_state_dict(torch_state(name), strict=True)
    size = model.spec.img_size
    images = np.random.RandomState(0).standard_normal((2, 3, size, size)).astype("float32")
    with paddle.no_grad(), torch.no_grad():
        for m in (model, plain):
            m.eval()
        ours = [m(paddle.to_tensor(images)).numpy() for m in (model, plain)]
        expected = theirs.eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_array_equal(*ours)
    np.testing.assert_allclose(ours[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("through, back", [(".pdparams", ".pth"), (".safetensors", ".safetensors")])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", SMALL)
def test_there_and_back_is_bit_for_bit(tmp_path, name, dtype, through, back):
    path = saved(tmp_path, name, dtype=dtype)
    convert(path, tmp_path / f"m{through}", "paddle", NO_CHECK)
    convert(tmp_path / f"m{through}", tmp_path / f"b{back}", "torch", NO_CHECK)
    if back == ".pth":
        assert same(torch.load(tmp_path / "b.pth", weights_only=True), torch_state(name, dtype=dtype))
    else:
        from safetensors.torch import load_file

        found = load_file(tmp_path / "b.safetensors")
        assert same({key: found[key] for key in torch_state(name)}, torch_state(name, dtype=dtype))
    assert torch_ref.create_model(weights=tmp_path / f"b{back}").spec.num_classes in (7, 10)


@pytest.mark.full
@pytest.mark.parametrize("name", paddle_inline.list_models())
def test_every_released_model_there_and_back(tmp_path, name):
    state = torch_ref.create_model(name).state_dict()
    torch.save(state, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "m.pdparams", "paddle", ConversionOptions(model=name))
    convert(tmp_path / "m.pdparams", tmp_path / "b.pth", "torch", NO_CHECK)
    assert same(torch.load(tmp_path / "b.pth", weights_only=True), state)


def test_the_sidecar_tells_where_the_file_is_from(tmp_path):
    path = saved(tmp_path, "inline_deit_digits")
    convert(path, tmp_path / "m.pdparams", "paddle", ConversionOptions(verify=False))
    facts = json.loads((tmp_path / "m.pdparams.json").read_text())
    assert facts["source"]["files"][0]["name"] == path.name
    assert facts["source"]["files"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    output = (tmp_path / "m.pdparams").read_bytes()
    assert facts["output"]["sha256"] == hashlib.sha256(output).hexdigest()
    assert facts["model"] == "inline_deit_digits"
    assert facts["overrides"] == {"embed_dim": 16, "depth": 2, "num_heads": 2}
    assert facts["verification"] == {"done": False, "why": "--no-verify"}
    assert facts["versions"]["numpy"] == np.__version__


def test_weights_and_averages_and_prefixes(tmp_path):
    name = "inline_deit_digits"
    own, averaged = torch_state(name), torch_state(name, seed=1)
    wrapped = {f"module.{key}": value for key, value in own.items()}
    torch.save({"model": wrapped, "state_dict_ema": averaged, "epoch": 3}, tmp_path / "a.pth")
    said = []
    convert(tmp_path / "a.pth", tmp_path / "m.pdparams", "paddle", NO_CHECK, said.append)
    assert "taking its weights under 'model' (it also has 'state_dict_ema': --take model or ema)" in said[0]
    assert "without the prefix 'module.'" in said[0]
    convert(
        tmp_path / "a.pth", tmp_path / "e.pdparams", "paddle", ConversionOptions(take="ema", verify=False)
    )
    for file, state in (("m", own), ("e", averaged)):
        convert(tmp_path / f"{file}.pdparams", tmp_path / f"{file}.pth", "torch", NO_CHECK)
        assert same(torch.load(tmp_path / f"{file}.pth", weights_only=True), state)


def test_another_size_and_class_count_on_the_way(tmp_path):
    said = []
    options = ConversionOptions(img_size=(64, 96), num_classes=3)
    path = saved(tmp_path, "inline_pvt_tiny")
    outcome = convert(path, tmp_path / "m.pdparams", "paddle", options, said.append)
    assert outcome.verification["bits"] == "changed as noted"
    assert "head set to zero (7 -> 3 classes), so train it: head.weight, head.bias" in said
    assert "pos_embed1 resized from 16 x 16 to 16 x 24, bicubic: pos_embed1" in said
    model = paddle_inline.create_model(weights=tmp_path / "m.pdparams")
    assert (model.spec.img_size, model.spec.num_classes) == ((64, 96), 3)
    assert json.loads((tmp_path / "m.pdparams.json").read_text())["changed"] == outcome.notes


def test_resizing_is_pytorch_s_bicubic(tmp_path):
    path = saved(tmp_path, "inline_deit_digits", dtype="float64")
    convert(path, tmp_path / "m.pth", "torch", ConversionOptions(img_size=48, verify=False))
    old = torch_state("inline_deit_digits", dtype="float64")["pos_embed"]
    new = torch.load(tmp_path / "m.pth", weights_only=True)["pos_embed"]
    grid = old[:, 1:].reshape(1, 8, 8, 16).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=(12, 12), mode="bicubic", align_corners=False)
    assert torch.equal(new[:, :1], old[:, :1])
    assert (new[:, 1:] - grid.flatten(2).transpose(1, 2)).abs().max() < 1e-12


def test_a_format_can_change_alone(tmp_path):
    name = "inline_swin_tiny"
    convert(saved(tmp_path, name), tmp_path / "m.pdparams", "paddle", NO_CHECK)
    convert(tmp_path / "m.pdparams", tmp_path / "m.safetensors", "paddle", NO_CHECK)
    first, second = (
        open_source(tmp_path / f"m{suffix}").contents for suffix in (".pdparams", ".safetensors")
    )
    assert {key: value.read().tobytes() for key, value in first.items()} == {
        key: value.read().tobytes() for key, value in second.items()
    }


def test_a_plain_paddle_file_is_known_by_its_tensors(tmp_path):
    model = paddle_inline.create_model("inline_deit_digits", **SMALL["inline_deit_digits"])
    paddle.save(model.state_dict(), str(tmp_path / "m.pdparams"))
    outcome = convert(tmp_path / "m.pdparams", tmp_path / "m.pth", "torch")
    assert (outcome.identity.name, outcome.identity.side) == ("inline_deit_digits", "paddle")
    assert outcome.verification["passed"]


def wrong_layout(model, source, target):
    """`names_of` of a converter that forgets to transpose square matrices."""
    names = names_of(model, source, target)
    return {name: (old, KEEP if "attn.proj.weight" in name else rule) for name, (old, rule) in names.items()}


def test_a_wrong_conversion_is_caught_by_name_and_writes_nothing(tmp_path, monkeypatch):
    path = saved(tmp_path, "inline_deit_digits")
    monkeypatch.setattr("paddle_inline.weights.torch_layout.names_of", wrong_layout)
    (tmp_path / "m.pdparams").write_bytes(b"old")
    with pytest.raises(CheckFailedError, match=r"first at blocks\.0\.attn\.proj, "):
        convert(path, tmp_path / "m.pdparams", "paddle")
    assert (tmp_path / "m.pdparams").read_bytes() == b"old"
    assert {file.name for file in tmp_path.iterdir()} == {path.name, "m.pdparams"}


def test_a_file_that_was_not_written_as_it_should_be_is_caught(tmp_path, monkeypatch):
    def spoiled(path, arrays, side, description=None):
        changed = dict(arrays)
        array = changed["head.bias"]
        changed["head.bias"] = type(array)(array.shape, array.dtype, lambda: array.read() + np.float32(1e-7))
        conversion_write(path, changed, side, description)

    conversion_write = conversion.write_weights
    monkeypatch.setattr(conversion, "write_weights", spoiled)
    with pytest.raises(CheckFailedError, match=r"head\.bias does not come back bit for bit"):
        convert(saved(tmp_path, "inline_deit_digits"), tmp_path / "m.pdparams", "paddle")
    assert not (tmp_path / "m.pdparams").exists()


def test_a_damaged_result_of_ours_is_noticed_when_it_is_read(tmp_path):
    convert(saved(tmp_path, "inline_deit_digits"), tmp_path / "m.pdparams", "paddle", NO_CHECK)
    data = bytearray((tmp_path / "m.pdparams").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "m.pdparams").write_bytes(data)
    with pytest.raises(ValueError, match="SHA-256 is another"):
        convert(tmp_path / "m.pdparams", tmp_path / "m.pth", "torch", NO_CHECK)


def test_the_input_is_not_overwritten(tmp_path):
    path = saved(tmp_path, "inline_deit_digits")
    with pytest.raises(ValueError, match="is the input"):
        convert(path, path, "torch", NO_CHECK)


def test_weights_that_no_model_has_are_refused_by_name(tmp_path):
    state = torch_state("inline_deit_digits")
    state["blocks.1.mlp.fc1.bias"][3] = float("nan")
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(UnfitWeightsError, match=r"blocks\.1\.mlp\.fc1\.bias is NaN or infinite in 1 value:"):
        convert(tmp_path / "a.pth", tmp_path / "m.pdparams", "paddle", NO_CHECK)
    assert not (tmp_path / "m.pdparams").exists()


def test_batch_norm_s_counters_survive(tmp_path):
    state = torch_state("soft_digits")
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    for i, name in enumerate(counters):
        state[name] = torch.tensor(100 + i)
    torch.save(state, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "m.pdparams", "paddle", NO_CHECK)
    convert(tmp_path / "m.pdparams", tmp_path / "b.pth", "torch", NO_CHECK)
    assert len(counters) == 6
    assert same(torch.load(tmp_path / "b.pth", weights_only=True), state)


def node(**entries):
    found = Inert("yacs.config.CfgNode")
    found.contents = entries
    return found


def test_the_settings_beside_the_weights_give_hints():
    config = node(DATA=node(IMG_SIZE=384), MODEL=node(TYPE="soft", NAME="soft_tiny_norm"))
    assert training_hints({"config": config}) == {"img_size": 384, "text": "soft soft_tiny_norm"}
    assert training_hints({"config": {"data": {"img_size": 224}}}) == {"img_size": 224, "text": ""}
    for nothing in ({}, {"config": None}, {"config": "text"}, {"config": node(DATA=3)}):
        assert training_hints(nothing) == {"text": ""}


def test_the_file_s_own_word_is_used_and_checked(tmp_path):
    convert(saved(tmp_path, "inline_deit_digits"), tmp_path / "m.pdparams", "paddle", NO_CHECK)
    opened = open_checkpoint(tmp_path / "m.pdparams", ConversionOptions())
    assert (opened.identity.how, opened.identity.assumed) == ("what the file says of itself", {})
