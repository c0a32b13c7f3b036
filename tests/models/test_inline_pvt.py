"""InLine-PVT: sizes, options and refusals on small specs; its numbers are in tests/parity."""

import dataclasses

import numpy as np
import paddle
import pytest

import paddle_inline
from paddle_inline.layers.basic import meta_init
from paddle_inline.models import inline_pvt

SMALL = {
    "depths": (1, 2, 1, 1),
    "embed_dims": (8, 8, 12, 16),
    "num_heads": (1, 2, 3, 4),
    "mlp_ratios": (2, 2, 2, 2),
    "num_classes": 5,
    "img_size": 64,
}


def build(**overrides):
    paddle.seed(0)
    model = paddle_inline.create_model("inline_pvt_tiny", **{**SMALL, **overrides})
    model.eval()
    return model


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"attn_type": "SSSS"},
        {"attn_type": "ISIS", "batch": 3},
        {"attn_type": "SIII", "num_classes": 1, "batch": 1},
        {"attn_type": "IISS", "img_size": (32, 96), "in_chans": 1},
        {"kernel_function": "exp", "num_heads": (1, 1, 1, 1)},
        {"kernel_function": "leaky_relu", "num_classes": 0},
    ],
    ids=lambda overrides: "-".join(f"{key}={value}" for key, value in overrides.items()) or "default",
)
def test_the_twins_agree(overrides):
    from convert.parity import compare

    overrides = {"batch": 2, **SMALL, **overrides}
    report = compare("inline_pvt_tiny", **overrides)
    assert report.passed, report.first_divergence


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (32, 128)])
def test_the_twins_agree_at_sizes_they_were_not_built_for(size):
    import torch

    from convert.parity.run import create_pair

    ours, theirs = create_pair("inline_pvt_tiny", **SMALL)
    images = np.random.default_rng(0).standard_normal((3, 3, *size))
    expected = theirs(torch.tensor(images)).detach().numpy()
    assert np.abs(ours(paddle.to_tensor(images)).numpy() - expected).max() < 1e-9 * np.abs(expected).max()


def test_state_dict_order():
    names = list(dict.fromkeys(name.split(".")[0] for name in build().state_dict()))
    stages = [name for i in "1234" for name in (f"patch_embed{i}", f"block{i}")]
    assert names == [f"pos_embed{i}" for i in "1234"] + stages + ["head"]
    softmax = [name for name in build(attn_type="SSSS").state_dict() if name.startswith("block1.0.attn")]
    assert list(dict.fromkeys(name.split(".")[3] for name in softmax)) == ["q", "kv", "proj", "sr", "norm"]


def test_published_sizes():
    for name, spec in inline_pvt.VARIANTS.items():
        with meta_init():
            model = paddle_inline.create_model(name)
        millions = sum(parameter.size for parameter in model.parameters()) / 1e6
        assert round(millions, 3) == spec.published.built_params, name


def test_intermediates_have_strides_4_8_16_32():
    model, x = build(), paddle.randn([2, 3, 64, 96])
    maps = model.forward_intermediates(x)
    assert [tuple(m.shape) for m in maps] == [(2, 8, 16, 24), (2, 8, 8, 12), (2, 12, 4, 6), (2, 16, 2, 3)]
    assert np.array_equal(maps[-1].numpy(), model.forward_features(x).numpy())
    assert np.allclose(model.forward_head(maps[-1]).numpy(), model(x).numpy())
    chosen = model.forward_intermediates(x, indices=(-1, 1))
    assert np.array_equal(chosen[0].numpy(), maps[3].numpy())
    assert np.array_equal(chosen[1].numpy(), maps[1].numpy())
    with pytest.raises(ValueError, match=r"stage 4 does not exist; indices lie in -4 .. 3"):
        model.forward_intermediates(x, indices=(4,))


def test_the_map_is_not_transposed():
    """A change in the top right corner of the image moves the top right corner of stage 1 most."""
    model = build(attn_type="SSSS")
    x = paddle.zeros([1, 3, 64, 96])
    y = x.clone()
    y[:, :, :4, -4:] = 5.0
    moved = (model.forward_intermediates(y, (0,))[0] - model.forward_intermediates(x, (0,))[0]).numpy()
    moved = np.abs(moved[0]).sum(0)
    assert np.unravel_index(moved.argmax(), moved.shape) == (0, 23)


def test_logits_are_the_head_of_the_plain_mean():
    model = build()
    features = np.random.default_rng(0).standard_normal((2, 16, 2, 3)).astype("float32")
    expected = features.mean((2, 3)) @ model.head.weight.numpy() + model.head.bias.numpy()
    assert np.allclose(model.forward_head(paddle.to_tensor(features)).numpy(), expected, atol=1e-6)
    headless = build(num_classes=0)
    assert np.allclose(
        headless.forward_head(paddle.to_tensor(features)).numpy(), features.mean((2, 3)), atol=1e-6
    )


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"la_sr_ratios": (2, 1, 1, 1)}, r"la_sr_ratios \(2, 1, 1, 1\).*unreduced.*use \(1, 1, 1, 1\)"),
        ({"attn_type": "IIMS2"}, r"attn_type 'IIMS2' must be 4 letters.*of I \(InLine\) and S \(softmax\)$"),
        ({"attn_type": "III"}, "attn_type 'III' must be 4 letters"),
        ({"kernel_function": "relo"}, "unknown kernel_function 'relo'; did you mean 'relu'"),
        ({"img_size": 100}, r"img_size 100 must divide by 32 on both sides; try \(96, 96\)"),
        ({"num_heads": (1, 3, 3, 4)}, "width 8 does not divide into 3 heads; try 6"),
        ({"depths": (1, 2, 1)}, r"depths \(1, 2, 1\) must be four positive ints"),
        ({"sr_ratios": (8, 4, 2, 0)}, r"sr_ratios \(8, 4, 2, 0\) must be four positive ints"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate 1.0 must lie in \[0, 1\)"),
        ({"window_size": 7}, "unknown override of inline_pvt_tiny 'window_size'"),
    ],
)
def test_what_cannot_be_built_is_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        build(**overrides)


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"images of \(64, 100\) must divide by 32 .*; try \(64, 96\)"):
        build()(paddle.zeros([1, 3, 64, 100]))
    with pytest.raises(ValueError, match=r"images of 1 channel .* create_model\(name, in_chans=1\)"):
        build()(paddle.zeros([1, 1, 64, 64]))


def gradients(model, images):
    model.clear_gradients()
    images = paddle.to_tensor(images, stop_gradient=False)
    (model(images) ** 2).sum().backward()
    return [images.grad.numpy()] + [parameter.grad.numpy() for parameter in model.parameters()]


@pytest.mark.parametrize("attn_type", ["IIII", "SSSS"])
def test_recompute_changes_no_gradient(attn_type):
    model = build(attn_type=attn_type)
    model.train()
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype("float32")
    plain = gradients(model, images)
    model.spec = dataclasses.replace(model.spec, recompute=True)
    for kept, recomputed in zip(plain, gradients(model, images)):
        assert np.array_equal(kept, recomputed)


def test_recompute_draws_the_same_dropout_twice():
    """The recomputed forward pass must see the masks of the first: else gradients are of another function."""
    model = build(recompute=True, drop_rate=0.3, drop_path_rate=0.3)
    model.train()
    images = np.random.default_rng(0).standard_normal((4, 3, 64, 64)).astype("float32")
    paddle.seed(1)
    recomputed = gradients(model, images)
    model.spec = dataclasses.replace(model.spec, recompute=False)
    paddle.seed(1)
    for kept, other in zip(gradients(model, images), recomputed):
        assert np.array_equal(kept, other)


def test_rates_rise_over_the_whole_network_and_zero_rates_change_nothing():
    model = build(drop_path_rate=0.4)
    rates = [block.drop_path.rate for i in "1234" for block in getattr(model, f"block{i}")]
    assert np.allclose(rates, [0, 0.1, 0.2, 0.3, 0.4])
    model, x = build(), paddle.randn([2, 3, 64, 64])
    expected = model(x).numpy()
    model.train()
    assert np.array_equal(model(x).numpy(), expected)


def drawn(state):
    """{kind: all its numbers, each tensor divided by the scale that the papers' models draw it with}."""
    kinds = {"uniform": [], "normal": [], "zeros": [], "ones": []}
    for name, value in state.items():
        if any(part in name for part in (".proj.", ".sr.", ".residual.")) and "attn.proj" not in name:
            fan_in = np.prod(state[name.replace("bias", "weight")].shape[1:])
            kinds["uniform"].append(value.ravel() * fan_in**0.5)
        elif value.ndim > 1:
            kinds["normal"].append(value.ravel() / 0.02)
        else:
            kinds["zeros" if name.endswith("bias") else "ones"].append(value)
    return {kind: np.concatenate(values) for kind, values in kinds.items()}


def test_initialisation_is_the_reference_s():
    import torch

    import torch_ref
    from convert import paddle_to_torch

    torch.manual_seed(0)
    size = {"attn_type": "ISIS", "embed_dims": (32, 32, 48, 48), "num_heads": (2, 2, 3, 3)}
    ours = build(**size)
    theirs = torch_ref.create_model("inline_pvt_tiny", **{**SMALL, **size}).state_dict()
    state = paddle_to_torch({name: value.numpy() for name, value in ours.state_dict().items()}, ours)
    assert list(state) == list(theirs)
    for found in (drawn(state), drawn({name: value.numpy() for name, value in theirs.items()})):
        assert abs(found["uniform"].mean()) < 0.02
        assert abs(found["uniform"].std() - 3**-0.5) < 0.01
        assert 0.999 < np.abs(found["uniform"]).max() <= 1.0001
        assert abs(found["normal"].mean()) < 0.02
        assert abs(found["normal"].std() - 1) < 0.01
        assert 4 < np.abs(found["normal"]).max() < 6  # not cut at two standard deviations
        assert (found["zeros"] == 0).all() and (found["ones"] == 1).all()
