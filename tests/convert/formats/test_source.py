"""Every wrapping of weights is found, and what was chosen is named."""

import json

import numpy as np
import paddle
import pytest
import torch
from safetensors.torch import save_file

from convert.formats.select import select_weights
from convert.formats.source import open_source
from paddle_inline.weights.lazy_array import WeightsFileError

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.bfloat16)}
EMA = {name: tensor + 1 for name, tensor in WEIGHTS.items()}
OPTIMIZER = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}


def taken(path, take="model", **how):
    weights = select_weights(open_source(path, **how), take)
    for name, array in weights.arrays.items():
        expected = EMA[name] if weights.taken in ("state_dict_ema", "model_ema") else WEIGHTS[name]
        assert (
            array.read().tolist()
            == (expected.view(torch.int16) if array.dtype == "bfloat16" else expected).tolist()
        )
    assert set(weights.arrays) == set(WEIGHTS)
    return weights


def save(tmp_path, value):
    torch.save(value, tmp_path / "a.pth")
    return tmp_path / "a.pth"


def test_a_plain_state_dict(tmp_path):
    path = save(tmp_path, WEIGHTS)
    assert open_source(path).format == "torch"
    assert taken(path).taken == ""


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "module", "net"])
def test_weights_under_a_key(tmp_path, key):
    path = save(tmp_path, {"epoch": 3, "optimizer": OPTIMIZER, key: WEIGHTS})
    assert taken(path).taken == key


def test_model_or_averaged_weights_is_a_choice(tmp_path):
    path = save(tmp_path, {"model": WEIGHTS, "state_dict_ema": EMA, "max_accuracy_e": 84.5})
    assert (taken(path).taken, taken(path).others) == ("model", ("state_dict_ema",))
    assert (taken(path, "ema").taken, taken(path, "ema").others) == ("state_dict_ema", ("model",))


def test_averaged_weights_alone_are_taken(tmp_path):
    assert taken(save(tmp_path, {"model_ema": EMA})).taken == "model_ema"


def test_a_choice_that_is_not_there(tmp_path):
    source = open_source(save(tmp_path, {"model": WEIGHTS}))
    with pytest.raises(ValueError, match="no averaged weights"):
        select_weights(source, "ema")
    with pytest.raises(ValueError, match=r"holds no tensors at 'best'; --take model, ema or one of\n  model"):
        select_weights(source, "best")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_prefixes_of_wrappers_come_off(tmp_path, prefix):
    path = save(tmp_path, {"state_dict": {prefix + name: tensor for name, tensor in WEIGHTS.items()}})
    assert taken(path).prefix == prefix


def test_a_prefix_of_some_names_stays(tmp_path):
    path = save(tmp_path, {"module.a": torch.ones(1), "b": torch.ones(1)})
    assert list(select_weights(open_source(path)).arrays) == ["module.a", "b"]


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin"])
def test_files_are_known_by_what_they_hold_not_by_their_names(tmp_path, name):
    save_file(WEIGHTS, tmp_path / name)
    assert open_source(tmp_path / name).format == "safetensors"
    assert taken(tmp_path / name)


def test_a_paddle_file_whose_name_lies(tmp_path):
    state = {name: paddle.to_tensor(tensor.float().numpy()) for name, tensor in WEIGHTS.items()}
    paddle.save(state, str(tmp_path / "a.pth"))
    source = open_source(tmp_path / "a.pth")
    assert source.format == "Paddle"
    np.testing.assert_array_equal(source.contents["a.bias"].read(), [1, 1])


def shards(tmp_path, suffix="safetensors", **change):
    names = list(WEIGHTS)
    for i, name in enumerate(names):
        state = {name: WEIGHTS[name]}
        if suffix == "safetensors":
            save_file(state, tmp_path / f"m-{i}.safetensors")
        else:
            torch.save(state, tmp_path / f"m-{i}.bin")
    index = {name: f"m-{i}.{suffix}" for i, name in enumerate(names)}
    path = tmp_path / f"m.{suffix}.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 28}, "weight_map": {**index, **change}}))
    return path


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_by_their_index(tmp_path, suffix):
    path = shards(tmp_path, suffix)
    assert taken(path)
    assert [file.name for file in open_source(path).files] == [path.name, f"m-0.{suffix}", f"m-1.{suffix}"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"a.bias": "../m-1.safetensors"}, "no checkpoint beside it"),
        ({"a.bias": "/etc/passwd"}, "no checkpoint beside it"),
        ({"a.bias": "..\\m-1.safetensors"}, "no checkpoint beside it"),
        ({"a.bias": ".."}, "no checkpoint beside it"),
        ({"a.bias": "m-0.safetensors"}, "places 'a.bias' in m-0.safetensors, where it is not"),
        ({"c": "m-0.safetensors"}, "places 'c' in m-0.safetensors, where it is not"),
        ({"a.bias": "m-1.safetensors", "a.weight": "m-1.safetensors"}, "where it is not"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, change, message):
    with pytest.raises(WeightsFileError, match=message):
        open_source(shards(tmp_path, **change))


def test_a_tensor_that_two_shards_hold_is_refused(tmp_path):
    """Which of the two is meant is not known, even where the index says one."""
    path = shards(tmp_path)
    save_file({name: WEIGHTS[name] for name in WEIGHTS}, tmp_path / "m-1.safetensors")
    with pytest.raises(WeightsFileError, match=f"two shards hold '{next(iter(WEIGHTS))}'"):
        open_source(path)


def test_a_missing_shard_is_named(tmp_path):
    path = shards(tmp_path)
    (tmp_path / "m-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="m-1"):
        open_source(path)


def test_an_index_does_not_lead_to_another(tmp_path):
    path = shards(tmp_path)
    for name in WEIGHTS:
        path.write_text(json.dumps({"weight_map": {name: path.name}}))
    with pytest.raises(WeightsFileError, match="no checkpoint beside it"):
        open_source(path)


@pytest.mark.parametrize(
    "value, message",
    [
        ([1, 2], r"holds no named tensors \(list\); save the model's state_dict"),
        (torch.ones(2), "holds a Tensor, not named weights"),
        ({"epoch": 1}, r"holds no named tensors, only epoch \(int\)"),
        ({"model": {}}, r"holds no named tensors, only model \(dict\)"),
    ],
)
def test_what_holds_no_weights_is_named(tmp_path, value, message):
    with pytest.raises(WeightsFileError, match=message):
        select_weights(open_source(save(tmp_path, value)))


def test_a_module_that_was_saved_whole_is_read(tmp_path):
    found = select_weights(open_source(save(tmp_path, torch.nn.Linear(1, 1))))
    assert set(found.arrays) == {"weight", "bias"} and found.taken == ""


def test_tensors_larger_than_their_file_are_refused(tmp_path):
    base = torch.zeros(1000)
    path = save(tmp_path, {str(i): base[:] for i in range(100)})  # one storage, a hundred times
    with pytest.raises(WeightsFileError, match="declares tensors of 400000 bytes"):
        select_weights(open_source(path))
