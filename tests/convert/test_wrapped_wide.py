"""More wrappings that people meet: lists, modules, nested trees, numbers as keys, shards, other pickle protocols."""

import array
import datetime
import json
import logging
import pickle
import random
import typing
import zoneinfo

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from convert.__main__ import main
from convert.checkpoint import ConversionOptions, open_checkpoint, recognised
from convert.errors import UnknownModelError
from convert.formats.select import dictionaries, select_weights
from convert.formats.source import Source, open_source
from paddle_inline.utils.errors import UserError
from paddle_inline.weights.lazy_array import LazyArray, WeightsFileError
from tests.convert.hostile import good_state


@pytest.fixture(scope="module")
def state():
    return good_state()


def save(folder, contents, name="a.pth"):
    torch.save(contents, folder / name)
    return folder / name


def opened(folder, contents, take="model"):
    return open_checkpoint(save(folder, contents), ConversionOptions(take=take))


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def other(state):
    return {name: value + 1 for name, value in state.items()}


def nested(state):
    tree = {}
    for name, value in state.items():
        *keys, last = name.split(".")
        place = tree
        for key in keys:
            place = place.setdefault(key, {})
        place[last] = value
    return tree


def assert_same(found, state):
    assert found.identity.name == "inline_deit_digits"
    for name, value in state.items():
        np.testing.assert_array_equal(found.weights.arrays[name].read(), value.numpy())
    assert set(found.weights.arrays) == set(state)


WRAPPED = {
    "in a tuple": lambda s: ((s, 3), "0"),
    "in a list": lambda s: ([{"epoch": 1}, s], "1"),
    "as pairs": lambda s: (list(s.items()), "."),
    "a tree of the names": lambda s: (nested(s), "."),
    "a tree under a key": lambda s: ({"params": nested(s), "step": 3}, "params"),
    "under a number": lambda s: ({0: s, 1: {"epoch": 1}}, "0"),
    "under a tuple": lambda s: ({"models": (s, None)}, "models.0"),
    "bytes for names": lambda s: ({name.encode(): value for name, value in s.items()}, "."),
    "an average by another word": lambda s: ({"net": s, "swa_model": other(s)}, "net"),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_dictionaries_wherever_they_are(tmp_path, state, name):
    contents, take = WRAPPED[name](state)
    assert_same(opened(tmp_path, contents), state)
    assert_same(opened(tmp_path, contents, take), state)


def test_moments_by_name_are_no_model(tmp_path, state):
    contents = {"weights": state, "optimizer": {"exp_avg": other(state), "exp_avg_sq": other(state)}}
    assert_same(opened(tmp_path, contents), state)
    with pytest.raises(UserError, match="has no averaged weights"):
        opened(tmp_path, contents, "ema")
    by_parameter = {name: {"exp_avg": value, "step": value} for name, value in state.items()}
    contents = {"model": state, "optimizer": {"state": by_parameter, "param_groups": []}}
    assert [each.label for each in dictionaries(open_source(save(tmp_path, contents)))] == ["model"]


def test_the_file_itself_has_a_name_for_take(tmp_path, state, capsys):
    path = save(tmp_path, {**state, **under("module.", other(state))})
    with pytest.raises(UserError, match=r"--take \. or --take module"):
        open_checkpoint(path, ConversionOptions())
    assert_same(open_checkpoint(path, ConversionOptions(take=".")), state)
    assert_same(open_checkpoint(path, ConversionOptions(take="module")), other(state))
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "(the file itself): 24 tensors, create_model(" in said and said.count("--take") == 3


def test_what_take_can_be_is_said_rightly(tmp_path, state, capsys):
    path = save(tmp_path, {"model": state, "state_dict": other(state)})
    assert main(["inspect", str(path)]) == 0
    assert "(it also has 'state_dict': --take state_dict)" in capsys.readouterr().out


def test_a_mask_token_of_pre_training_is_left_out(tmp_path, state):
    body = {name: value for name, value in state.items() if not name.startswith("head.")}
    extra = {"mask_token": torch.ones(1, 1, 8), "decoder_pos_embed": torch.ones(1, 5, 8)}
    found = opened(tmp_path, {"model": {**body, **extra}})
    assert_same(found, body)
    assert list(found.left_out) == list(extra)


def test_pickles_of_protocol_5(tmp_path, state):
    arrays = {name: np.asfortranarray(value.numpy()) for name, value in state.items()}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": arrays, "big": np.zeros(5000)}, 5))
    assert_same(open_checkpoint(tmp_path / "a.pkl", ConversionOptions()), state)


def test_harmless_objects_beside_the_weights(tmp_path, state):
    beside = {
        "records": np.zeros(3, [("a", "i4"), ("b", "f8")]),
        "masked": np.ma.masked_array([1, 2], mask=[0, 1]),
        "logger": logging.getLogger("training"),
        "expanded": torch.zeros(1).expand(9),
    }
    found = opened(tmp_path, {"model": state, **beside})
    assert_same(found, state)
    with pytest.raises(WeightsFileError, match=r"of head\.bias, it is an expanded view .*\.contiguous\(\)"):
        opened(tmp_path, {**state, "head.bias": torch.zeros(1).expand(3)})


SETTINGS = {
    "range": range(3),
    "no type": type(None),
    "optional": typing.Optional[int],
    "list of ints": list[int],
    "array": array.array("f", [1.0]),
    "generator": random.Random(0),
    "records": np.rec.array([(1,)], dtype=[("a", int)]),
    "date with a zone": datetime.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_any_plain_kind(tmp_path, state, name, zipped):
    torch.save(
        {"model": state, "args": SETTINGS[name]}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped
    )
    assert_same(open_checkpoint(tmp_path / "a.pth", ConversionOptions()), state)


def test_numbers_that_are_not_read_lie_before_others_in_a_stream(tmp_path, state):
    beside = {"complex": torch.ones(3, dtype=torch.complex64)}
    beside["quantized"] = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    torch.save({**beside, "model": state}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert_same(open_checkpoint(tmp_path / "a.pth", ConversionOptions()), state)


CHANGED = {
    "blocks.0.attn.qkv.lora_A.default.weight": "adapters .*merge_and_unload",
    "head.parametrizations.weight.original0": "remove_parametrizations",
    "head.weight_mask": r"prune\.remove",
    "head.weight_v": "remove_weight_norm",
    "head._packed_params.dtype": "quantized",
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_model_is_named_with_the_way_back(tmp_path, state, name):
    with pytest.raises(UnknownModelError, match=CHANGED[name]) as caught:
        opened(tmp_path, {**state, name: torch.ones(3, 8)})
    assert str(caught.value).startswith(f"{tmp_path / 'a.pth'}: ")


def shards(folder, state):
    names, files = list(state), {}
    for i in range(2):
        part = names[i::2]
        file = f"model-{i + 1:05}-of-00002.safetensors"
        save_file({name: state[name].contiguous() for name in part}, folder / file, {"format": "pt"})
        files.update(dict.fromkeys(part, file))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    return index


def test_a_folder_of_shards_with_a_training_state(tmp_path, state, capsys):
    folder = tmp_path / "hub"
    folder.mkdir()
    index = shards(folder, state)
    (folder / "config.json").write_text("{}")
    for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl", "training_args.bin"):
        save(folder, {"state": {}}, name)
    assert main(["inspect", str(folder)]) == 3
    assert "name one: model.safetensors.index.json\n" in capsys.readouterr().err
    shard = folder / "model-00001-of-00002.safetensors"
    assert main(["inspect", str(shard)]) == 3
    assert (
        capsys.readouterr().err
        == f"error: {shard} is shard 1 of 2 of a checkpoint: give their index, {index}\n"
    )
    assert main(["to-paddle", str(folder), str(tmp_path / "out"), "--no-verify"]) == 0
    said = capsys.readouterr().out
    assert (
        "passed over, as they are the training's state: optimizer.bin, scheduler.bin, training_args.bin"
        in said
    )
    assert (tmp_path / "out" / "model.pdparams").exists()
    shard.unlink()
    with pytest.raises(
        UserError, match=r"names the shard model-00001-of-00002\.safetensors, which is not beside"
    ):
        open_source(index)


def test_the_command_to_go_on_never_overwrites_its_input(tmp_path, state, capsys):
    path = save(tmp_path, state, "a.pdparams")
    assert main(["inspect", str(path)]) == 0
    command = f"python -m convert to-paddle {path} {tmp_path / 'a_paddle.pdparams'}"
    assert f"next: {command}\n" in capsys.readouterr().out


KEY = st.sampled_from(["model", "state_dict", "net", "weights", "module", "trainer", "a b", "0", "ema_off"])
PREFIX = st.sampled_from(
    ["module.", "model.", "backbone.", "encoder.", "student.", "net.", "_forward_module."]
)
MARK = st.sampled_from(["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"])
STATE = good_state()


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.lists(KEY, max_size=4),
    st.lists(PREFIX, max_size=3),
    st.lists(MARK, max_size=2),
    st.sampled_from(["dict", "list", "tuple", "number", "tree"]),
    st.booleans(),
)
def test_any_mix_of_keys_prefixes_and_marks(tmp_path_factory, keys, prefixes, marks, form, company):
    """The weights come back bit for bit under their own names, and what is beside them is named."""
    names = {name: name.replace("blocks.0.", ".".join(["blocks.0", *marks, ""])) for name in STATE}
    contents = {"".join(prefixes) + names[name]: value for name, value in STATE.items()}
    beside = {"criterion.weight": torch.ones(2)} if company else {}
    contents = {**contents, **beside}
    contents = nested(contents) if form == "tree" else contents
    for key in reversed(keys):
        contents = {key: contents, "epoch": 3}
    contents = {"list": [contents], "tuple": (1, contents), "number": {7: contents}}.get(form, contents)
    path = tmp_path_factory.mktemp("wrapped") / "a.pth"
    found = open_checkpoint(save(path.parent, contents), ConversionOptions())
    assert_same(found, STATE)
    assert len(found.left_out) == len(beside)


def test_names_alone_decide_and_nothing_is_read_twice(state):
    """A source in memory, as other readers make one."""
    arrays = {
        name: LazyArray(tuple(value.shape), "float32", value.numpy)
        for name, value in under("net.", state).items()
    }

    class InMemory(Source):
        size = 1 << 30

    source = InMemory("here", "test", {"deep": [arrays]}, ())
    assert select_weights(source).taken == "deep.0"
    assert_same(recognised(source, ConversionOptions()), state)
