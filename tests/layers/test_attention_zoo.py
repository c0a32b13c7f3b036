"""All forms of attention as layers: a new row of ATTENTION joins every test here."""

import importlib
import importlib.metadata

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

import paddle_inline  # noqa: E402
from paddle_inline.layers.attention import ATTENTION  # noqa: E402
from paddle_inline.layers.window_attention import BRANCH_ATTENTION  # noqa: E402

from .attention_goldens import MANIFEST, errors, in_float64, numpy_of, run_paddle, run_torch, tensor  # noqa: E402

GOLDENS = [name for name, entry in MANIFEST.items() if entry["form"] in ATTENTION]


def worst(found, name, kind):
    return max(error for key, error in errors(found, name).items() if key.startswith(kind))


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens_of_paddle(name):
    found = run_paddle(name)
    assert worst(found, name, "sum/") < 1e-10
    assert worst(found, name, "grad/") < 1e-9


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens_of_torch(name):
    pytest.importorskip("torch")
    found = run_torch(name)
    assert worst(found, name, "sum/") < 1e-10
    assert worst(found, name, "grad/") < 1e-10


FORMS = list(ATTENTION)
PACKAGES = ["paddle_inline", "torch_ref"]
DIM, HEADS, GRID = 48, 3, (3, 4)


@pytest.fixture(params=PACKAGES)
def package(request):
    """Either package, imported."""
    return pytest.importorskip(request.param.partition("_ref")[0]) and importlib.import_module(request.param)


class TestTable:
    def test_the_packages_have_the_same_rows(self):
        torch_ref = pytest.importorskip("torch_ref")
        ours, theirs = paddle_inline.list_attentions(), torch_ref.list_attentions()
        assert list(ours) == list(theirs) == FORMS
        assert [vars(row) for row in ours.values()] == [vars(row) for row in theirs.values()]

    @pytest.mark.parametrize("form", FORMS)
    def test_a_row_says_everything(self, form):
        row = paddle_inline.list_attentions()[form]
        assert row.name == form and "arXiv" in row.source and row.complexity and row.extra_parameters
        assert (row.row_dimension == "") == (not row.rows)
        assert row.linear == ("N^2" not in row.complexity)
        assert row.backbones[:3] == ("DeiT", "PVT", "Swin")
        assert ("CSwin" in row.backbones) == (form in BRANCH_ATTENTION)

    def test_only_forms_made_from_q_k_and_v_are_in_cswin(self):
        outside = {form for form in FORMS if form not in BRANCH_ATTENTION}
        assert outside == {"pola", "mala", "rala", "mlla", "gla", "enhanced"} & set(FORMS)


class TestRows:
    @pytest.mark.parametrize("form", FORMS)
    def test_rows_are_weights_of_every_token_or_refused(self, package, form):
        layer = in_float64(package.create_attention(form, DIM, HEADS, grid=GRID, prefix_tokens=1))
        x = tensor(package, np.random.standard_normal((2, 13, DIM)))
        if not package.list_attentions()[form].rows:
            with pytest.raises(ValueError, match="has no rows"):
                layer.rows(x, GRID)
            return
        rows = numpy_of(layer.rows(x, GRID))
        sets = 2 if form in ("enhanced", "pola") else 1
        assert rows.shape == (2, sets * HEADS, 13, 13) and np.isfinite(rows).all() and rows.any()
        with pytest.raises(ValueError, match="13 tokens on a grid of 4 x 4 behind 1 prefix token,"):
            layer.rows(x, (4, 4))


class TestRefusals:
    @pytest.mark.parametrize(
        ("form", "arguments", "message"),
        [
            ("linear_rleu", {}, "unknown form of attention 'linear_rleu'; did you mean 'linear_relu'"),
            (
                "softmax",
                {"local": True},
                "local is an option of inline, linear_relu, not of softmax, which takes",
            ),
            ("softmax", {"lokal": True}, "unknown option of softmax attention 'lokal'"),
            ("inline", {"local": 1}, "local 1 must be true or false"),
            ("inline", {"dim": 50}, "width 50 does not divide into 3 heads; try 2 heads, or width 48"),
            ("inline", {"num_heads": 0}, "num_heads 0 must be an int from 1 to 1048576"),
            ("inline", {"grid": 7}, r"grid 7 must be \(H, W\), two positive ints"),
            ("inline", {"grid": (7, 0)}, "a side of grid 0 must be an int from 1 to 1048576"),
            ("inline", {"prefix_tokens": -1}, "prefix_tokens -1 must be an int from 0 to 1048576"),
            ("performer", {"num_features": 0}, "num_features 0 must be an int from 1 to 1048576"),
            (
                "performer",
                {"num_features": 1 << 20},
                "1048576 random features of heads of width 16 are more than",
            ),
            ("performer", {"num_landmarks": 7}, "num_landmarks is an option of nystrom, not of performer"),
            (
                "nystrom",
                {"num_landmarks": 13, "grid": (3, 4)},
                "num_landmarks 13 for 12 tokens: .* at most 12",
            ),
            ("nystrom", {"num_landmarks": 2.5}, "num_landmarks 2.5 must be an int from 1 to 1048576"),
            ("nystrom", {"conv_kernel": 4}, "conv_kernel 4 must be odd, or 0: no convolution; try 5"),
            (["flow"], {}, r"unknown form of attention \['flow'\]"),
            (
                "inline",
                {"kernel_function": ["exp"]},
                r"unknown kernel_function \['exp'\]; did you mean 'exp'",
            ),
            ("", {}, "unknown form of attention ''. Known: inline"),
            (
                "linformer",
                {"grid": (1 << 20, 1 << 20)},
                "number of tokens of the grid 1099511627776 must be an int from 1 to 1048576",
            ),
            (
                "linformer",
                {"grid": (1024, 1024), "num_projected": 65},
                "num_projected 65 of 1048576 tokens: the matrix of linformer attention has more than 67108864 "
                "numbers; .* 1024 x 1024",
            ),
            ("flow", {"drop_rate": 1}, r"drop_rate 1 must lie in \[0, 1\)"),
            ("flow", {"drop_rate": "0.1"}, r"drop_rate '0.1' must lie in"),
            ("flow", {"qkv_bias": "no"}, "qkv_bias 'no' must be true or false"),
        ],
    )
    def test_one_line_that_says_why(self, package, form, arguments, message):
        with pytest.raises(ValueError, match=message) as caught:
            package.create_attention(form, **{"dim": DIM, "num_heads": HEADS, **arguments})
        assert type(caught.value).__name__ == "UserError" and "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "overrides", "message"),
        [
            (
                "deit_digits",
                {"attn_options": {"local": False}, "attn_type": "S"},
                "local is an option of inline",
            ),
            ("deit_digits", {"attn_options": {"local": (True,) * 4}}, "local .* must be one value"),
            ("deit_digits", {"attn_options": 3}, "attn_options 3 must be names and values"),
            ("deit_digits", {"attn_options": {"kernel_function": "relu"}}, "an override of its own"),
            ("pvt_tiny", {"attn_options": {"local": [False] * 3}}, "one value, or 4, one per stage"),
            (
                "pvt_tiny",
                {
                    "attn_type": "agent,agent,nystrom,softmax",
                    "attn_options": {"num_agents": [9, 9, 16, None]},
                },
                "num_agents gives 16 to stage 2 of 0 .. 3, whose nystrom attention takes conv_kernel, num_landmarks:",
            ),
            (
                "pvt_tiny",
                {"attn_type": "SSII", "attn_options": {"local": [False] * 4}},
                "local gives False to stage 0 of 0 .. 3, whose softmax attention takes none: None there",
            ),
            (
                "pvt_tiny",
                {"attn_type": "flow,flow,softmax,gla", "kernel_function": "relu"},
                "kernel_function is an option of inline, not of flow, softmax, gla, which takes none",
            ),
            (
                "swin_tiny",
                {"attn_options": {"lcal": False}},
                "unknown option of inline, softmax attention 'lcal'",
            ),
        ],
    )
    def test_options_of_a_model(self, package, name, overrides, message):
        with pytest.raises(ValueError, match=message):
            package.create_model(f"inline_{name}", **overrides)

    @pytest.mark.parametrize("form", ["flow", "slab"])
    @pytest.mark.parametrize(
        ("shape", "size", "message"),
        [
            ((2, 13, DIM), None, r"size None must be the grid \(H, W\) of the tokens, two ints"),
            ((2, 13, DIM), 12, "size 12 must be the grid"),
            ((2, 13, DIM), (3.0, 4), r"size \(3\.0, 4\) must be .* two ints above 0"),
            ((2, 13, DIM), (-3, -4), r"size \(-3, -4\) must be"),
            ((2, 13, DIM), (True, 12), r"size \(True, 12\) must be"),
            ((2, 1, DIM), (0, 0), r"size \(0, 0\) must be"),
            ((2, 13, 8), GRID, r"tokens of shape \[2, 13, 8\] for a layer of \[B, N, 48\]"),
            ((13, DIM), GRID, r"tokens of shape \[13, 48\] for a layer of \[B, N, 48\]"),
            ((2, 12, DIM), GRID, "12 tokens on a grid of 3 x 4 behind 1 prefix token, which makes 13"),
        ],
    )
    def test_tokens_that_do_not_fit(self, package, form, shape, size, message):
        layer = package.create_attention(form, DIM, HEADS, grid=GRID, prefix_tokens=1)
        x = tensor(package, np.zeros(shape, "float32"))
        for call in (layer, layer.rows):
            with pytest.raises(ValueError, match=message) as caught:
                call(x, size)
            assert type(caught.value).__name__ == "UserError"


@pytest.mark.parametrize("form", list(paddle_inline.list_attentions()))
def test_an_empty_batch_gives_an_empty_batch(package, form):
    if package is paddle_inline and importlib.metadata.version("paddlepaddle").startswith("2."):
        pytest.skip("Paddle 2 multiplies no empty matrices")
    layer = package.create_attention(form, DIM, HEADS, grid=GRID, prefix_tokens=1)
    out = layer(tensor(package, np.zeros((0, 13, DIM), "float32")), GRID)
    assert tuple(out.shape) == (0, 13, DIM)


def test_options_reach_the_layers_of_a_model(package):
    sizes = {"embed_dims": (8, 8, 8, 8), "num_heads": (1, 1, 1, 1), "depths": (1, 1, 1, 1), "img_size": 32}
    model = package.create_model(
        "inline_pvt_tiny",
        **sizes,
        attn_type="inline,inline,linear_relu,linear_relu",
        attn_options={"local": [True, False, True, False]},  # as JSON has it
    )
    assert sorted({key[:6] for key in model.state_dict() if "residual" in key}) == ["block1", "block3"]
    assert model.spec.attn_options == {"local": (True, False, True, False)}


class TestControls:
    """InLine without its residual is injective attention alone; ReLU attention with it is local alone."""

    def added(self, package, layer, x):
        """What a layer adds to the values that its rows weigh."""
        tokens = importlib.import_module(f"{package.__name__}.ops.tokens")
        q, k, v = layer.project(x, GRID)
        weighed = layer.rows(x, GRID) @ tokens.split_heads(v, HEADS)
        return numpy_of(layer.attend(q, k, v, layer.context(x), GRID) - tokens.merge_heads(weighed))

    def test_injective_only(self, package):
        layer = in_float64(package.create_attention("inline", DIM, HEADS, prefix_tokens=1, local=False))
        assert not [key for key in layer.state_dict() if "residual" in key]
        x = tensor(package, np.random.standard_normal((2, 13, DIM)))
        np.testing.assert_allclose(self.added(package, layer, x), 0, rtol=0, atol=1e-13)

    def test_local_only(self, package):
        inline, relu = (
            in_float64(package.create_attention(form, DIM, HEADS, prefix_tokens=1, local=True))
            for form in ("inline", "linear_relu")
        )
        (relu.set_state_dict if package is paddle_inline else relu.load_state_dict)(inline.state_dict())
        x = tensor(package, np.random.standard_normal((2, 13, DIM)))
        added = self.added(package, inline, x)
        assert np.abs(added[:, 1:]).min() > 0 and np.abs(added[:, 0]).max() < 1e-13
        np.testing.assert_allclose(self.added(package, relu, x), added, rtol=0, atol=1e-13)


# parameters of DeiT-Tiny with each form, in millions, and those of the forms themselves
DEIT_TINY = {
    **dict.fromkeys(["softmax", "linear_relu", "linear_elu", "efficient", "hydra", "flow", "norm"], 5.717),
    **dict.fromkeys(["performer", "cosformer", "xca", "l2", "relu", "relu2"], 5.717),
    **{"inline": 6.478, "angular": 5.718, "hedgehog": 5.865, "nystrom": 5.720, "linformer": 6.020},
    **{"enhanced": 6.554, "focused": 6.181, "mala": 6.222, "rala": 6.222, "mlla": 6.208, "agent": 6.291},
    **{"slab": 6.179, "pola": 6.628, "gla": 5.808},
}


@pytest.mark.parametrize("form", FORMS)
def test_parameters_of_deit_tiny(form):
    torch = pytest.importorskip("torch")
    import torch_ref

    with torch.device("meta"):
        model = torch_ref.create_model("inline_deit_tiny", attn_type=form)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 3) == DEIT_TINY[form]
    layer = paddle_inline.create_attention(form, 192, 6, grid=(14, 14), prefix_tokens=1)
    ours = {name: tuple(p.shape) for name, p in layer.named_parameters()}
    theirs = {name: tuple(p.shape) for name, p in model.blocks[0].attn.named_parameters()}
    assert set(ours) == set(theirs)
    assert sum(map(np.prod, ours.values())) == sum(map(np.prod, theirs.values()))


@pytest.mark.parametrize(
    ("name", "options", "agents"), [("tiny", {}, 49), ("base", {}, 81), ("base", {"num_agents": 9}, 9)]
)
def test_agents_of_deit(name, options, agents):
    torch = pytest.importorskip("torch")
    import torch_ref

    with torch.device("meta"):
        model = torch_ref.create_model(
            f"inline_deit_{name}", attn_type="agent", attn_options=options, depth=1
        )
    assert model.blocks[0].attn.an_bias.shape[1] == agents


PYRAMID = {"num_classes": 3, "img_size": 32, "depths": (1, 1, 1, 1)}
WIDE = {**PYRAMID, "num_heads": (2, 2, 2, 2)}
BACKBONES = {
    "inline_deit_digits": {"embed_dim": 24, "num_heads": 2, "depth": 1, "img_size": 16, "num_classes": 3},
    "inline_pvt_tiny": {**WIDE, "embed_dims": (8, 8, 16, 16)},
    "inline_swin_tiny": {**WIDE, "embed_dim": 8, "window_size": 4},
    "inline_cswin_tiny": {**WIDE, "embed_dim": 16},
}


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("inline", "softmax")])
def test_every_backbone_takes_every_form(package, form, name):
    overrides = {**BACKBONES[name], "attn_type": form}
    if "cswin" in name and form not in BRANCH_ATTENTION:
        with pytest.raises(
            ValueError, match=f"{form} attention projects in its own way, .* use it in a DeiT"
        ):
            package.create_model(name, **overrides)
        return
    model = package.create_model(name, **overrides)
    side = overrides["img_size"]
    out = numpy_of(model(tensor(package, np.random.standard_normal((1, 3, side, side)).astype("float32"))))
    assert out.shape == (1, 3) and np.isfinite(out).all()


def test_performer_draws_from_the_seed_and_keeps_what_it_drew(package):
    framework = importlib.import_module(package.__name__.replace("_inline", "").replace("_ref", ""))
    seed = getattr(framework, "seed", None) if package is paddle_inline else framework.manual_seed
    drawn = []
    for number in (1, 1, 2):
        seed(number)
        drawn.append(numpy_of(package.create_attention("performer", 32, 2).state_dict()["projection"]))
    assert drawn[0].shape == (44, 16)  # 16 ln 16
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.abs(drawn[0] - drawn[2]).min() > 0
    layer = package.create_attention("performer", 32, 2, num_features=5)
    assert tuple(layer.state_dict()["projection"].shape) == (5, 16)
    assert "projection" not in dict(layer.named_parameters())


@pytest.mark.parametrize(
    ("form", "name", "value"),
    [("hedgehog", "feature_map_q.weight", None), ("l2", "temperature", 0.25), ("xca", "temperature", 1)],
)
def test_parameters_begin_as_published(package, form, name, value):
    found = numpy_of(package.create_attention(form, DIM, HEADS).state_dict()[name])
    expected = np.tile(np.eye(16), (3, 1, 1)) if value is None else np.full((3, 1, 1), value)
    np.testing.assert_array_equal(found, expected)
