"""Translation by kind of tensor: bit for bit, both ways, by the layer that owns it and nothing else."""

import numpy as np
import paddle
import pytest

import paddle_inline
from convert import paddle_to_torch, torch_to_paddle
from paddle_inline.weights.torch_layout import KEEP, LINEAR_WEIGHT, rule_of, tensor_rules, torch_shapes
from tests.convert.parity.specs import SMALL, small

DTYPES = ("float64", "float32", "float16", "uint16", "int64")  # uint16: how Paddle hands out bfloat16


def build(family, **overrides):
    name, overrides = small(family, **overrides)
    return paddle_inline.create_model(name, **overrides)


def random_bits(shape, dtype, random):
    """An array of any bits: NaN of every kind, infinities and -0 among them."""
    return np.frombuffer(random.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(shape)


def same_bits(one, two):
    return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trips_keep_every_bit(family, dtype):
    model, random = build(family), np.random.RandomState(0)
    ours = {name: random_bits(t.shape, dtype, random) for name, t in model.state_dict().items()}
    theirs = paddle_to_torch(ours, model)
    back = torch_to_paddle(theirs, model)
    assert list(back) == list(ours)
    assert all(same_bits(back[name], ours[name]) for name in ours)
    again = paddle_to_torch(back, model)
    assert all(same_bits(again[name], theirs[name]) for name in theirs)
    assert all(value.flags.c_contiguous for value in theirs.values())


@pytest.mark.parametrize("family", SMALL)
def test_pytorch_takes_the_result_strictly(family):
    torch = pytest.importorskip("torch")
    import torch_ref

    name, overrides = small(family)
    model, twin = build(family), torch_ref.create_model(name, **overrides)
    state = paddle_to_torch({key: value.numpy() for key, value in model.state_dict().items()}, model)
    twin.load_state_dict({key: torch.as_tensor(value) for key, value in state.items()}, strict=True)
    shapes = {key: tuple(value.shape) for key, value in twin.state_dict().items()}
    counters = {key for key in shapes if key.endswith("num_batches_tracked")}
    assert torch_shapes(model) == {key: shape for key, shape in shapes.items() if key not in counters}
    assert {key: np.shape(value) for key, value in state.items()} == shapes
    assert bool(counters) == family.startswith("soft")


def test_a_square_linear_is_transposed_and_a_table_is_not():
    model = build("swin", attn_type="SSSS", depths=(1, 1, 1, 1))
    ours = {name: np.arange(t.size).reshape(t.shape) for name, t in model.state_dict().items()}
    theirs = paddle_to_torch(ours, model)
    square = "layers.0.blocks.0.attn.proj.weight"
    assert ours[square].shape[0] == ours[square].shape[1]
    np.testing.assert_array_equal(theirs[square], ours[square].T)
    for name in ("layers.0.blocks.0.attn.relative_position_bias_table", "patch_embed.proj.weight"):
        np.testing.assert_array_equal(theirs[name], ours[name])


def test_the_kind_decides_not_the_name_or_the_rank():
    linear = paddle_inline.layers.basic.Linear(3, 3)
    assert rule_of(linear, "weight") is LINEAR_WEIGHT and rule_of(linear, "bias") is KEEP
    assert rule_of(paddle.nn.Linear(3, 3), "weight") is LINEAR_WEIGHT
    assert rule_of(paddle.nn.Embedding(3, 3), "weight") is KEEP
    norm = paddle.nn.BatchNorm2D(3)
    assert rule_of(norm, "_mean").torch_name == "running_mean"
    assert rule_of(norm, "_variance").torch_name == "running_var"
    assert rule_of(linear, "_mean") is KEEP


@pytest.mark.parametrize("family", SMALL)
def test_every_linear_and_no_other_tensor_is_transposed(family):
    model = build(family)
    linears = {
        f"{name}.weight" for name, layer in model.named_sublayers() if isinstance(layer, paddle.nn.Linear)
    }
    rules = tensor_rules(model)
    assert {name for name, (_, rule) in rules.items() if rule.transpose} == linears
    assert list(rules) == list(model.state_dict())
    renamed = {(name, torch_name) for name, (torch_name, _) in rules.items() if name != torch_name}
    ends = {(name.rsplit(".", 1)[1], torch_name.rsplit(".", 1)[1]) for name, torch_name in renamed}
    expected = {("_mean", "running_mean"), ("_variance", "running_var")}
    assert ends == (expected if family.startswith("soft") else set())


def test_inputs_are_left_alone():
    model = build("deit")
    ours = {name: value.numpy() for name, value in model.state_dict().items()}
    before = {name: value.copy() for name, value in ours.items()}
    paddle_to_torch(ours, model)
    assert all(same_bits(ours[name], before[name]) for name in before)


class TestDifferences:
    """What does not fit is refused as a whole, with a list of what is missing, foreign or misshapen."""

    @pytest.fixture
    def pair(self):
        model = build("deit")
        return model, {name: np.zeros(shape, "float32") for name, shape in torch_shapes(model).items()}

    def test_missing_and_foreign_names(self, pair):
        model, state = pair
        state["head_dist.weight"] = state.pop("head.weight")
        with pytest.raises(ValueError, match="not the weights of inline_deit_digits") as error:
            torch_to_paddle(state, model)
        assert "  - head.weight [10, 24]" in str(error.value)
        assert "  + head_dist.weight [10, 24]" in str(error.value)
        assert "norm.weight" not in str(error.value)

    def test_shapes_are_told_in_the_terms_of_the_given_side(self, pair):
        model, state = pair
        ours = torch_to_paddle(state, model)
        state["blocks.0.mlp.fc1.weight"] = state["blocks.0.mlp.fc1.weight"].T  # Paddle's layout
        with pytest.raises(ValueError, match=r"- blocks.0.mlp.fc1.weight \[96, 24\]\n  \+ .* \[24, 96\]"):
            torch_to_paddle(state, model)
        ours["blocks.0.mlp.fc1.weight"] = ours["blocks.0.mlp.fc1.weight"].T
        with pytest.raises(ValueError, match=r"- blocks.0.mlp.fc1.weight \[24, 96\]\n  \+ .* \[96, 24\]"):
            paddle_to_torch(ours, model)

    def test_a_long_list_is_cut(self, pair):
        model, _ = pair
        with pytest.raises(ValueError, match=r"and [0-9]+ more") as error:
            torch_to_paddle({f"x{i}": np.zeros(1) for i in range(100)}, model)
        assert len(str(error.value).splitlines()) < 50

    def test_pytorch_s_counters_are_welcome_and_no_others(self):
        model = build("soft")
        state = {name: np.zeros(shape, "float32") for name, shape in torch_shapes(model).items()}
        with_counters = {**state, "patch_embed1.proj.1.num_batches_tracked": np.array(7)}
        assert list(torch_to_paddle(with_counters, model)) == list(torch_to_paddle(state, model))
        with pytest.raises(ValueError, match=r"patch_embed1\.proj\.0\.num_batches_tracked"):
            torch_to_paddle({**state, "patch_embed1.proj.0.num_batches_tracked": np.array(7)}, model)
