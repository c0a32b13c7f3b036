"""Backbones in both packages: the maps of `forward_intermediates`, any size, and what may be chosen."""

import re

import numpy as np
import paddle
import pytest
import torch

import paddle_inline
import torch_ref
from convert.mapping import paddle_to_torch
from convert.parity.inputs import draw_images
from paddle_inline.models import backbone as backbones
from tests.models.backbones import GOLDENS, SIDES, SMALL, STAGES, draw_weights, golden_errors, run

PACKAGES = pytest.mark.parametrize(
    "package", [paddle_inline, torch_ref], ids=lambda package: package.__name__
)
TENSOR = {paddle_inline: paddle.to_tensor, torch_ref: torch.tensor}
TWINS = {}


def build(package, label, **arguments):
    name, overrides = SMALL[label]
    return package.create_backbone(name, **{**overrides, **arguments})


def twins(label):
    """(paddle_inline's, torch_ref's) of a small backbone with equal weights, without output norms."""
    if label not in TWINS:
        pair = [draw_weights(package, build(package, label, out_norm=False)) for package in TENSOR]
        TWINS[label] = tuple(pair)
    return TWINS[label]


@pytest.mark.parametrize("file", GOLDENS)
def test_recorded_numbers(file):
    errors = golden_errors(torch_ref, file)
    assert max(errors.values()) < 1e-10, errors


@pytest.mark.parametrize("label", SMALL)
def test_the_twins_agree_at_sizes_that_nothing_divides(label):
    ours, theirs = twins(label)
    for sides in SIDES:
        images = draw_images((2, 3, *sides))
        (maps, gradient), (others, other) = run(paddle_inline, ours, images), run(torch_ref, theirs, images)
        for i, (mine, reference) in enumerate(zip(maps, others)):
            assert mine.shape[2:] == tuple(-(-side // 32) * 32 // (4 << i) for side in sides)
            np.testing.assert_allclose(mine, reference, rtol=0, atol=1e-12 * np.abs(reference).max())
        np.testing.assert_allclose(gradient, other, rtol=0, atol=1e-10 * np.abs(other).max())


@pytest.mark.parametrize("form", paddle_inline.list_attentions())
def test_every_form_of_attention_at_any_size_or_refused(form):
    """In both packages alike: images of one row of tokens, or a table over the grid and no backbone."""
    images = draw_images((1, 3, 33, 100))
    for label in ("pvt", "swin"):
        wide = {"attn_type": form, "depths": (1, 1, 1, 1)}
        wide["embed_dims" if label == "pvt" else "embed_dim"] = (16, 16, 16, 32) if label == "pvt" else 16
        if form in ("agent", "focused", "linformer", "pola", "slab"):
            for package in TENSOR:
                with pytest.raises(ValueError, match=f"{form} attention keeps a table over the token grid"):
                    build(package, label, **wide)
            continue
        pair = [draw_weights(package, build(package, label, **wide)) for package in TENSOR]
        mine, reference = (
            [x.detach().numpy() for x in model(to(images))] for model, to in zip(pair, TENSOR.values())
        )
        for ours, theirs in zip(mine, reference):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max())


@PACKAGES
@pytest.mark.parametrize("label", ["pvt ISIS", "swin SSSS", "cswin MSMI1", "soft_norm"])
def test_maps_under_autocast_are_those_without_within_bfloat16(package, label):
    paddles = package is paddle_inline
    model = build(package, label)
    images = TENSOR[package](draw_images((3, 3, 33, 70)).astype("float32"))
    model.eval()
    whole = [x.detach().numpy() for x in model(images)]
    context = (
        paddle.amp.auto_cast(dtype="bfloat16") if paddles else torch.autocast("cpu", dtype=torch.bfloat16)
    )
    with context:
        maps = [x.astype("float32") if paddles else x.float() for x in model(images)]
    for found, reference in zip(maps, whole):
        found = found.detach().numpy()
        np.testing.assert_allclose(found, reference, rtol=0, atol=0.06 * np.abs(reference).max())
    sum(x.mean() for x in maps).backward()
    assert all(np.isfinite(p.grad.numpy()).all() for p in model.parameters() if p.grad is not None)


@PACKAGES
@pytest.mark.parametrize("label", SMALL)
def test_at_the_trained_size_the_maps_are_those_of_the_classifier(package, label):
    name, overrides = SMALL[label]
    own = {"per_matrix_alpha": True} if label == "soft_norm" else {}
    classifier = draw_weights(package, package.create_model(name, **overrides, **own, num_classes=0))
    backbone = twins(label)[0 if package is paddle_inline else 1]
    state = {key: value.detach().numpy() for key, value in backbone.state_dict().items()}
    for key, value in classifier.state_dict().items():
        if not re.match(r"norm\.|.*attn_mask", key):
            np.testing.assert_array_equal(state.pop(key), value.detach().numpy())
    assert not state
    side = 384 if "384" in label else 224
    images = TENSOR[package](draw_images((1 if side == 384 else 2, 3, side, side)))
    for mine, reference in zip(backbone(images), classifier.forward_intermediates(images)):
        np.testing.assert_array_equal(mine.detach().numpy(), reference.detach().numpy())


@PACKAGES
def test_softmax_keeps_the_windows_and_stripes_of_its_training(package):
    windows = {
        label: [block.window for stage in build(package, label).layers for block in stage.blocks]
        for label in ("swin SSSS", "swin MIMM1", "swin 384")
    }
    assert windows["swin SSSS"] == [(7, 7)] * 8
    assert windows["swin MIMM1"] == [None, (7, 7), None, None] + [None, (7, 7)] * 2
    assert windows["swin 384"] == [(12, 12)] * 6 + [None] * 2
    for label, widths in (("cswin SSSS", (1, 2, 7)), ("cswin 384", (1, 2, 12)), ("cswin MSMI1", (1, 2, 7))):
        model = build(package, label)
        for stage, width in enumerate(widths):
            (_, block) = getattr(model, f"stage{stage + 1}")
            assert [attn.window for attn in block.attns] == [(None, width), (width, None)]
        assert [attn.window for attn in model.stage4[1].attns] == [(None, None)]


@PACKAGES
def test_chosen_stages(package):
    model = build(package, "cswin", out_indices=(2, -4), crop=True)
    assert (model.out_indices, model.strides, model.out_channels) == ([2, 0], [16, 4], [32, 8])
    names = set(model.state_dict())
    assert {
        name.split(".")[0] for name in names if name.startswith(("norm", "stage4", "merge3", "head"))
    } == {
        "norm0",
        "norm2",
    }
    images = TENSOR[package](draw_images((1, 3, 33, 70)).astype("float32"))
    assert [list(m.shape) for m in model(images)] == [[1, 32, 3, 5], [1, 8, 9, 18]]
    assert [list(m.shape) for m in build(package, "soft", out_indices=(1,))(images)] == [[1, 8, 8, 12]]


@PACKAGES
@pytest.mark.parametrize("label", ["pvt", "swin", "cswin", "soft"])
def test_output_norms_are_the_familys_rule_or_as_asked(package, label):
    own = {name.split(".")[0] for name in build(package, label).state_dict()}
    rule = {"norm0", "norm1", "norm2", "norm3"} if "swin" in label else set()
    assert {name for name in own if name.startswith("norm")} == rule
    plain = twins(label)[0 if package is paddle_inline else 1]
    images = draw_images((1, 3, 40, 64))
    normed = draw_weights(package, build(package, label, out_norm=True))
    for mine, reference, norm in zip(
        normed(TENSOR[package](images)),
        plain(TENSOR[package](images)),
        (normed.norm0, normed.norm1, normed.norm2),
    ):
        x = reference.detach().numpy()
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        weight, bias = (value.detach().numpy()[:, None, None] for value in (norm.weight, norm.bias))
        np.testing.assert_allclose(mine.detach().numpy(), x * weight + bias, rtol=0, atol=1e-12)


# label -> what is frozen at 0, at 1 and at 4 besides
FROZEN = {
    "pvt": ("patch_embed1|pos_embed1", "patch_embed1|pos_embed1|block1"),
    "swin SSSS": ("patch_embed", r"patch_embed|layers\.0"),
    "cswin": ("stage1_conv_embed", "stage1_conv_embed|stage1"),
    "soft": ("patch_embed1|pos_embed1", "patch_embed1|pos_embed1|block1"),
}


@PACKAGES
@pytest.mark.parametrize("label", FROZEN)
def test_frozen_stages_have_no_gradients_and_stay_in_eval_mode(package, label):
    for stages in (-1, 0, 1, 4):
        model = build(package, label, frozen_stages=stages, drop_path_rate=0.3, drop_rate=0.1)
        pattern = [r"(?!)", *FROZEN[label], "", "", r"(?!norm)"][stages + 1]
        for mode in (model.eval, model.train):
            mode()
            layers = model.named_sublayers() if package is paddle_inline else model.named_modules()
            kinds = (paddle.nn.LayerList, torch.nn.ModuleList)
            for name, layer in layers:
                if name and not (isinstance(layer, kinds) and name == "layers") and name != "pos_drop":
                    rests = mode == model.eval or bool(
                        re.match(rf"({pattern})(\.|$)" if stages < 4 else pattern, name)
                    )
                    assert layer.training is not rests, (stages, name)
        batch_statistics = re.compile(r".*\._(mean|variance)$")
        for name, parameter in model.named_parameters():
            if package is paddle_inline and batch_statistics.match(name):
                continue
            frozen = parameter.stop_gradient if package is paddle_inline else not parameter.requires_grad
            assert frozen == bool(re.match(rf"({pattern})(\.|$)" if stages < 4 else pattern, name)), (
                stages,
                name,
            )


@PACKAGES
@pytest.mark.parametrize("label", ["swin SSSS", "cswin SSSS", "pvt ISIS", "soft"])
def test_recompute_changes_no_gradient(package, label):
    images, found = draw_images((2, 3, 40, 70)), []
    for recompute in (False, True):
        model = draw_weights(package, build(package, label, recompute=recompute, out_norm=True))
        model.train()
        _, gradient = run(package, model, images)
        found.append([gradient, *(p.grad.numpy() for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 50
    for kept, recomputed in zip(*found):
        np.testing.assert_array_equal(kept, recomputed)


@PACKAGES
@pytest.mark.parametrize("label", ["swin SSSS", "cswin MSMI1", "pvt ISIS", "soft"])
@pytest.mark.parametrize("frozen", [0, 2])
def test_recompute_behind_frozen_stages_changes_no_gradient(package, label, frozen):
    found, images = [], TENSOR[package](draw_images((1, 3, 40, 70)))
    for recompute in (False, True):
        options = {"recompute": recompute, "frozen_stages": frozen, "out_norm": True}
        model = draw_weights(package, build(package, label, **options))
        model.train()
        sum((x * x).sum() for x in model(images)).backward()
        trained = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append({name: gradient.numpy() for name, gradient in trained.items()})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 20
    for name, gradient in found[0].items():
        np.testing.assert_array_equal(gradient, found[1][name], err_msg=name)


@PACKAGES
def test_soft_is_recomputed_and_its_maps_do_not_depend_on_the_batch(package):
    for label, alpha in (("soft", False), ("soft_norm", True)):
        spec = build(package, label).spec
        assert (spec.recompute, spec.per_matrix_alpha) == (True, alpha)
    spec = build(package, "soft_norm", recompute=False, per_matrix_alpha=False).spec
    assert (spec.recompute, spec.per_matrix_alpha) == (False, False)
    assert not build(package, "pvt").spec.recompute


@PACKAGES
@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "inline_swim_tiny",
            {},
            "backbone 'inline_swim_tiny'; did you mean 'inline_swin_tiny'.*soft_norm_huge",
        ),
        (
            "inline_deit_tiny",
            {},
            "inline_deit_tiny has maps of one stride alone, and a backbone four; give inline_pvt",
        ),
        (
            "inline_swin_tiny",
            {"img_size": 512},
            "img_size 512 for a backbone, which takes images of any size: leave",
        ),
        (
            "inline_swin_tiny",
            {"out_indices": (4,)},
            r"out_indices \(4,\) must be a tuple of one or more of the stages",
        ),
        ("inline_swin_tiny", {"out_indices": ()}, r"out_indices \(\) must be"),
        ("inline_swin_tiny", {"out_indices": 3}, "out_indices 3 must be"),
        ("inline_swin_tiny", {"out_indices": (True,)}, r"out_indices \(True,\) must be"),
        (
            "inline_swin_tiny",
            {"frozen_stages": 5},
            r"frozen_stages 5 must be an int of -1 \(nothing\) \.\. 4",
        ),
        ("inline_swin_tiny", {"frozen_stages": 1.0}, "frozen_stages 1.0 must be an int"),
        ("inline_swin_tiny", {"crop": 1}, "crop 1 must be True or False"),
        ("inline_swin_tiny", {"out_norm": "LN"}, "out_norm 'LN' must be None, True or False"),
        ("inline_swin_tiny", {"window": 7}, "unknown override of inline_swin_tiny 'window'"),
        ("inline_swin_tiny", {"attn_type": "IIMS"}, "attn_type 'IIMS' must be 4 letters"),
        ("inline_pvt_tiny", {"weights": "nowhere.pdparams"}, "no weights file nowhere.pdparams"),
    ],
)
def test_refusals(package, name, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        package.create_backbone(name, **arguments)
    assert "UserError" in {kind.__name__ for kind in type(caught.value).__mro__}


@PACKAGES
def test_images_that_are_refused(package):
    model = build(package, "pvt")
    with pytest.raises(ValueError, match=r"images of \(31, 64\) must be at least 32 pixels on both sides"):
        model(TENSOR[package](draw_images((1, 3, 31, 64)).astype("float32")))
    with pytest.raises(
        ValueError, match=r"images of 1 channel .* built for 3; .*create_backbone\(name, in_chans=1\)"
    ):
        model(TENSOR[package](draw_images((1, 1, 64, 64)).astype("float32")))


@PACKAGES
@pytest.mark.parametrize("label", ["pvt", "swin", "cswin"])
def test_a_form_with_a_table_over_the_grid_is_refused_by_name(package, label, monkeypatch):
    layers = package.layers if package is paddle_inline else __import__("torch_ref.layers.attention").layers
    monkeypatch.setattr(layers.attention.InLineAttention, "grid_bound", True, raising=False)
    with pytest.raises(
        ValueError, match=r"inline attention keeps a table over the token grid.*another attn_type"
    ):
        build(package, label)
    assert build(package, label, attn_type="SSSS")


@PACKAGES
def test_a_table_over_a_window_serves_any_grid(package, monkeypatch):
    """Swin's windows are the same at any size; CSwin's stripes are as long as the grid."""
    layers = package.layers if package is paddle_inline else __import__("torch_ref.layers.attention").layers
    monkeypatch.setattr(layers.attention.SoftmaxAttention, "grid_bound", True, raising=False)
    assert build(package, "swin SSSS")
    with pytest.raises(ValueError, match="softmax attention keeps a table"):
        build(package, "cswin SSSS")


def test_the_twins_have_the_same_tensors_and_arguments():
    for label in SMALL:
        ours, theirs = build(paddle_inline, label), build(torch_ref, label)
        state = paddle_to_torch({key: value.numpy() for key, value in ours.state_dict().items()}, ours)
        assert {key: value.shape for key, value in state.items()} == {
            key: tuple(value.shape) for key, value in theirs.state_dict().items()
        }
    assert {model.__name__ for model in backbones.BACKBONES} == {
        "InLinePVT",
        "InLineSwin",
        "InLineCSwin",
        "Soft",
    }


def test_torch_reads_a_classifiers_weights_strictly(tmp_path):
    name, overrides = SMALL["swin SSSS"]
    classifier = torch_ref.create_model(name, **overrides, num_classes=7).eval()
    torch.save({"model": classifier.state_dict()}, tmp_path / "a.pth")
    with pytest.warns(
        UserWarning, match=r"left out, .*: attn_mask \(made for each image\), norm, head"
    ) as caught:
        backbone = torch_ref.create_backbone(name, tmp_path / "a.pth", **overrides)
    assert str(caught[1].message).endswith("not in the file, and therefore fresh: norm0, norm1, norm2, norm3")
    backbone.out_norm = False
    images = torch.randn(1, 3, 224, 224)
    for mine, reference in zip(backbone.eval()(images), classifier.forward_intermediates(images)):
        assert torch.equal(mine, reference)
    with pytest.raises(
        ValueError, match=r"(?s)names or shapes differ\n.*\n  \+ layers.1.blocks.1.norm1.weight \[16\]"
    ):
        torch_ref.create_backbone(name, tmp_path / "a.pth", **{**overrides, "depths": (2, 1, 2, 2)})
    with pytest.raises(ValueError, match=r"(?s)  - patch_embed1.proj.0.weight"):
        torch_ref.create_backbone("soft_tiny", tmp_path / "a.pth", **{**STAGES, "embed_dims": (8, 8, 12, 16)})
