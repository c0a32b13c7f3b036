"""Forms of attention by name: what attn_type says, and that a new form needs its layer and rows of tables alone."""

import importlib

import numpy as np
import pytest

import paddle_inline
import torch_ref
from convert.parity import compare
from paddle_inline.layers.attention import ATTENTION, Attention, build_attention
from paddle_inline.layers.pvt_attention import PVT_ATTENTION
from paddle_inline.layers.window_attention import BRANCH_ATTENTION
from paddle_inline.models.spec import attention_form, attention_forms, attention_types, forms_of
from paddle_inline.utils.errors import UserError

PYRAMID = {"num_classes": 5, "img_size": 64, "depths": (1, 2, 1, 1)}
SMALL = {
    "inline_deit_digits": {"embed_dim": 24, "num_heads": 2, "depth": 2, "img_size": 16},
    "inline_pvt_tiny": {**PYRAMID, "embed_dims": (8, 8, 12, 16), "num_heads": (1, 2, 3, 4)},
    "inline_swin_tiny": {**PYRAMID, "embed_dim": 8, "num_heads": (1, 2, 2, 4), "window_size": 64},
    "inline_cswin_tiny": {**PYRAMID, "embed_dim": 8, "num_heads": (2, 2, 4, 4)},
}
TABLES = {"attention": "ATTENTION", "pvt_attention": "PVT_ATTENTION", "window_attention": "WINDOW_ATTENTION"}


class TestReading:
    @pytest.mark.parametrize(
        ("attn_type", "mixed", "forms"),
        [
            ("ISIS", True, [["inline"], ["softmax"] * 3, ["inline"] * 2, ["softmax"]]),
            ("IMMS2", True, [["inline"], ["inline", "inline", "softmax"], ["inline"] * 2, ["softmax"]]),
            ("softmax", False, [["softmax"], ["softmax"] * 3, ["softmax"] * 2, ["softmax"]]),
            (
                "toy,inline, softmax,toy",
                True,
                [["toy"], ["inline"] * 3, ["softmax"] * 2, ["toy"]],
            ),
        ],
    )
    def test_every_block_has_a_form(self, attn_type, mixed, forms):
        assert attention_forms(attn_type, (1, 3, 2, 1), [*ATTENTION, "toy"], mixed) == forms

    @pytest.mark.parametrize(
        ("attn_type", "message"),
        [
            ("inlne", "unknown form of attention in attn_type 'inlne': 'inlne'; did you mean 'inline'?"),
            ("inline,softmax", "names 2 forms of attention; give one, or 4 with commas, one per stage"),
            ("I,S,I,S", "unknown form of attention in attn_type 'I,S,I,S': 'I'.* Known: inline, softmax"),
            ("inline,S,inline,S", "unknown form of attention in .*: 'S'"),
            ("IISX", "attn_type 'IISX' must be 4 letters"),
            (1111, "attn_type 1111 must be 4 letters"),
            (
                "SOFTMX",
                "or the name of a form of attention in lower case, e.g. 'softmax'; letters are those of I",
            ),
            (" ", "attn_type ' ' must be 4 letters, one per stage, or the name of a form .*, e.g. 'inline'"),
        ],
    )
    def test_anything_else_is_refused(self, attn_type, message):
        with pytest.raises(UserError, match=message):
            attention_forms(attn_type, (1, 3, 2, 1), ATTENTION)

    def test_a_network_without_stages_has_one_form(self):
        assert attention_form("I", ATTENTION) == attention_form("IIII", ATTENTION) == "inline"
        assert attention_form("softmax", ATTENTION) == attention_form("S", ATTENTION) == "softmax"
        assert attention_form("inline,inline,inline,inline", ATTENTION) == "inline"
        with pytest.raises(UserError, match="must be one form of attention, or four times the same"):
            attention_form("inline,inline,softmax,inline", ATTENTION)
        with pytest.raises(UserError, match="unknown form of attention in attn_type 'sofmax': 'sofmax'"):
            attention_form("sofmax", ATTENTION)
        with pytest.raises(
            UserError, match=r"or four times the same, or the name of a form .* e\.g\. 'flow'"
        ):
            attention_form("FLOW", ATTENTION)

    def test_letters_stay_what_convert_reads_from_tensors(self):
        assert attention_types("IIMS2", (1, 1, 4, 2)) == ["I", "I", "IISS", "SS"]
        assert attention_types("softmax,inline,inline,softmax", (1, 1, 4, 2)) == ["S", "I", "IIII", "SS"]
        assert forms_of(["IS", "S"]) == [["inline", "softmax"], ["softmax"]]


@pytest.mark.parametrize("package", [paddle_inline, torch_ref], ids=lambda package: package.__name__)
@pytest.mark.parametrize("name", SMALL)
def test_a_name_builds_what_its_letter_builds(package, name):
    for letter, form in (("I", "inline"), ("S", "softmax")):
        letters = letter if "deit" in name else letter * 4
        built = [
            package.create_model(name, **{**SMALL[name], "attn_type": attn_type}).state_dict()
            for attn_type in (letters, form)
        ]
        assert list(built[0]) == list(built[1])
        assert [tuple(x.shape) for x in built[0].values()] == [tuple(x.shape) for x in built[1].values()]


def toy_form(package):
    """A form with a parameter and a convolution of its own that looks at the class token and at the grid."""
    layers, ops = (
        importlib.import_module(f"{package}.{name}") for name in ("layers.attention", "ops.tokens")
    )
    basic = importlib.import_module(f"{package}.layers.basic")

    class Toy(layers.Attention):
        def __init__(self, dim, num_heads, **common):
            super().__init__(dim, num_heads, **common)
            self.gain = basic.token_parameter(1, 1, dim)
            self.local = basic.Conv2d(dim, dim, 3, padding=1, groups=dim)

        def attend(self, q, k, v, context, size):
            prefix = self.prefix_tokens
            mean = ops.mean_tokens(k * v, keepdim=True)  # [B, 1, C]
            patches = ops.tokens_to_map(v[:, prefix:], size)
            local = ops.map_to_tokens(self.local(patches))
            out = q * mean * self.gain
            return ops.concat_tokens(out[:, :prefix], out[:, prefix:] + local) if prefix else out + local

    return Toy


@pytest.fixture
def toy(monkeypatch):
    """The form "toy" in every table of both packages."""
    for package in ("paddle_inline", "torch_ref"):
        form = toy_form(package)
        for module, table in TABLES.items():
            layers = importlib.import_module(f"{package}.layers.{module}")
            monkeypatch.setitem(getattr(layers, table), "toy", form)
        monkeypatch.setitem(layers.BRANCH_ATTENTION, "toy", layers.in_branch(form))


@pytest.mark.parametrize(
    ("name", "stages", "blocks"),
    [
        ("inline_deit_digits", "toy", 2),
        *[(name, "toy", 5) for name in SMALL if "deit" not in name],
        *[(name, "toy,softmax,toy,inline", 2) for name in SMALL if "deit" not in name],
    ],
)
def test_a_new_form_is_in_every_backbone_and_the_twins_agree(toy, name, stages, blocks):
    overrides = {**SMALL[name], "attn_type": stages}
    model = paddle_inline.create_model(name, **overrides)
    assert sum(key.endswith(".gain") for key in model.state_dict()) == blocks
    report = compare(name, batch=3, **overrides)
    assert report.passed, report.first_divergence


def test_a_form_that_projects_in_its_own_way_is_not_in_cswin():
    assert set(BRANCH_ATTENTION) == {
        form for form, layer in ATTENTION.items() if layer.forward is Attention.forward
    }
    with pytest.raises(UserError, match=r"unknown form of attention .*: 'toy'"):
        paddle_inline.create_model("inline_cswin_tiny", **{**SMALL["inline_cswin_tiny"], "attn_type": "toy"})


def test_a_layer_takes_its_own_options_alone():
    options = {"kernel_function": "relu", "sr_ratio": 2}
    inline, softmax = (
        build_attention(PVT_ATTENTION, form, 8, 2, options=options) for form in ("inline", "softmax")
    )
    assert inline.feature_map is not None and not hasattr(inline, "sr")
    assert softmax.sr_ratio == 2 and not hasattr(softmax, "feature_map")
    with pytest.raises(TypeError, match="drop_rat"):  # what every layer takes is not an option
        build_attention(PVT_ATTENTION, "softmax", 8, 2, drop_rat=0.5)


def test_prefix_tokens_stand_outside_the_grid():
    """InLine's residual is added to the patches alone."""
    import paddle

    layer = ATTENTION["inline"](8, 2, prefix_tokens=1)
    x = paddle.to_tensor(np.random.RandomState(0).standard_normal((2, 7, 8)).astype("float32"))
    before = layer(x, (2, 3)).numpy()
    for parameter in layer.residual[2].parameters():
        parameter.set_value(parameter * 0)
    moved = np.abs(layer(x, (2, 3)).numpy() - before).sum(-1)
    assert (moved[:, 0] == 0).all() and (moved[:, 1:] > 0).all()
