"""SOFT and SOFT-Norm: sizes, options and refusals on small specs; their numbers are in tests/parity."""

import dataclasses
from pathlib import Path

import numpy as np
import paddle
import pytest

import paddle_inline
from paddle_inline.layers.basic import meta_init
from paddle_inline.models import soft
from paddle_inline.models.diagnostics import inverse_residuals

SMALL = {
    "depths": (1, 2, 1, 1),
    "embed_dims": (8, 8, 12, 16),
    "num_heads": (1, 2, 3, 4),
    "num_classes": 5,
    "img_size": 64,
}


def build(name="soft_tiny", **overrides):
    paddle.seed(0)
    model = paddle_inline.create_model(name, **{**SMALL, **overrides})
    model.eval()
    return model


def images(*shape, dtype="float32", seed=0):
    return paddle.to_tensor(np.random.default_rng(seed).standard_normal(shape), dtype=dtype)


@pytest.mark.parametrize("name", ["soft_tiny", "soft_norm_tiny"])
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"batch": 3, "img_size": 32},
        {"num_classes": 1, "batch": 1, "img_size": (64, 96), "landmark_ratios": (4, 1, 2)},
        {"num_heads": (1, 1, 1, 1), "in_chans": 1, "num_classes": 0},
        {"per_matrix_alpha": True},
    ],
    ids=lambda overrides: "-".join(f"{key}={value}" for key, value in overrides.items()) or "default",
)
def test_the_twins_agree(name, overrides):
    from convert.parity import compare

    report = compare(name, **{"batch": 2, **SMALL, **overrides})
    assert report.passed, report.first_divergence


def test_batch_statistics_after_five_steps_are_the_reference_s():
    import torch

    from convert import paddle_to_torch
    from convert.parity.run import create_pair

    ours, theirs = create_pair("soft_norm_tiny", **SMALL)
    ours.train()
    theirs.train()
    for step in range(5):
        x = images(2, 3, 64, 64, dtype="float64", seed=step)
        expected = theirs(torch.tensor(x.numpy())).detach().numpy()
        assert np.abs(ours(x).numpy() - expected).max() < 1e-9 * np.abs(expected).max()
    state = paddle_to_torch({name: value.numpy() for name, value in ours.state_dict().items()}, ours)
    for name, value in theirs.state_dict().items():
        if "running" in name:
            assert np.abs(state[name] - value.numpy()).max() < 1e-9 * value.abs().max().item(), name


def test_state_dict_order_and_renames():
    names = list(dict.fromkeys(name.split(".")[0] for name in build().state_dict()))
    embeds, blocks = ([f"{part}{i}" for i in "1234"] for part in ("patch_embed", "block"))
    assert names == [f"pos_embed{i}" for i in "1234"] + ["cls_token"] + embeds + blocks + ["norm", "head"]
    norm = [name for name in build().state_dict() if name.startswith("patch_embed2.proj.1.")]
    assert [name.split(".")[-1] for name in norm] == ["weight", "bias", "_mean", "_variance"]
    block = [name[len("block1.0.att.") :] for name in build().state_dict() if name.startswith("block1.0.")]
    assert block[:4] == ["mha.W_q.weight", "mha.W_q.bias", "mha.W_v.weight", "mha.W_v.bias"]
    assert block[4:8] == [
        f"mha.attn.{name}"
        for name in ("Qlandmark_op.weight", "Qnorm_act.0.weight", "Qnorm_act.0.bias", "conv.weight")
    ]


@pytest.mark.parametrize("name", ["soft_tiny", "soft_small", "soft_medium", "soft_huge"])
def test_published_sizes(name):
    with meta_init():
        model = paddle_inline.create_model(name)
    trained = sum(parameter.size for parameter in model.parameters() if parameter.trainable)
    assert round(trained / 1e6, 3) == soft.VARIANTS[name].published.built_params


def test_soft_norm_has_the_sizes_of_soft():
    for size in ("tiny", "small", "medium", "large", "huge"):
        plain, normed = (dataclasses.asdict(soft.VARIANTS[f"{n}_{size}"]) for n in ("soft", "soft_norm"))
        differ = {key for key in plain if plain[key] != normed[key]}
        assert differ == {"normed", "published"}
        assert plain["published"]["built_params"] == normed["published"]["built_params"]


def test_positions_are_resized_but_for_the_class_token_s():
    """Constant positions are the same at any size; those of the class token are their own."""
    model = build(depths=(1, 1, 1, 1))
    positions = np.full((1, 50, 16), 3.0)
    positions[:, 0] = 7.0
    model.pos_embed4.set_value(positions.astype("float32"))
    sums, embedded = [], []
    model.pos_drop.register_forward_post_hook(lambda layer, inputs, out: sums.append(inputs[0].numpy()))
    model.patch_embed4.register_forward_post_hook(lambda layer, inputs, out: embedded.append(out.numpy()))
    model(images(1, 3, 64, 96))
    assert sums[3].shape == (1, 7, 16)  # the class token and 2 x 3 patches
    assert np.allclose(sums[3][:, 0] - model.cls_token.numpy()[:, 0], 7, atol=1e-6)
    assert np.allclose(sums[3][:, 1:] - embedded[0], 3, atol=1e-6)


def test_intermediates_have_strides_4_8_16_32():
    model, x = build(), images(2, 3, 64, 96)
    maps = model.forward_intermediates(x)
    assert [tuple(m.shape) for m in maps] == [(2, 8, 16, 24), (2, 8, 8, 12), (2, 12, 4, 6), (2, 16, 2, 3)]
    normed = model.norm(maps[-1].flatten(2).transpose([0, 2, 1])).numpy()
    features = model.forward_features(x)
    assert np.allclose(normed, features.numpy()[:, 1:], atol=1e-6)
    assert np.array_equal(model.forward_head(features).numpy(), model(x).numpy())
    assert np.array_equal(model.forward_intermediates(x, indices=(1,))[0].numpy(), maps[1].numpy())
    with pytest.raises(ValueError, match=r"stage 4 does not exist; indices lie in -4 .. 3"):
        model.forward_intermediates(x, indices=(4,))


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"landmark_ratios": (8, 4, 4)}, r"landmark_ratios \(8, 4, 4\) must be three divisors of 8, 4 and 2"),
        ({"landmark_ratios": (8, 4)}, r"landmark_ratios \(8, 4\) must be"),
        ({"landmark_ratios": (8, 4, 0)}, r"landmark_ratios \(8, 4, 0\) must be"),
        ({"img_size": 100}, r"img_size 100 must divide by 32 on both sides; try \(96, 96\)"),
        ({"num_heads": (1, 3, 3, 4)}, "width 8 does not divide into 3 heads; try 6"),
        ({"attn_type": "IIII"}, "unknown override of soft_tiny 'attn_type'"),
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


def test_per_matrix_alpha_makes_a_sample_independent_of_its_batch():
    x = images(3, 3, 64, 64, dtype="float64")
    x[1:] = 0.0  # samples of equal landmarks, whose row sums are the largest there are
    together, alone = {}, {}
    for per_matrix in (False, True):
        model = build("soft_norm_tiny", per_matrix_alpha=per_matrix)
        model.to(dtype="float64")
        together[per_matrix], alone[per_matrix] = model(x).numpy()[:1], model(x[:1]).numpy()
    assert np.abs(together[False] - alone[False]).max() > 1e-9
    assert np.abs(together[True] - alone[True]).max() < 1e-13


@pytest.mark.parametrize("overrides", [{}, {"normed": True}, {"normed": True, "per_matrix_alpha": True}])
def test_exported_and_eager_agree_at_any_batch(overrides, tmp_path):
    """The search for alpha depends on the data and is traced once: each batch below needs its own."""
    model = build(**overrides)
    spec = paddle.static.InputSpec([None, 3, 64, 64], "float32", "images")
    paddle.jit.save(model, str(tmp_path / "model"), input_spec=[spec])
    exported = paddle.jit.load(str(tmp_path / "model"))
    for batch, scale in ((1, 1.0), (3, 0.01), (2, 30.0)):
        x = images(batch, 3, 64, 64, seed=batch) * scale
        expected = model(x).numpy()
        assert np.abs(exported(x).numpy() - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["soft_tiny", "soft_norm_tiny"])
def test_residuals_name_the_block_that_has_no_inverse(name):
    model, x = build(name), images(2, 3, 64, 64)
    expected = model(x).numpy()
    residuals = inverse_residuals(model, x)
    assert {key: tuple(value.shape) for key, value in residuals.items()} == {
        "block1.0": (2, 1),
        "block2.0": (2, 2),
        "block2.1": (2, 2),
        "block3.0": (2, 3),
    }
    assert np.array_equal(model(x).numpy(), expected)  # nothing is left behind
    model.block2[1].att.mha.W_q.bias.set_value(np.full(8, np.nan, "float32"))
    broken = [key for key, value in inverse_residuals(model, x).items() if np.isnan(value.numpy()).any()]
    assert broken[0] == "block2.1"


def gradients(model, x):
    model.clear_gradients()
    x = paddle.to_tensor(x.numpy(), stop_gradient=False)
    (model(x) ** 2).sum().backward()
    return [x.grad.numpy()] + [p.grad.numpy() for p in model.parameters() if p.trainable]


@pytest.mark.parametrize("name", ["soft_tiny", "soft_norm_tiny"])
def test_recompute_changes_no_gradient(name):
    model = build(name, drop_rate=0.2, drop_path_rate=0.3)
    model.train()
    x = images(2, 3, 64, 64)
    paddle.seed(1)
    plain = gradients(model, x)
    model.spec = dataclasses.replace(model.spec, recompute=True)
    paddle.seed(1)
    for kept, recomputed in zip(plain, gradients(model, x)):
        assert np.array_equal(kept, recomputed)


def test_rates_rise_over_the_whole_network():
    model = build(drop_path_rate=0.4)
    rates = [block.att.drop.p for i in "123" for block in getattr(model, f"block{i}")]
    assert np.allclose([*rates, model.block4[0].drop_path.rate], [0, 0.1, 0.2, 0.3, 0.4])


def test_every_parameter_gets_a_gradient():
    for name in ("soft_tiny", "soft_norm_tiny"):
        model = build(name)
        model(images(2, 3, 64, 64)).square().sum().backward()
        for parameter_name, parameter in model.named_parameters():
            if parameter.trainable:
                assert np.isfinite(parameter.grad.numpy()).all(), parameter_name
                assert parameter.grad.abs().max().item() > 0, parameter_name


def test_three_batches_in_train_mode_are_the_recorded_ones():
    """Logits of the third, and the running statistics: unbiased variances, which Paddle's own are not."""
    from convert import paddle_to_torch
    from convert.parity.inputs import draw_images
    from convert.parity.run import create_paddle

    model = create_paddle("soft_tiny")
    model.train()
    for seed in range(3):
        logits = model(paddle.to_tensor(draw_images((2, 3, 224, 224), seed))).numpy()
    state = paddle_to_torch({name: value.numpy() for name, value in model.state_dict().items()}, model)
    with np.load(Path(__file__).parents[1] / "golden" / "soft" / "extra_soft_tiny_train.npz") as golden:
        found = {f"buffer/{name}": value for name, value in state.items() if "running" in name}
        found["logits"] = logits
        assert set(found) == set(golden)
        for name, value in found.items():
            assert np.abs(value - golden[name]).max() < 1e-9 * np.abs(golden[name]).max(), name


def test_the_reference_in_train_mode_is_the_recorded_one():
    import torch

    from convert.parity.inputs import draw_images
    from convert.parity.run import create_torch

    model = create_torch("soft_tiny").train()
    for seed in range(3):
        logits = model(torch.tensor(draw_images((2, 3, 224, 224), seed))).detach().numpy()
    state = model.state_dict()
    with np.load(Path(__file__).parents[1] / "golden" / "soft" / "extra_soft_tiny_train.npz") as golden:
        assert np.abs(logits - golden["logits"]).max() < 1e-10 * np.abs(golden["logits"]).max()
        for name in golden:
            if name != "logits":
                found = state[name[len("buffer/") :]].numpy()
                assert np.abs(found - golden[name]).max() < 1e-10 * np.abs(golden[name]).max(), name
