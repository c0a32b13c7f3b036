"""InLine-Swin: windows, options and refusals on small specs; its numbers are in tests/parity."""

import dataclasses

import numpy as np
import paddle
import pytest
import torch

import paddle_inline
import torch_ref
from convert.parity import compare
from convert.parity.inputs import rule_tensor
from paddle_inline.layers.basic import meta_init
from paddle_inline.layers.window_attention import WINDOW_ATTENTION
from paddle_inline.models import inline_swin
from paddle_inline.models.spec import attention_forms
from paddle_inline.models.swin_windows import check_windows
from paddle_inline.utils.errors import UserError

# grids 16, 8, 4, 2; a window_size of 64 leaves I blocks global and gives S blocks windows of 8
SMALL = {
    "embed_dim": 8,
    "depths": (2, 2, 2, 1),
    "num_heads": (1, 2, 2, 4),
    "img_size": 64,
    "window_size": 64,
    "num_classes": 5,
}
PACKAGES = pytest.mark.parametrize(
    ("package", "tensor"),
    [
        pytest.param(paddle_inline, paddle.to_tensor, id="paddle"),
        pytest.param(torch_ref, torch.tensor, id="torch"),
    ],
)


def build(package, **overrides):
    model = package.create_model("inline_swin_tiny", **{**SMALL, **overrides})
    model.eval()
    return model


def draw(*shape):
    return np.random.RandomState(0).standard_normal(shape).astype("float32")


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"attn_type": "SSSS"},  # shifted and masked
        {"attn_type": "SIIS", "num_heads": (1, 1, 1, 1)},
        {"attn_type": "MMSS1"},
        {"attn_type": "MIMM0"},
        {"attn_type": "IIMI9"},
        {"attn_type": "IIII", "window_size": 4, "batch": 1},  # InLine blocks windowed and shifted
        {"attn_type": "IIII", "window_size": 5, "img_size": 160},  # a shift that is not half of the window
        {"attn_type": "SISI", "img_size": (64, 128)},
        {"attn_type": "IIII", "img_size": (96, 32), "window_size": None},
        {"kernel_function": "relu", "num_classes": 1},
        {"kernel_function": "exp", "qkv_bias": False, "in_chans": 1, "mlp_ratio": 2.5},
    ],
    ids=str,
)
def test_the_twins_agree(overrides):
    report = compare("inline_swin_tiny", **{"batch": 3, **SMALL, **overrides})
    assert report.passed, report.first_divergence


def test_published_sizes():
    for name, spec in inline_swin.VARIANTS.items():
        with meta_init():
            model = paddle_inline.create_model(name)
        millions = sum(parameter.size for parameter in model.parameters()) / 1e6
        assert round(millions, 3) == spec.published.built_params, name


@PACKAGES
class TestWindows:
    def windows(self, package, **overrides):
        """[(window's side, shift, letter)] of every block."""
        return [
            (block.window[0], block.shift, "S" if hasattr(block.attn, "relative_position_index") else "I")
            for stage in build(package, **overrides).layers
            for block in stage.blocks
        ]

    def test_released_inline_blocks_are_global_and_softmax_blocks_shift(self, package, tensor):
        stages = {"window_size": None, "depths": (2, 2, 4, 2), "attn_type": "IIMS2"}
        assert self.windows(package, img_size=224, **stages) == [
            *[(56, 0, "I")] * 2,
            *[(28, 0, "I")] * 2,
            *[(14, 0, "I")] * 2,
            *[(7, 0, "S"), (7, 3, "S")],
            *[(7, 0, "S")] * 2,
        ]
        assert self.windows(package, img_size=384, **stages)[4:] == [
            *[(24, 0, "I")] * 2,
            *[(12, 0, "S"), (12, 6, "S")],
            *[(12, 0, "S")] * 2,
        ]

    def test_inline_blocks_shift_where_the_grid_is_larger_than_the_window(self, package, tensor):
        sides = self.windows(package, attn_type="IIII", window_size=4)
        assert sides == [(4, 0, "I"), (4, 2, "I")] * 2 + [(4, 0, "I")] * 2 + [(2, 0, "I")]
        with pytest.raises(ValueError, match="does not divide"):
            build(package, attn_type="IIII", window_size=5)
        assert self.windows(package, attn_type="IIII", window_size=5, img_size=160)[1] == (5, 2, "I")

    def test_the_smaller_side_of_a_grid_bounds_its_windows(self, package, tensor):
        sides = self.windows(package, attn_type="SIIS", img_size=(64, 128))
        assert sides == [(8, 0, "S"), (8, 4, "S"), *[(8, 0, "I")] * 2, *[(4, 0, "I")] * 2, (2, 0, "S")]

    def test_buffers_are_in_the_state_dict_before_the_parameters(self, package, tensor):
        model = build(package, attn_type="MSIS1", window_size=56, img_size=224)
        state = model.state_dict()
        shapes = {key: list(value.shape) for key, value in state.items() if key.endswith(("mask", "index"))}
        assert shapes == {
            "layers.0.blocks.1.attn_mask": [64, 49, 49],
            "layers.0.blocks.1.attn.relative_position_index": [49, 49],
            "layers.1.blocks.0.attn.relative_position_index": [49, 49],
            "layers.1.blocks.1.attn_mask": [16, 49, 49],
            "layers.1.blocks.1.attn.relative_position_index": [49, 49],
            "layers.3.blocks.0.attn.relative_position_index": [49, 49],
        }
        names = [key for key in state if key.startswith("layers.0.blocks.1.")]
        assert [name[18:] for name in names[:5]] == [
            "attn_mask",
            "norm1.weight",
            "norm1.bias",
            "attn.relative_position_bias_table",
            "attn.relative_position_index",
        ]
        assert names[5].endswith("attn.qkv.weight")
        assert not {name for name, _ in model.named_parameters()} & set(shapes)

    def test_shifted_inline_blocks_keep_a_mask_that_they_ignore(self, package, tensor):
        model = build(package, attn_type="IIII", window_size=4)
        x = tensor(draw(2, 3, 64, 64))
        expected = model(x).detach().numpy()
        state = {key: value.detach().numpy() for key, value in model.state_dict().items()}
        masks = [key for key in state if key.endswith("attn_mask")]
        assert masks == ["layers.0.blocks.1.attn_mask", "layers.1.blocks.1.attn_mask"]
        package.load_weights(model, {**state, **{key: state[key] * 0 + 7 for key in masks}})
        np.testing.assert_array_equal(model(x).detach().numpy(), expected)

    @pytest.mark.parametrize("form", ["inline", "softmax"])
    def test_a_token_moves_its_own_window_alone(self, package, tensor, form):
        """One block on an 8 x 8 grid of 4 x 4 windows. Shifted by 2, the window of token (0, 0) is that of
        the four corners to an InLine block, and to a masked softmax block its own corner alone."""
        block = type(build(package).layers[0].blocks[0])
        for shift in (0, 2):
            layer = block(dim=8, num_heads=2, form=form, grid=(8, 8), window=4, shift=shift)
            layer.eval()
            weights = {key: value.numpy() for key, value in layer.state_dict().items()}
            kept = {key: value for key, value in weights.items() if key.endswith(("mask", "index"))}
            drawn = {key: rule_tensor(key, value.shape).astype("float32") for key, value in weights.items()}
            package.load_weights(layer, {**drawn, **kept})
            before = draw(1, 64, 8)
            after = before.copy()
            after[0, 0] = 0
            moved = (layer(tensor(after)) - layer(tensor(before))).detach().numpy()
            moved = (np.abs(moved).sum(-1) > 1e-6).reshape(8, 8)
            expected = np.zeros((8, 8), bool)
            expected[:4, :4] = shift == 0
            if shift:
                near = [0, 1, 6, 7] if form == "inline" else [0, 1]
                expected[np.ix_(near, near)] = True
            np.testing.assert_array_equal(moved, expected)


@PACKAGES
class TestForward:
    def test_features_head_and_whole_agree(self, package, tensor):
        model, x = build(package), tensor(draw(3, 3, 64, 64))
        features = model.forward_features(x)
        assert list(features.shape) == [3, 4, 64]
        logits = model.forward_head(features)
        assert list(logits.shape) == [3, 5]
        np.testing.assert_array_equal(logits.detach().numpy(), model(x).detach().numpy())

    def test_without_classes_there_is_no_head(self, package, tensor):
        model = build(package, num_classes=0)
        assert list(model(tensor(draw(2, 3, 64, 64))).shape) == [2, 64]
        assert not any(name.startswith("head") for name in model.state_dict())

    def test_intermediates_have_strides_4_8_16_32(self, package, tensor):
        model, x = build(package, img_size=(64, 128)), tensor(draw(2, 3, 64, 128))
        maps = model.forward_intermediates(x)
        assert [list(m.shape) for m in maps] == [
            [2, 8, 16, 32],
            [2, 16, 8, 16],
            [2, 32, 4, 8],
            [2, 64, 2, 4],
        ]
        chosen = model.forward_intermediates(x, indices=[-1, 1])
        np.testing.assert_array_equal(chosen[0].detach().numpy(), maps[3].detach().numpy())
        np.testing.assert_array_equal(chosen[1].detach().numpy(), maps[1].detach().numpy())
        tokens = tensor(maps[3].detach().numpy().reshape(2, 64, 8).transpose(0, 2, 1).copy())
        np.testing.assert_allclose(
            model.norm(tokens).detach().numpy(), model.forward_features(x).detach().numpy(), atol=1e-6
        )
        with pytest.raises(ValueError, match=r"stage 4 does not exist; indices lie in -4 \.\. 3"):
            model.forward_intermediates(x, indices=[4])

    def test_another_size_says_how_to_build_for_it(self, package, tensor):
        with pytest.raises(ValueError, match=r"\(3, 96, 64\).*built for \(3, 64, 64\).*img_size=\(96, 64\)"):
            build(package)(tensor(draw(1, 3, 96, 64)))
        with pytest.raises(ValueError, match=r"in_chans=1, img_size=\(64, 64\)"):
            build(package).forward_intermediates(tensor(draw(1, 1, 64, 64)))

    @pytest.mark.parametrize("attn_type", ["IIMS1", "SSSS"])
    def test_recompute_changes_no_gradient(self, package, tensor, attn_type):
        plain, again = (build(package, attn_type=attn_type, recompute=flag) for flag in (False, True))
        weights = {key: value.detach().numpy() for key, value in plain.state_dict().items()}
        package.load_weights(again, weights)
        gradients = []
        for model in (plain, again):
            model.train()
            (model(tensor(draw(3, 3, 64, 64))) ** 2).sum().backward()
            gradients.append([parameter.grad.numpy() for parameter in model.parameters()])
        for kept, recomputed in zip(*gradients):
            np.testing.assert_array_equal(kept, recomputed)

    def test_rates_rise_over_the_whole_network(self, package, tensor):
        model = build(package, drop_path_rate=0.6, drop_rate=0.3)
        blocks = [block for stage in model.layers for block in stage.blocks]
        np.testing.assert_allclose([block.drop_path.rate for block in blocks], np.arange(7) / 10)
        assert {block.mlp.drop.p for block in blocks} == {block.attn.proj_drop.p for block in blocks} == {0.3}
        assert model.pos_drop.p == 0.3


@PACKAGES
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"img_size": 224, "window_size": 30},
            r"img_size \(224, 224\) gives stage 1 a grid of 56 x 56, which its window of 30 x 30 does not "
            r"divide; try img_size \(96, 96\) or img_size \(64, 64\) or window_size 28 or window_size 14",
        ),
        (
            {"img_size": 96, "window_size": None, "attn_type": "SSSS"},
            r"24 x 24.*7 x 7 .*try img_size \(224, 224\) or img_size \(256, 256\)$",
        ),
        (
            {"img_size": (64, 96), "window_size": None},
            r"16 x 24, which its window of 16 x 16 .*try img_size \(32, 96\) or img_size \(64, 64\)$",
        ),
        ({"img_size": 100}, r"img_size 100 must divide by 32 on both sides; try \(96, 96\)"),
        ({"window_size": 0}, "window_size 0 must be a positive int, or None: the whole grid"),
        ({"attn_type": "IIMS"}, "attn_type 'IIMS' must be 4 letters.*M needs a number"),
        ({"attn_type": "IISS2"}, "attn_type 'IISS2' must be 4 letters.*only M takes one"),
        ({"attn_type": "III"}, "attn_type 'III' must be 4 letters"),
        ({"depths": (2, 2, 2)}, r"depths \(2, 2, 2\) must be four positive ints, one per stage"),
        ({"depths": (2, 2, 1.5, 1)}, r"depths \(2, 2, 1.5, 1\) must be four positive ints"),
        ({"num_heads": (1, 2, 3, 4)}, "width 32 does not divide into 3 heads; try 30"),
        ({"kernel_function": "relo"}, "unknown kernel_function 'relo'; did you mean 'relu'"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate 1.0 must lie in \[0, 1\)"),
        ({"sr_ratios": (1, 1, 1, 1)}, "unknown override of inline_swin_tiny 'sr_ratios'"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused(package, tensor, overrides, message):
    with pytest.raises(ValueError, match=message):
        build(package, **overrides)


@pytest.mark.parametrize(
    ("img_size", "window_size", "attn_type"),
    [((224, 224), 30, "IIIS"), ((96, 96), None, "SSSS"), ((320, 1024), None, "IISS")],
)
def test_the_sizes_that_a_refusal_names_work(img_size, window_size, attn_type):
    forms = attention_forms(attn_type, (2, 2, 2, 2), WINDOW_ATTENTION)
    with pytest.raises(UserError) as refusal:
        check_windows(img_size, window_size, forms)
    ways = str(refusal.value).split("; try ")[1].split(" or ")
    for way in ways:
        name, value = way.split(" ", 1)
        settings = {"img_size": img_size, "window_size": window_size, name: eval(value)}
        check_windows(forms=forms, **settings)


def test_no_decay_names_are_the_family_s():
    model = build(paddle_inline, attn_type="SSSS")
    exempt = [name for name, _ in model.named_parameters() if name.endswith(model.NO_DECAY)]
    assert len(exempt) == 7 and all(name.endswith("attn.relative_position_bias_table") for name in exempt)
    assert {field.name for field in dataclasses.fields(model.spec)} >= {"qkv_bias", "window_size"}
