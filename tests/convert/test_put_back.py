"""A backbone put into a detector's checkpoint: all else stays byte for byte, in every format that is read."""

import hashlib
import json
import pathlib
import zipfile

import numpy as np
import paddle
import pytest
import torch
from safetensors.torch import load_file, save_file

import convert.put_back
from convert.__main__ import main
from convert.checkpoint import ConversionOptions
from convert.errors import CheckFailedError
from convert.formats.patch import overwrite
from convert.formats.select import walk
from convert.formats.source import open_source
from convert.mapping import paddle_to_torch, skeleton
from convert.put_back import put_back
from paddle_inline.utils.errors import UserError
from paddle_inline.weights.lazy_array import LazyArray
from tests.convert.backbones import SMALL, paddle_detector, torch_backbone, torch_detector

NAME = "inline_swin_tiny"
NO_CHECK = ConversionOptions(verify=False)


@pytest.fixture(scope="module")
def state():
    return torch_backbone(NAME)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A detector of Paddle, whose backbone has other weights; and those as PyTorch lays them out."""
    from convert.backbones import Maps
    from convert.mapping import torch_to_paddle

    other = torch_backbone(NAME, seed=1)
    model = skeleton(NAME, SMALL[NAME], Maps((0, 1, 2, 3), True))
    arrays = torch_to_paddle({key: value.numpy() for key, value in other.items()}, model)
    assert all(np.array_equal(value, other[key]) for key, value in paddle_to_torch(arrays, model).items())
    path = tmp_path_factory.mktemp("trained") / "trained.pdparams"
    paddle.save(paddle_detector(arrays), str(path))
    return path, other


def detector(state):
    """A checkpoint as mmdetection writes it, with an optimizer, an average, strides and an object of a class."""
    tensors = torch_detector(state, "module.backbone.")
    first = "module.backbone.layers.0.blocks.0.mlp.fc1.weight"
    tensors[first] = tensors[first].t().contiguous().t()  # laid out otherwise
    assert not tensors[first].is_contiguous()
    return {
        "meta": {"work_dir": pathlib.PurePosixPath("/runs/1"), "epoch": 12},
        "state_dict": tensors,
        "ema_state_dict": torch_detector(
            {key: value + 1 if value.is_floating_point() else value for key, value in state.items()},
            "module.backbone.",
        ),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
    }


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_put(found, before, other, prefix="module.backbone."):
    assert list(found) == list(before)
    for name, value in found.items():
        wanted = before[name]
        if name.startswith(prefix):
            wanted = other[name[len(prefix) :]]
        assert value.dtype == wanted.dtype and torch.equal(value, wanted), name


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before zip"])
def test_from_paddle_into_a_torch_detector(tmp_path, state, trained, zipped, capsys):
    path, other = trained
    around, out = tmp_path / "d.pth", tmp_path / "new.pth"
    contents = detector(state)
    torch.save(contents, around, _use_new_zipfile_serialization=zipped)
    before = sha(around)
    assert main(["to-torch", str(path), str(out), "--into", str(around)]) == 0
    said = capsys.readouterr().out
    assert "111 of 111 tensors of its backbone under 'state_dict' behind 'module.backbone.' change" in said
    assert "as it was: neck (2 tensors), rpn_head (1 tensor), roi_head (1 tensor), the weights under" in said
    assert "'ema_state_dict', optimizer, of the weights that were there" in said
    assert "verified: forward pass of 133 x 77 pixels in float64" in said
    assert sha(around) == before and out.stat().st_size == around.stat().st_size
    found = torch.load(out, weights_only=False)
    assert_put(found["state_dict"], contents["state_dict"], other)
    assert_put(found["ema_state_dict"], contents["ema_state_dict"], {}, "none.")
    assert found["meta"] == contents["meta"] and found["optimizer"]["param_groups"] == [{"lr": 0.1}]
    assert not found["state_dict"]["module.backbone.layers.0.blocks.0.mlp.fc1.weight"].is_contiguous()
    if zipped:
        assert zipfile.ZipFile(out).testzip() is None  # its checksums are those of what it holds
    facts = json.loads((tmp_path / "new.pth.json").read_text())
    assert facts["into"] == {
        "name": "d.pth",
        "sha256": before,
        "taken": "state_dict",
        "prefix": "module.backbone.",
    }
    assert facts["output"]["sha256"] == sha(out) and len(facts["changed"]) == 111
    assert facts["verification"]["passed"]


def test_into_its_average(tmp_path, state, trained):
    path, other = trained
    around, contents = tmp_path / "d.pth", detector(state)
    torch.save(contents, around)
    put_back(path, around, tmp_path / "new.pth", "torch", NO_CHECK, into="ema")
    found = torch.load(tmp_path / "new.pth", weights_only=False)
    assert_put(found["ema_state_dict"], contents["ema_state_dict"], other)
    assert_put(found["state_dict"], contents["state_dict"], {}, "none.")


def test_into_safetensors(tmp_path, state, trained):
    path, other = trained
    save_file(torch_detector(state), tmp_path / "d.safetensors", {"format": "pt"})
    put_back(path, tmp_path / "d.safetensors", tmp_path / "new.safetensors", "torch", NO_CHECK)
    assert_put(
        load_file(tmp_path / "new.safetensors"), load_file(tmp_path / "d.safetensors"), other, "backbone."
    )


def test_from_torch_into_a_paddle_detector(tmp_path, state, trained):
    """The rest as it was, and out of it again the bits that went in."""
    path, other = trained
    torch.save(state, tmp_path / "b.pth")
    outcome = put_back(tmp_path / "b.pth", path, tmp_path / "new.pdparams", "paddle")
    assert outcome.verification["passed"] and outcome.notes == ["111 of 111 tensors changed"]
    old, new = (paddle.load(str(file)) for file in (path, tmp_path / "new.pdparams"))
    assert list(old) == list(new)
    for name in old:
        if not name.startswith("backbone."):
            assert old[name].numpy().tobytes() == new[name].numpy().tobytes()
    put_back(tmp_path / "new.pdparams", tmp_path / "b.pth", tmp_path / "back.pth", "torch", NO_CHECK)
    assert (tmp_path / "back.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
    put_back(path, tmp_path / "b.pth", tmp_path / "other.pth", "torch", NO_CHECK)
    found = torch.load(tmp_path / "other.pth")
    assert all(torch.equal(found[name], other[name]) for name in other)


def refused(match, *given, **options):
    with pytest.raises(UserError, match=match):
        put_back(*given, NO_CHECK, **options)
    assert not given[2].exists() and not given[2].with_name(f"{given[2].name}.json").exists()


def test_other_shapes_are_a_difference(tmp_path, state, trained):
    wider = torch_backbone(NAME, depths=(1, 2, 1, 1))
    del wider["norm1.bias"]
    wider["norm0.weight"] = torch.ones(9)
    torch.save({"state_dict": torch_detector(wider)}, tmp_path / "d.pth")
    with pytest.raises(UserError) as error:
        put_back(trained[0], tmp_path / "d.pth", tmp_path / "o.pth", "torch", NO_CHECK)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"the backbone in {tmp_path / 'd.pth'} is another than that of {trained[0]}")
    assert lines[1] == "  (- in d.pth, + in trained.pdparams)"
    assert {"  - norm0.weight [9]", "  + norm0.weight [8]", "  + norm1.bias [16]"} <= set(lines)
    assert "  + layers.3.blocks.1.norm1.weight [64]" in lines
    assert not (tmp_path / "o.pth").exists()


def test_what_is_refused(tmp_path, state, trained):
    path, _ = trained
    out = tmp_path / "o.pth"
    refused("must end in .pdparams, for it is a copy", path, path, out, "torch")
    torch.save(
        torch_detector({k: v.half() if v.is_floating_point() else v for k, v in state.items()}),
        tmp_path / "h.pth",
    )
    refused(r"(?s)other kinds of numbers.*float16, float32", path, tmp_path / "h.pth", out, "torch")
    torch.save({"a": torch_detector(state), "b": torch_detector(state)}, tmp_path / "two.pth")
    refused("several models.*--into-take a or --into-take b", path, tmp_path / "two.pth", out, "torch")
    paddle.save(paddle.load(str(path)), str(tmp_path / "old.pdparams"), protocol=2)
    torch.save(state, tmp_path / "b.pth")
    refused(
        "do not lie in it as they are",
        tmp_path / "b.pth",
        tmp_path / "old.pdparams",
        tmp_path / "o.pdparams",
        "paddle",
    )
    turned = {
        f"backbone.{k}": v.t().contiguous() if v.ndim == 2 and "table" not in k else v
        for k, v in state.items()
    }
    torch.save(turned, tmp_path / "t.pth")
    refused("it has Paddle's layouts: use to-paddle", path, tmp_path / "t.pth", out, "torch")
    with pytest.raises(UserError, match="is an input; name another file"):
        put_back(path, tmp_path / "b.pth", tmp_path / "b.pth", "torch", NO_CHECK)
    whole = {"inline_swin_tiny": {**state, "norm.weight": torch.ones(64), "norm.bias": torch.ones(64)}}
    body = {k: v for k, v in whole[NAME].items() if not k.startswith(("norm0", "norm1", "norm2", "norm3"))}
    torch.save(body, tmp_path / "c.pth")
    refused(
        r"(?s)- norm0\.weight.*\+ norm\.weight", tmp_path / "c.pth", path, tmp_path / "o.pdparams", "paddle"
    )


@pytest.mark.parametrize("view", [False, True])
def test_numbers_that_the_neck_shares_are_not_changed_in_silence(tmp_path, state, trained, view):
    tensors = torch_detector({key: value.clone() for key, value in state.items()})
    tied = tensors["backbone.norm0.bias"]
    tensors["neck.tied.bias"] = tied[:4] if view else tied
    torch.save(tensors, tmp_path / "d.pth")
    match = (
        r"neck\.tied\.bias shares its numbers with the backbone"
        if view
        else r"bias and neck\.tied\.bias are one"
    )
    with pytest.raises(CheckFailedError if view else UserError, match=match):
        put_back(trained[0], tmp_path / "d.pth", tmp_path / "o.pth", "torch", NO_CHECK)
    assert not (tmp_path / "o.pth").exists()


def test_a_copy_that_was_not_given_its_numbers_is_noticed(tmp_path, state, trained, monkeypatch):
    torch.save(torch_detector(state), tmp_path / "d.pth")
    monkeypatch.setattr(convert.put_back, "overwrite", lambda path, pairs: overwrite(path, pairs[1:]))
    with pytest.raises(CheckFailedError, match=r"patch_embed\.proj\.weight does not come back bit for bit"):
        put_back(trained[0], tmp_path / "d.pth", tmp_path / "o.pth", "torch", NO_CHECK)


def test_into_with_what_it_is_not_for(tmp_path, capsys):
    for flags, why in (((), "a folder"), (("--training",), "--training")):
        call = ["to-torch", str(tmp_path), str(tmp_path / "o.pth"), "--into", "d.pth", *flags]
        assert main(call) == 2
        assert f"and not with {why}" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["zip", "stream", "pdparams", "safetensors"])
def test_overwrite(tmp_path, kind):
    """Every dtype and layout, where it lies; what is around keeps its bytes."""
    base = torch.arange(24.0).reshape(6, 4)
    tensors = {
        "turned": base.t(),
        "view": torch.arange(10.0)[3:7],
        "many": torch.arange(2000.0),
        "none": torch.ones(0, 3),
        "scalar": torch.tensor(3.0),
        "half": torch.ones(5).half(),
        "double": torch.ones(5).double(),
        "whole": torch.arange(3),
        "brain": torch.ones(4).bfloat16(),
    }
    path = tmp_path / f"a.{kind}"
    if kind == "pdparams":
        paddle.save({k: paddle.to_tensor(v.float().numpy()) for k, v in tensors.items()}, str(path))
    elif kind == "safetensors":
        save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    else:
        torch.save({**tensors, "rest": base}, path, _use_new_zipfile_serialization=kind == "zip")
    entries = dict(next(iter(walk(open_source(path).contents)))[1])
    entries.pop("rest", None)
    new = {}
    for name, array in entries.items():
        if kind in ("zip", "stream") and name == "turned":
            continue  # it shares its numbers with `rest`
        values = array.read().copy()
        values = values.view("uint16") + 1 if array.dtype == "bfloat16" else values + 1
        new[name] = LazyArray(array.shape, array.dtype, values.copy)
    size, places = path.stat().st_size, {name: array.place() for name, array in entries.items()}
    overwrite(path, [(entries[name], array) for name, array in new.items()])
    assert path.stat().st_size == size
    found = dict(next(iter(walk(open_source(path).contents)))[1])
    for name, array in new.items():
        assert found[name].read().tobytes() == array.read().tobytes(), name
        assert found[name].place() == places[name]
    if "rest" in found:
        np.testing.assert_array_equal(found["rest"].read(), base.numpy())
        np.testing.assert_array_equal(found["turned"].read(), base.numpy().T)
