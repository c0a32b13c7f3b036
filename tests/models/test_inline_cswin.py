"""InLine-CSwin: stripes, options and refusals on small specs; its numbers are in tests/parity."""

import numpy as np
import paddle
import pytest
import torch

import paddle_inline
import torch_ref
from convert.parity import compare
from convert.parity.inputs import rule_tensor
from paddle_inline.layers import window_attention
from paddle_inline.layers.basic import meta_init
from paddle_inline.models import inline_cswin
from paddle_inline.ops import kernels

SMALL = {  # grids 16, 8, 4, 2
    "embed_dim": 8,
    "depths": (1, 2, 2, 1),
    "num_heads": (2, 2, 4, 4),
    "img_size": 64,
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
    model = package.create_model("inline_cswin_tiny", **{**SMALL, **overrides})
    model.eval()
    return model


def draw(*shape):
    return np.random.RandomState(0).standard_normal(shape).astype("float32")


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"attn_type": "SSSS", "batch": 1},
        {"attn_type": "SISI"},
        {"attn_type": "IMMI1", "qkv_bias": False},
        {"attn_type": "MIMM0"},
        {"attn_type": "IIII", "num_heads": (1, 1, 1, 1)},
        {"attn_type": "SSSS", "softmax_split": (4, 8, 1, 9)},  # stage 2: its grid; stage 4: whatever it says
        {"attn_type": "SSIS", "inline_split": (5, 5, 4, 5), "in_chans": 1},
        {"attn_type": "SSSS", "img_size": (64, 96)},
        {"attn_type": "IIII", "img_size": (96, 32)},
        {"kernel_function": "exp", "num_classes": 1},
        {"kernel_function": "leaky_relu", "num_classes": 2, "mlp_ratio": 2.5},
    ],
    ids=str,
)
def test_the_twins_agree(overrides):
    report = compare("inline_cswin_tiny", **{"batch": 3, **SMALL, **overrides})
    assert report.passed, report.first_divergence


def test_published_sizes():
    for name, spec in inline_cswin.VARIANTS.items():
        with meta_init():
            model = paddle_inline.create_model(name)
        millions = sum(parameter.size for parameter in model.parameters()) / 1e6
        assert round(millions, 3) == spec.published.built_params, name


@PACKAGES
class TestBranches:
    def windows(self, package, **overrides):
        """One list per block: its branches' windows, None for InLine branches, which have the whole grid."""
        model = build(package, **overrides)
        blocks = [block for i in "1234" for block in getattr(model, f"stage{i}")]
        return [
            [None if hasattr(attn, "residual") else attn.window for attn in block.attns] for block in blocks
        ]

    def test_default_splits_follow_the_input(self, package, tensor):
        one_each = {"depths": (1, 1, 1, 1), "attn_type": "SSSS"}
        assert self.windows(package, img_size=224, **one_each) == [
            [(56, 1), (1, 56)],
            [(28, 2), (2, 28)],
            [(14, 7), (7, 14)],
            [(7, 7)],
        ]
        assert self.windows(package, img_size=384, **one_each)[2:] == [[(24, 12), (12, 24)], [(12, 12)]]
        wide = self.windows(package, img_size=(192, 288), **one_each)
        assert wide == [[(48, 1), (1, 72)], [(24, 2), (2, 36)], [(12, 3), (3, 18)], [(6, 9)]]

    def test_inline_blocks_have_one_branch(self, package, tensor):
        assert self.windows(package, attn_type="IMSI1") == [
            [None],
            *[[None], [(8, 2), (2, 8)]],
            *[[(4, 2), (2, 4)]] * 2,
            [None],
        ]

    def test_each_branch_has_half_of_the_channels_and_heads(self, package, tensor):
        state = build(package, attn_type="ISSS").state_dict()
        weights = {key: list(value.shape) for key, value in state.items() if "get_v.weight" in key}
        assert weights == {
            "stage1.0.attns.0.get_v.weight": [8, 1, 3, 3],
            **{f"stage2.{j}.attns.{k}.get_v.weight": [8, 1, 3, 3] for j in (0, 1) for k in (0, 1)},
            **{f"stage3.{j}.attns.{k}.get_v.weight": [16, 1, 3, 3] for j in (0, 1) for k in (0, 1)},
            "stage4.0.attns.0.get_v.weight": [64, 1, 3, 3],
        }

    def test_state_dict_order(self, package, tensor):
        names = list(build(package).state_dict())
        stages = ["stage1_conv_embed", "stage1", "merge1", "stage2", "merge2", "stage3", "merge3", "stage4"]
        assert list(dict.fromkeys(name.split(".")[0] for name in names)) == [*stages, "norm", "head"]
        block = [name.split(".")[2] for name in names if name.startswith("stage3.0.")]
        assert list(dict.fromkeys(block)) == ["qkv", "norm1", "proj", "attns", "mlp", "norm2"]
        branch = [name.split(".")[4] for name in names if name.startswith("stage1.0.attns.0")]
        assert list(dict.fromkeys(branch)) == ["get_v", "residual"]

    def test_stripes_are_vertical_in_the_first_branch_and_horizontal_in_the_second(self, package, tensor):
        """Without the MLP, a token moves its column through one half of the channels, its row through the
        other; its own values through both."""
        block = build(package, attn_type="SSSS").stage1[0]
        weights = {key: rule_tensor(key, value.shape) for key, value in block.state_dict().items()}
        weights["proj.weight"] = np.eye(8)
        package.load_weights(block, {key: value.astype("float32") for key, value in weights.items()})
        before = draw(1, 256, 8)
        after = before.copy()
        after[0, 3 * 16 + 5] = 0  # row 3, column 5
        moved = (block.attend(tensor(after)) - block.attend(tensor(before))).detach().numpy()
        moved = np.abs(moved).reshape(16, 16, 2, 4).max(-1) > 1e-6
        column, row = np.zeros((16, 16), bool), np.zeros((16, 16), bool)
        column[:, 5], row[3] = True, True
        np.testing.assert_array_equal(moved[..., 0], column)
        np.testing.assert_array_equal(moved[..., 1], row)

    def test_the_residual_s_context_is_the_input_before_the_norm(self, package, tensor):
        """A constant added to a token vanishes in norm1, so only the predicted filter can see it."""
        block = build(package, attn_type="ISSS").stage1[0]
        weights = {key: rule_tensor(key, value.shape) for key, value in block.state_dict().items()}
        package.load_weights(block, {key: value.astype("float32") for key, value in weights.items()})
        before = draw(1, 256, 8)
        after = before + 1
        normed = [block.norm1(tensor(x)).detach().numpy() for x in (before, after)]
        np.testing.assert_allclose(*normed, atol=1e-5)
        moved = (block.attend(tensor(after)) - block.attend(tensor(before))).detach().numpy()
        assert np.abs(moved).max() > 0.1


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
        model, x = build(package, img_size=(64, 96)), tensor(draw(2, 3, 64, 96))
        maps = model.forward_intermediates(x)
        assert [list(m.shape) for m in maps] == [
            [2, 8, 16, 24],
            [2, 16, 8, 12],
            [2, 32, 4, 6],
            [2, 64, 2, 3],
        ]
        chosen = model.forward_intermediates(x, indices=[-1, 1])
        np.testing.assert_array_equal(chosen[0].detach().numpy(), maps[3].detach().numpy())
        np.testing.assert_array_equal(chosen[1].detach().numpy(), maps[1].detach().numpy())
        tokens = tensor(maps[3].detach().numpy().reshape(2, 64, 6).transpose(0, 2, 1).copy())
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
        model = build(package, drop_path_rate=0.5, drop_rate=0.3)
        blocks = [block for i in "1234" for block in getattr(model, f"stage{i}")]
        np.testing.assert_allclose([block.drop_path.rate for block in blocks], np.arange(6) / 10)
        assert {block.mlp.drop.p for block in blocks} == {block.proj_drop.p for block in blocks} == {0.3}


@PACKAGES
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"inline_split": (8, 8, 4, 2)},
            r"inline_split 8 of stage 1, whose grid is 16 x 16, makes stripes, on which inline attention is "
            r"undefined: it needs the whole grid; leave inline_split out, or .* \(attn_type S\)",
        ),
        ({"inline_split": (16, 8, 4, 2), "img_size": (64, 96)}, "inline_split 16 .* 16 x 24, makes stripes"),
        ({"attn_type": "IIMI1", "inline_split": (16, 8, 2, 2)}, "inline_split 2 of stage 3.* 4 x 4, makes"),
        (
            {"softmax_split": (1, 2, 3, 2)},
            "softmax_split 3 of stage 3, whose grid is 4 x 4, does not divide it; splits that work there: "
            "1, 2, 4",
        ),
        (
            {"attn_type": "ISSS", "img_size": (64, 96), "softmax_split": (1, 3, 2, 2)},
            "softmax_split 3 of stage 2, whose grid is 8 x 12, .*: 1, 2, 4$",
        ),
        (
            {"softmax_split": (1, 2, 4)},
            r"softmax_split \(1, 2, 4\) must be four positive ints, one per stage",
        ),
        ({"inline_split": 16}, "inline_split 16 must be four positive ints"),
        ({"inline_split": (16, 8, 4.0, 2)}, r"inline_split \(16, 8, 4.0, 2\) must be four positive ints"),
        (
            {"num_heads": (1, 1, 1, 1)},
            "num_heads 1 is odd, and stripes in two directions .* use an even number",
        ),
        ({"img_size": 100}, r"img_size 100 must divide by 32 on both sides; try \(96, 96\)"),
        ({"attn_type": "IIMS"}, "attn_type 'IIMS' must be 4 letters.*M needs a number"),
        ({"depths": (1, 2, 1)}, r"depths \(1, 2, 1\) must be four positive ints, one per stage"),
        ({"num_heads": (2, 2, 3, 4)}, "width 32 does not divide into 3 heads; try 30"),
        ({"kernel_function": "relo"}, "unknown kernel_function 'relo'; did you mean 'relu'"),
        ({"drop_rate": -0.1}, r"drop_rate -0.1 must lie in \[0, 1\)"),
        ({"window_size": 7}, "unknown override of inline_cswin_tiny 'window_size'"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused(package, tensor, overrides, message):
    with pytest.raises(ValueError, match=message):
        build(package, **overrides)


@pytest.mark.skipif(kernels.version() is None, reason="needs Numba")
def test_stripes_at_once_are_the_branches_one_by_one(monkeypatch):
    """Outputs and gradients; who watches a branch or its filter is told, and padded windows go one by one."""
    model = paddle_inline.create_model(
        "inline_cswin_tiny", num_classes=3, img_size=64, depths=(1, 1, 2, 1), embed_dim=16
    )
    x, taken = paddle.randn([2, 3, 64, 64]), []
    at_once = window_attention.branch_attention
    monkeypatch.setattr(window_attention, "branch_attention", lambda *a: taken.append(1) or at_once(*a))

    def step():
        taken.clear()
        model.clear_gradients()
        logits = model(x)
        logits.square().sum().backward()
        return [logits.numpy(), *(p.grad.numpy() for p in model.parameters())]

    quick = step()
    assert len(taken) == 3
    for part, watched in ((model.stage3[0].attns[1], 1), (model.stage3[1].attns[0].get_v, 1)):
        seen = []
        hook = part.register_forward_post_hook(lambda *call, seen=seen: seen.append(call))
        slow = step()
        assert len(taken) == 2 and len(seen) == watched
        hook.remove()
        for ours, theirs in zip(quick, slow, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * abs(theirs).max())

    block = model.stage3[0]
    monkeypatch.setattr(block.attns[0], "window", (2, 2))
    taken.clear()
    assert block.attend(paddle.randn([2, 3 * 5, 64]), (3, 5)).shape == [2, 15, 64] and not taken
