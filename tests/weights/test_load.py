"""Weight files of Paddle: read safely, loaded strictly, all of them or none."""

import contextlib
import json
import os
import pickle

import numpy as np
import paddle
import pytest
from safetensors.numpy import save_file

import paddle_inline
from paddle_inline.weights.load import (
    WeightsFileError,
    load_weights,
    open_pickle,
    open_weights,
    read_weights,
)
from paddle_inline.weights.wrapped import lazy_array_of


@pytest.fixture(scope="module")
def model():
    return paddle_inline.create_model("inline_deit_digits", depth=1, embed_dim=8, num_heads=2)


def arrays(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("wrap", [False, True])
def test_reads_what_paddle_saves(tmp_path, model, protocol, wrap):
    state = model.state_dict()
    paddle.save({"model": dict(state), "epoch": 3} if wrap else state, str(tmp_path / "m.pdparams"), protocol)
    assert_same(read_weights(tmp_path / "m.pdparams"), arrays(model))
    assert_same(read_weights(tmp_path / "m"), arrays(model))


def test_reads_safetensors(tmp_path, model):
    save_file(arrays(model), tmp_path / "m.safetensors")
    found = read_weights(tmp_path / "m.safetensors")
    assert_same({name: found[name] for name in arrays(model)}, arrays(model))


def test_reads_a_training_state_as_plain_data(tmp_path):
    layer = paddle.nn.Linear(2, 2)
    optimizer = paddle.optimizer.AdamW(parameters=layer.parameters())
    layer(paddle.ones([1, 2])).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "steps": [1, 2.5, None, "text"], "weight": layer.weight}
    paddle.save(state, str(tmp_path / "a.pdopt"))
    found, _ = open_pickle(tmp_path / "a.pdopt")
    assert found["steps"] == [1, 2.5, None, "text"]
    np.testing.assert_array_equal(lazy_array_of(found["weight"]).read(), layer.weight.numpy())
    for name, value in optimizer.state_dict().items():
        np.testing.assert_array_equal(lazy_array_of(found["optimizer"][name]).read(), np.asarray(value))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions_become_the_model_s(tmp_path, model, dtype):
    state = {name: tensor.astype(dtype) for name, tensor in model.state_dict().items()}
    paddle.save(state, str(tmp_path / "m.pdparams"))
    other = paddle_inline.create_model("inline_deit_digits", depth=1, embed_dim=8, num_heads=2)
    load_weights(other, tmp_path / "m.pdparams")
    assert open_weights(tmp_path / "m.pdparams")[0]["cls_token"].dtype == dtype
    assert_same(arrays(other), {name: t.astype("float32").numpy() for name, t in state.items()})


def test_a_line_behind_the_pickle_says_which_model_it_is_and_paddle_does_not_mind(tmp_path, model):
    path = tmp_path / "m.pdparams"
    paddle.save(model.state_dict(), str(path))
    assert open_weights(path)[1] is None
    description = {"model": "inline_deit_digits", "overrides": {"depth": 1}}
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n" + json.dumps({"paddle_inline": description}) + "\n")
    assert open_weights(path)[1] == description
    assert model.set_state_dict(paddle.load(str(path))) == ([], [])


def test_a_line_that_is_not_ours_says_nothing(tmp_path, model):
    for line in (
        "[1]",
        '{"paddle_inline": 1}',
        '{"paddle_inline": {"model": 1, "overrides": {}}}',
        "{" * 9999,
    ):
        paddle.save(model.state_dict(), str(tmp_path / "m.pdparams"))
        with open(tmp_path / "m.pdparams", "a", encoding="utf-8") as file:
            file.write(line)
        assert open_weights(tmp_path / "m.pdparams")[1] is None


class Trap:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_that_a_file_names_is_run(tmp_path, model):
    trap = Trap(tmp_path / "trap")
    for contents in (
        trap,
        {"model": {**arrays(model), "head.weight": trap}},
        {**arrays(model), "extra": [trap]},
    ):
        (tmp_path / "m.pdparams").write_bytes(pickle.dumps(contents))
        with pytest.raises(WeightsFileError, match=r"m\.pdparams is not read: it asks for posix\.mkdir"):
            paddle_inline.load_weights(model, tmp_path / "m.pdparams")
    assert not os.path.exists(trap.path)


def test_shared_and_circular_containers_end(tmp_path):
    nested = []
    for _ in range(40):
        nested = [nested, nested]  # 2 ** 40 lists if each were made anew
    (tmp_path / "a").write_bytes(pickle.dumps(nested))
    found, _ = open_pickle(tmp_path / "a")
    assert len(found) == 2 and found[0] is found[1]
    circle = []
    circle.append(circle)
    (tmp_path / "a").write_bytes(pickle.dumps(circle))
    found, _ = open_pickle(tmp_path / "a")
    assert found[0] is found
    for contents in (circle, {"model": circle}, {"a": circle}):
        (tmp_path / "a").write_bytes(pickle.dumps(contents))
        with contextlib.suppress(WeightsFileError):
            assert not read_weights(tmp_path / "a")


@pytest.mark.parametrize("spoil", ["missing", "extra", "shape"])
def test_a_difference_is_listed_and_nothing_is_loaded(model, spoil):
    before, state = arrays(model), {name: value + 1 for name, value in arrays(model).items()}
    if spoil == "missing":
        del state["norm.bias"]
        lines = ["  - norm.bias [8]"]
    elif spoil == "extra":
        state["extra"] = np.zeros((2, 3))
        lines = ["  + extra [2, 3]"]
    else:
        state["norm.bias"] = np.zeros(9)
        lines = ["  - norm.bias [8]", "  + norm.bias [9]"]
    with pytest.raises(ValueError, match="names or shapes differ") as caught:
        load_weights(model, state)
    assert str(caught.value).splitlines()[2:] == lines
    assert_same(arrays(model), before)


@pytest.mark.parametrize(
    "value, message",
    [
        (np.full(8, np.nan, "float32"), "norm.bias is NaN or infinite in 8 values"),
        (np.full(8, np.inf, "float16"), "norm.bias is NaN or infinite in 8 values"),
        (np.full(8, 0x7FC0, "uint16"), "norm.bias is NaN or infinite in 8 values"),
        (np.zeros(8, "int8"), "norm.bias is int8"),
        (np.zeros(8, "complex64"), "norm.bias is complex64"),
    ],
)
def test_values_that_no_model_has_are_refused_and_nothing_is_loaded(model, value, message):
    before = arrays(model)
    with pytest.raises(ValueError, match=message):
        load_weights(model, {**{name: v + 1 for name, v in before.items()}, "norm.bias": value})
    assert_same(arrays(model), before)


def test_skip_keeps_a_part_of_the_model(model):
    before = arrays(model)
    state = {name: value for name, value in before.items() if not name.startswith("head")}
    load_weights(model, {**state, "head.weight": np.zeros((8, 3))}, skip=("head",))
    assert_same(arrays(model), before)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("inline_deit_digits", {"depth": 1, "num_classes": 7, "img_size": 48}),
        ("inline_pvt_tiny", {"depths": (1, 1, 1, 1), "num_classes": 3, "img_size": 64}),
        ("inline_deit_digits", {"depth": 1}),
    ],
)
def test_classes_and_input_size_are_read_off_the_tensors(tmp_path, name, overrides):
    model = paddle_inline.create_model(name, **overrides)
    paddle.save(model.state_dict(), str(tmp_path / "plain.pdparams"))
    sizes = ("num_classes", "img_size")
    rest = {key: value for key, value in overrides.items() if key not in sizes}
    found = paddle_inline.create_model(name, weights=tmp_path / "plain", **rest)
    assert found.spec.num_classes == model.spec.num_classes and found.img_size == model.img_size
    with pytest.warns(
        UserWarning, match=rf"head set to zero \({model.num_classes} -> 11 classes\), so train it"
    ):
        found = paddle_inline.create_model(name, weights=tmp_path / "plain", **rest, num_classes=11)
    assert found.num_classes == 11 and not found.head.weight.numpy().any()


def test_a_file_is_preferred_to_a_folder_and_a_run_means_its_best_weights(tmp_path):
    for value, place in enumerate(("run.pdparams", "run/best_model.pdparams", "step/model.pdparams")):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        paddle.save({"w": paddle.full([1], value)}, str(tmp_path / place))
    assert read_weights(tmp_path / "run")["w"] == 0
    (tmp_path / "run.pdparams").unlink()
    assert read_weights(tmp_path / "run")["w"] == 1
    assert read_weights(tmp_path / "step")["w"] == 2
    (tmp_path / "run" / "best_model.pdparams").rename(tmp_path / "run" / "other.pdparams")
    with pytest.raises(FileNotFoundError, match=r"run is a folder without best_model.*other\.pdparams"):
        read_weights(tmp_path / "run")
