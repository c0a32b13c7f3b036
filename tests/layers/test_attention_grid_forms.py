"""Forms with tables, rotary positions, agents and gates: refusals, what begins how, export, recompute."""

import importlib
import math

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

import paddle_inline  # noqa: E402
from paddle_inline.inference.backends import PaddleEngine  # noqa: E402

FORMS = ("enhanced", "slab", "focused", "pola", "mala", "rala", "mlla", "agent", "linformer", "gla")
GRID, DIM, HEADS = (3, 5), 48, 3


@pytest.fixture(params=["paddle_inline", "torch_ref"])
def package(request):
    """Either package, imported."""
    return pytest.importorskip(request.param.partition("_ref")[0]) and importlib.import_module(request.param)


def state_of(layer):
    return {name: tensor.detach().numpy() for name, tensor in layer.state_dict().items()}


class TestRefusals:
    @pytest.mark.parametrize(
        ("form", "arguments", "message"),
        [
            (
                "mala",
                {"dim": 54},
                "rotary positions need heads of a width that is a multiple of 4, and 54 .* make 18",
            ),
            (
                "rala",
                {"dim": 6},
                "a multiple of 4, and 6 channels in 3 heads make 2; try width 12, or rope=False",
            ),
            ("mlla", {"dim": 18}, "width 18 must be a multiple of 4 .*; try width 24, or rope=False"),
            ("mala", {"rope": "no"}, "rope 'no' must be true or false"),
            (
                "pola",
                {"dim": 45},
                "pola needs heads of a width that is a multiple of 2, and 45 .* try width 48",
            ),
            ("gla", {"dim": 45}, "gla needs heads of a width that is a multiple of 2"),
            (
                "agent",
                {"num_agents": 50},
                "num_agents 50 must be a square number, r x r pooled cells; try 49",
            ),
            ("agent", {"num_agents": 0}, "num_agents 0 must be an int from 1 to 1048576"),
            ("linformer", {"num_projected": 1.5}, "num_projected 1.5 must be an int from 1 to 1048576"),
            ("slab", {"grid": None}, "has a table over the grid and needs to know it"),
            ("linformer", {"grid": None}, "has a table over the grid and needs to know it"),
            ("slab", {"num_agents": 9}, "num_agents is an option of agent, not of slab"),
        ],
    )
    def test_one_line_that_says_why(self, package, form, arguments, message):
        with pytest.raises(ValueError, match=message) as caught:
            package.create_attention(form, **{"dim": DIM, "num_heads": HEADS, "grid": GRID, **arguments})
        assert type(caught.value).__name__ == "UserError" and "\n" not in str(caught.value)

    @pytest.mark.parametrize("form", ["slab", "focused", "pola", "agent", "linformer"])
    def test_tables_are_for_one_grid(self, form):
        layer = paddle_inline.create_attention(form, DIM, HEADS, grid=GRID)
        with pytest.raises(ValueError, match="tied to the grid it was built for, 3 x 5, and got 5 x 3"):
            layer(paddle.zeros([1, 15, DIM]), (5, 3))

    @pytest.mark.parametrize(("form", "dim"), [("mala", 6), ("rala", 6), ("mlla", 18)])
    def test_without_rotary_positions_any_width_will_do(self, package, form, dim):
        layer = package.create_attention(form, dim, 3, grid=GRID, rope=False)
        assert layer.rope is False


class TestBeginning:
    def test_tables_and_exponents_begin_at_0(self, package):
        for form, names in {
            "slab": ["positional_encoding"],
            "focused": ["positional_encoding", "scale"],
            "pola": ["positional_encoding", "scale", "power"],
        }.items():
            state = state_of(package.create_attention(form, DIM, HEADS, grid=GRID))
            assert all(not state[name].any() for name in names)
            assert np.abs(state["dwc.weight"]).max() <= 1 / 5 and state["dwc.bias"].any()

    @pytest.mark.parametrize(("form", "part"), [("mala", "lepe"), ("rala", "lepe"), ("enhanced", "aggreg.0")])
    def test_convolutions_as_a_linear(self, package, form, part):
        state = state_of(package.create_attention(form, DIM, HEADS, grid=GRID))
        assert abs(state[f"{part}.weight"].std() - 0.02) < 2e-3
        assert f"{part}.bias" not in state or not state[f"{part}.bias"].any()

    def test_linformer_uniform(self, package):
        state = state_of(package.create_attention("linformer", DIM, HEADS, grid=(9, 9), num_projected=25))
        for name in ("proj_k.weight", "proj_v.weight"):
            assert state[name].shape == (81, 25)
            assert 0.19 < state[name].max() <= 0.2 and -0.2 <= state[name].min() < -0.19

    def test_agent_s_biases_as_a_linear(self, package):
        layer = package.create_attention("agent", DIM, HEADS, grid=GRID, prefix_tokens=1, num_agents=49)
        state = state_of(layer)
        tables = [name for name in state if name.endswith("_bias")]
        assert len(tables) == 8
        assert all(0.014 < state[name].std() < 0.026 for name in tables)

    def test_gla_xavier(self, package):
        state = state_of(package.create_attention("gla", DIM, HEADS, grid=GRID))
        bound = 2**-2.5 * math.sqrt(6 / (DIM + DIM))
        for name in ("gate.weight", "proj.weight"):
            assert 0.98 * bound < np.abs(state[name]).max() <= bound
        bound = 2**-2.5 * math.sqrt(6 / (9 + 9 * DIM))
        assert 0.9 * bound < np.abs(state["in_proj.weight"]).max() <= bound
        assert not state["gk.1.bias"].any() and not state["gate.bias"].any()
        assert (state["g_norm.weight"] == 1).all() and (state["l_norm.weight"] == 1).all()


def test_a_pair_of_mlla_s_channels_may_belong_to_two_heads(package):
    """d = 3: turned over the whole width, as with one head, and only then split."""
    framework = importlib.import_module("paddle" if package is paddle_inline else "torch")
    layer = package.create_attention("mlla", 12, 4, grid=GRID)
    x = np.random.standard_normal((2, 15, 12)).astype("float32")
    x = framework.to_tensor(x) if package is paddle_inline else framework.tensor(x)
    q, k, _, _ = layer.parts(x, GRID)
    turned = layer.turned(x, GRID, *layer.features(q, k))
    layer.num_heads = 1
    whole = layer.turned(x, GRID, *layer.features(q, k))
    for part, expected in zip(turned, whole):
        merged = part.detach().numpy().transpose(0, 2, 1, 3).reshape(2, 1, 15, 12)
        np.testing.assert_allclose(merged, expected.detach().numpy(), rtol=0, atol=1e-6)


class SideBySide(paddle.nn.Layer):
    """Layers of every form on the same tokens, their outputs beside one another; every number of them counts."""

    GRID = (4, 5)

    def __init__(self, prefix):
        super().__init__()
        random = np.random.RandomState(0)
        self.layers = paddle.nn.LayerList(
            [
                paddle_inline.create_attention(form, DIM, HEADS, grid=self.GRID, prefix_tokens=prefix)
                for form in FORMS
            ]
        )
        for parameter in self.parameters():
            parameter.set_value(0.3 * random.standard_normal(parameter.shape).astype("float32"))

    def forward(self, x):
        return paddle.stack([layer(x, self.GRID) for layer in self.layers], axis=1)


@pytest.mark.parametrize("prefix", [0, 1])
def test_an_exported_program_gives_the_same_for_any_batch(prefix, tmp_path):
    """With oneDNN's fusions, which take apart what they are given."""
    layer = SideBySide(prefix)
    x = np.random.standard_normal((3, prefix + 20, DIM)).astype("float32")
    spec = [paddle.static.InputSpec([None, *x.shape[1:]], "float32")]
    paddle.jit.save(layer, str(tmp_path / "layer"), input_spec=spec)
    program = next(path for path in tmp_path.iterdir() if path.suffix in (".json", ".pdmodel"))
    engine = PaddleEngine(program, tmp_path / "layer.pdiparams", threads=1)
    expected = layer(paddle.to_tensor(x)).numpy()
    for images in (1, 3):
        found = engine(x[:images])
        for i, form in enumerate(FORMS):
            error = np.abs(found[:, i] - expected[:images, i]).max()
            assert error < 1e-5 * np.abs(expected[:, i]).max(), form


@pytest.mark.parametrize("form", FORMS)
def test_recomputing_changes_no_gradient(form):
    def gradients(recompute):
        paddle.seed(0)
        options = {"attn_options": {"num_agents": 4}} if form == "agent" else {}
        sizes = {"embed_dim": 16, "num_heads": 2, "depth": 2, "img_size": 16, "num_classes": 3}
        model = paddle_inline.create_model(
            "inline_deit_digits", attn_type=form, recompute=recompute, drop_rate=0.1, **sizes, **options
        )
        model.train()
        paddle.seed(1)
        images = paddle.to_tensor(np.random.RandomState(0).standard_normal((2, 3, 16, 16)).astype("float32"))
        model(images).sum().backward()
        return {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}

    plain, again = gradients(False), gradients(True)
    assert all(grad.any() for name, grad in plain.items() if ".attn." in name and "qk" in name)
    for name, grad in plain.items():
        np.testing.assert_array_equal(again[name], grad, err_msg=name)
