"""Real files of every format, bytes flipped, lost, moved and added: each is read, or refused in a word."""

import contextlib
import copy
import json
import pickle
import random

import numpy as np
import paddle
import pytest
import torch
from safetensors.torch import save_file

import paddle_inline
import torch_ref
from convert import identify
from convert.conversion import ConversionOptions, convert, open_checkpoint, paddle_side
from convert.errors import UnfitWeightsError, UnknownModelError
from convert.training_run import training_to_paddle
from paddle_inline.utils.timing import peak_memory
from paddle_inline.weights.lazy_array import WeightsFileError
from tests.convert.hostile import SMALL, good_state, paddle_state

QUIET = ConversionOptions(verify=False)
REFUSALS = (WeightsFileError, FileNotFoundError, UnknownModelError, UnfitWeightsError)
# values that a description, or a training checkpoint, could give in the place of any other
ODD = [
    0,
    -1,
    7,
    1.5,
    10**9,
    10**30,
    float("nan"),
    "",
    "S",
    "x" * 300,
    None,
    True,
    [],
    [1, 2],
    [[1]],
    {},
    {"a": 1},
]
FORMATS = (
    "today",
    "training",
    "before zip",
    "safetensors",
    "paddle",
    "pickle",
    "ours",
    "ours in torch",
    "index",
)
SUFFIXES = {"safetensors": ".safetensors", "index": ".safetensors.index.json"}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """{format: bytes of a sound file}."""
    folder, state, made = tmp_path_factory.mktemp("sound"), good_state(), {}

    def keep(form, path):
        made[form] = path.read_bytes()

    torch.save(state, folder / "a.pth")
    keep("today", folder / "a.pth")
    convert(folder / "a.pth", folder / "ours.pdparams", "paddle", QUIET)
    keep("ours", folder / "ours.pdparams")
    convert(folder / "ours.pdparams", folder / "ours.pth", "torch", QUIET)
    keep("ours in torch", folder / "ours.pth")
    torch.save(training_contents(), folder / "a.pth")
    keep("training", folder / "a.pth")
    torch.save(state, folder / "a.pth", _use_new_zipfile_serialization=False)
    keep("before zip", folder / "a.pth")
    save_file(state, folder / "a.safetensors")
    keep("safetensors", folder / "a.safetensors")
    paddle.save({k: paddle.to_tensor(v) for k, v in paddle_state().items()}, str(folder / "a.pdparams"))
    keep("paddle", folder / "a.pdparams")
    made["pickle"] = pickle.dumps(paddle_state(), 4)
    made["index"] = json.dumps({"weight_map": dict.fromkeys(state, "a.safetensors")}).encode()
    assert set(made) == set(FORMATS)
    return made


def training_contents():
    model = torch_ref.create_model("inline_deit_digits", **SMALL)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    state = dict(model.state_dict())
    return {"model": state, "optimizer": optimizer.state_dict(), "epoch": 3, "state_dict_ema": dict(state)}


def place(data, rng):
    """Anywhere, but twice in three times where a file's structure is: its first or last bytes."""
    near = rng.randrange(min(len(data), 3000))
    return rng.choice((near, len(data) - 1 - near, rng.randrange(len(data))))


def spoiled(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        here, there = place(data, rng), place(data, rng)
        deed = rng.randrange(6)
        if deed == 0:
            data[here] ^= 1 << rng.randrange(8)
        elif deed == 1:
            data[here] = rng.choice(b"\0\1\x7f\x80\xff.R(b\x81\x8e")
        elif deed == 2:
            del data[here:]
        elif deed == 3:
            del data[here : here + rng.randrange(1, 40)]
        elif deed == 4:
            data[here:here] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 40)))
        else:
            data[here : here + 8] = data[there : there + 8]
    return bytes(data)


def read(path):
    """Read all of a file as a conversion does; True if it was refused, in a message of bearable length."""
    try:
        arrays, _, _ = paddle_side(open_checkpoint(path, QUIET), QUIET)
        assert all(array.read().shape == array.shape for array in arrays.values())
        return False
    except REFUSALS as error:
        assert 0 < len(str(error)) < 4000
        return True


def spoil_and_read(folder, sound, form, rng, times):
    save_file(good_state(), folder / "a.safetensors")  # what the index names
    path, before = folder / f"b{SUFFIXES.get(form, '.pdparams')}", peak_memory()
    refused = 0
    for _ in range(times):
        path.write_bytes(spoiled(sound[form], rng))
        refused += read(path)
        if not form.startswith("index"):
            with_model(path)
    assert refused > times / 4  # or nothing was spoiled
    assert peak_memory() < before + 64


def with_model(path):
    with contextlib.suppress(ValueError):
        paddle_inline.create_model(weights=path)


@pytest.mark.parametrize("form", FORMATS)
def test_spoiled_files(tmp_path, sound, form):
    spoil_and_read(tmp_path, sound, form, random.Random(form), 30)


@pytest.mark.full
@pytest.mark.parametrize("form", FORMATS)
def test_many_spoiled_files(tmp_path, sound, form):
    spoil_and_read(tmp_path, sound, form, random.Random(f"many, {form}"), 500)


@pytest.mark.parametrize(
    "field", ["model", "depth", "embed_dim", "num_heads", "img_size", "mlp_ratio", "attn_type"]
)
def test_descriptions_of_odd_values(tmp_path, sound, field):
    path = tmp_path / "a.pdparams"
    for value in ODD:
        facts = {"model": "inline_deit_digits", "overrides": dict(SMALL)}
        (facts if field == "model" else facts["overrides"])[field] = value
        path.write_bytes(sound["pickle"] + b"\n" + json.dumps({"paddle_inline": facts}).encode() + b"\n")
        read(path)
        with_model(path)


def test_a_bug_met_while_a_description_is_read_is_no_damaged_file(tmp_path, sound, monkeypatch):
    facts = {"model": "inline_deit_digits", "overrides": dict(SMALL)}
    path = tmp_path / "a.pdparams"
    path.write_bytes(sound["pickle"] + b"\n" + json.dumps({"paddle_inline": facts}).encode() + b"\n")
    monkeypatch.setattr(identify, "variants_of", lambda family: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        open_checkpoint(path, QUIET)


def odd_places(contents, path=()):
    for key in contents if isinstance(contents, dict) else range(len(contents)):
        yield (*path, key)
        if isinstance(contents[key], (dict, list)):
            yield from odd_places(contents[key], (*path, key))


def test_training_checkpoints_of_odd_values(tmp_path):
    contents, rng = training_contents(), random.Random(0)
    places = [way for way in odd_places(contents) if way[0] in ("optimizer", "epoch") or len(way) == 1]
    for number, way in enumerate(rng.sample(places, 40)):
        changed = copy.deepcopy(contents)
        node = changed
        for key in way[:-1]:
            node = node[key]
        node[way[-1]] = rng.choice([*ODD, torch.ones(3), np.float64(3)])
        torch.save(changed, tmp_path / "a.pth")
        try:
            training_to_paddle(tmp_path / "a.pth", tmp_path / str(number), QUIET)
        except REFUSALS as error:
            assert 0 < len(str(error)) < 4000
