"""Weights fitted to another input size or class count, against PyTorch's own bicubic interpolation."""

import numpy as np
import paddle
import pytest

import paddle_inline
from paddle_inline.ops.resize import bilinear_matrix
from paddle_inline.utils.errors import UserError
from paddle_inline.weights.lazy_array import LazyArray
from paddle_inline.weights.resize import (
    adapt_weights,
    as_float64,
    cubic_matrix,
    from_float64,
    load_adapted,
    resize_grid,
)

SMALL = {
    "inline_deit_tiny": {"depth": 1, "embed_dim": 8, "num_heads": 2, "img_size": 64},
    "inline_pvt_tiny": {
        "depths": (1, 1, 1, 1),
        "embed_dims": (8, 8, 8, 8),
        "num_heads": (1, 1, 1, 1),
        "img_size": 64,
    },
    "inline_swin_tiny": {
        "depths": (1, 2, 2, 1),
        "embed_dim": 8,
        "num_heads": (1, 1, 1, 1),
        "attn_type": "ISSS",
        "img_size": 224,
    },
    "inline_cswin_tiny": {"depths": (1, 1, 1, 1), "embed_dim": 8, "num_heads": (1, 1, 2, 2), "img_size": 64},
}
OTHER = {"inline_swin_tiny": 448}


def build(name, **change):
    return paddle_inline.create_model(name, **{**SMALL[name], "num_classes": 5, **change})


def stored(model):
    """The model's weights, each number another, as a file would give them."""
    random = np.random.RandomState(0)
    arrays = {}
    for name, tensor in model.state_dict().items():
        value = tensor.numpy()
        value = (
            value if name.endswith(("index", "mask")) else random.standard_normal(value.shape).astype("f4")
        )
        arrays[name] = LazyArray(value.shape, str(value.dtype), lambda value=value: value)
    return arrays


@pytest.mark.parametrize(
    "source, target", [(7, 14), (14, 7), (7, 12), (12, 7), (56, 96), (4, 5), (1, 3), (5, 5)]
)
def test_bicubic_is_pytorch_s(source, target):
    torch = pytest.importorskip("torch")
    x = torch.randn(1, 3, source, source + 2, dtype=torch.float64)
    size = (target, target + 1)
    theirs = torch.nn.functional.interpolate(x, size=size, mode="bicubic", align_corners=False)
    rows = x[0].permute(1, 2, 0).reshape(-1, 3).numpy()
    ours = resize_grid(rows, (source, source + 2), size)
    assert np.abs(ours - theirs[0].permute(1, 2, 0).reshape(-1, 3).numpy()).max() < 1e-12


def test_each_point_is_a_mean_of_points():
    np.testing.assert_allclose(cubic_matrix(14, 24).sum(1), 1, atol=1e-15)
    np.testing.assert_array_equal(cubic_matrix(6, 6), np.eye(6))


def test_a_class_token_s_position_is_kept():
    source, target = build("inline_deit_tiny"), build("inline_deit_tiny", img_size=(96, 48))
    arrays = stored(source)
    result, notes = adapt_weights(arrays, target, 64)
    old, new = arrays["pos_embed"].read(), result["pos_embed"].read()
    assert new.shape == (1, 1 + 18, 8)
    assert new.dtype == np.float32
    np.testing.assert_array_equal(new[:, :1], old[:, :1])
    np.testing.assert_allclose(new[0, 1:], resize_grid(old[0, 1:], (4, 4), (6, 3)), atol=1e-6)
    assert notes == ["pos_embed resized from 4 x 4 to 6 x 3, bicubic: pos_embed"]


def test_every_stage_s_positions_are_resized_even_where_only_the_proportions_change():
    source, target = (
        build("inline_pvt_tiny", img_size=(64, 128)),
        build("inline_pvt_tiny", img_size=(128, 64)),
    )
    arrays = stored(source)
    result, notes = adapt_weights(arrays, target, (64, 128))
    assert len(notes) == 4
    np.testing.assert_allclose(
        result["pos_embed1"].read()[0],
        resize_grid(arrays["pos_embed1"].read()[0], (16, 32), (32, 16)),
        atol=1e-6,
    )


def test_a_long_difference_is_cut_and_says_so():
    target = build("inline_deit_tiny")
    arrays = {**stored(target), **{f"x{i}": LazyArray((1,), "float32", None) for i in range(41)}}
    with pytest.raises(UserError, match=r"\+ x39 \[1\]\n  \.\.\. and 1 more$"):
        adapt_weights(arrays, target)


def test_bias_tables_are_resized_and_buffers_rebuilt():
    source, target = build("inline_swin_tiny"), build("inline_swin_tiny", img_size=448)
    arrays = stored(source)
    result, notes = adapt_weights(arrays, target, 224)
    name = "layers.1.blocks.0.attn.relative_position_bias_table"
    old, new = arrays[name].read(), result[name].read()
    assert (old.shape, new.shape) == ((13 * 13, 1), (27 * 27, 1))
    np.testing.assert_allclose(new, resize_grid(old, (13, 13), (27, 27)), atol=1e-6)
    for name, tensor in target.state_dict().items():
        if name.endswith(("relative_position_index", "attn_mask")):
            np.testing.assert_array_equal(result[name].read(), tensor.numpy())
    assert any("relative_position_index rebuilt" in note for note in notes)


@pytest.mark.parametrize("name", SMALL)
def test_fitted_weights_load_strictly_and_run(tmp_path, name):
    source, size = build(name), OTHER.get(name, 96)
    target = build(name, img_size=size, num_classes=3)
    path = tmp_path / "m.pdparams"
    paddle.save(source.state_dict(), str(path))
    notes = load_adapted(target, path, source.spec.img_size)
    assert any("head set to zero (5 -> 3 classes), so train it" in note for note in notes)
    target.eval()
    with paddle.no_grad():
        logits = target(paddle.randn([2, 3, size, size])).numpy()
    assert logits.shape == (2, 3)
    assert (logits == 0).all()
    kept = [n for n in source.state_dict() if "mlp" in n]
    for n in kept:
        np.testing.assert_array_equal(target.state_dict()[n].numpy(), source.state_dict()[n].numpy())
    assert kept


def test_nothing_to_fit_changes_nothing():
    model = build("inline_pvt_tiny")
    arrays = stored(model)
    result, notes = adapt_weights(arrays, model, 64)
    assert notes == []
    assert all(result[name] is array for name, array in arrays.items())


def test_a_head_can_be_added_and_left_out():
    with_head, without = build("inline_deit_tiny"), build("inline_deit_tiny", num_classes=0)
    result, notes = adapt_weights(stored(without), with_head)
    assert notes == ["head set to zero (no -> 5 classes), so train it: head.weight, head.bias"]
    assert not result["head.weight"].read().any()
    result, notes = adapt_weights(stored(with_head), without)
    assert notes == ["head left out: head.weight, head.bias"]
    assert set(result) == set(without.state_dict())


@pytest.mark.parametrize("change", [{"depth": 2}, {"embed_dim": 16}, {"attn_type": "S"}])
def test_any_other_difference_is_listed(change):
    with pytest.raises(
        ValueError, match=r"(?s)more than input size, class count and channels.*  [-+] blocks"
    ):
        adapt_weights(stored(build("inline_deit_tiny")), build("inline_deit_tiny", **change))


def test_positions_of_unknown_proportions_are_refused():
    arrays = stored(build("inline_deit_tiny", img_size=(64, 96)))
    with pytest.raises(ValueError, match="24 positions are no grid of an image of equal sides"):
        adapt_weights(arrays, build("inline_deit_tiny"))


def test_bfloat16_is_rounded_to_nearest_ties_to_even():
    torch = pytest.importorskip("torch")
    values = np.random.RandomState(0).standard_normal(1000)
    values[:3] = 1 + 2**-8, 1 + 3 * 2**-8, -0.0  # two ties
    theirs = torch.from_numpy(values).float().bfloat16()
    ours = from_float64(values, "bfloat16")
    np.testing.assert_array_equal(ours, theirs.view(torch.int16).numpy().view("uint16"))
    np.testing.assert_array_equal(as_float64(ours, "bfloat16"), theirs.double().numpy())


class TestTablesOfAttentionForms:
    """Resized as the positions are, with a note each; and by both packages alike."""

    @pytest.mark.parametrize("form", ["slab", "agent"])
    def test_of_deit(self, form):
        options = {"attn_options": {"num_agents": 4}} if form == "agent" else {}
        source = build("inline_deit_tiny", attn_type=form, img_size=(64, 96), **options)
        target = build("inline_deit_tiny", attn_type=form, img_size=(96, 48), **options)
        arrays = stored(source)
        result, notes = adapt_weights(arrays, target, (64, 96))
        assert {name: array.read().shape for name, array in result.items()} == {
            name: tuple(tensor.shape) for name, tensor in target.state_dict().items()
        }
        rows, columns = bilinear_matrix(4, 6), bilinear_matrix(6, 3)
        if form == "slab":
            old, new = (found["blocks.0.attn.positional_encoding"].read()[0] for found in (arrays, result))
            expected = np.einsum("hH,wW,HWc->hwc", rows, columns, old.reshape(4, 6, 8)).reshape(18, 8)
            np.testing.assert_allclose(new, expected, atol=1e-6)
            assert any("positional_encoding resized from 4 x 6 to 6 x 3, bilinear" in note for note in notes)
            return
        for line, contract, matrix in (
            ("ah_bias", "iaHx,hH->iahx", rows),
            ("aw_bias", "iayW,wW->iayw", columns),
            ("ha_bias", "iHya,hH->ihya", rows),
            ("wa_bias", "iyWa,wW->iywa", columns),
        ):
            old, new = (found[f"blocks.0.attn.{line}"].read()[0] for found in (arrays, result))
            np.testing.assert_allclose(new, np.einsum(contract, old, matrix), atol=1e-6)
            assert any(f"{line} resized to this grid, linear" in note for note in notes)

    def test_what_fits_stays_and_is_not_noted(self):
        model = build("inline_deit_tiny", attn_type="agent", attn_options={"num_agents": 4})
        arrays = stored(model)
        result, notes = adapt_weights(arrays, model, 64)
        assert notes == []
        assert result["blocks.0.attn.ah_bias"] is arrays["blocks.0.attn.ah_bias"]

    def test_a_window_is_square_whatever_the_image(self):
        """Swin's tables are for its windows: 7 x 7, and not of the image's proportions."""
        change = {"attn_type": "slab", "depths": (1, 1, 1, 1), "img_size": (224, 448)}
        source = build("inline_swin_tiny", **change, window_size=7)
        target = build("inline_swin_tiny", **change, window_size=14)
        _, notes = adapt_weights(stored(source), target, (224, 448))
        assert any("positional_encoding resized from 7 x 7 to 14 x 14, bilinear" in note for note in notes)

    @pytest.mark.parametrize("form", ["slab", "agent", "linformer"])
    def test_the_packages_agree_on_a_file(self, form, tmp_path):
        torch_ref = pytest.importorskip("torch_ref")
        options = {"attn_options": {"num_agents": 4}} if form == "agent" else {}
        sizes = {**SMALL["inline_pvt_tiny"], "num_classes": 5, "attn_type": form, **options}
        theirs = torch_ref.create_model("inline_pvt_tiny", **sizes)
        import torch

        torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
        sizes["img_size"] = 96
        if form == "linformer":
            with pytest.raises(
                ValueError, match=r"makes 64 tokens of 256, and this model has 576: linformer .* fixed"
            ):
                torch_ref.create_model("inline_pvt_tiny", tmp_path / "theirs.pth", **sizes)
            arrays = stored(build("inline_pvt_tiny", attn_type=form))
            with pytest.raises(
                UserError, match=r"makes 64 tokens of 256, and this model has 576: linformer .* fixed"
            ):
                adapt_weights(arrays, paddle_inline.create_model("inline_pvt_tiny", **sizes))
            return
        with pytest.warns(UserWarning, match="fitted from"):
            larger = torch_ref.create_model("inline_pvt_tiny", tmp_path / "theirs.pth", **sizes)
        arrays = {
            name: LazyArray(tuple(value.shape), "float32", lambda value=value: value.numpy())
            for name, value in theirs.state_dict().items()
        }
        target = paddle_inline.create_model("inline_pvt_tiny", **sizes)
        linear = {
            f"{name}.weight" for name, part in target.named_sublayers() if isinstance(part, paddle.nn.Linear)
        }
        for name in linear:
            value = theirs.state_dict()[name].T.contiguous()
            arrays[name] = LazyArray(tuple(value.shape), "float32", lambda value=value: value.numpy())
        result, _ = adapt_weights(arrays, target)
        for name, value in larger.state_dict().items():
            expected = value.T if name in linear else value
            np.testing.assert_allclose(result[name].read(), expected.numpy(), rtol=0, atol=1e-6, err_msg=name)
