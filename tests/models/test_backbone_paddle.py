"""Backbones in Paddle alone: recorded numbers, weights of classifiers and of backbones, export."""

import re
import warnings

import numpy as np
import paddle
import pytest

import paddle_inline
from paddle_inline.training.checkpoint import save_weights
from paddle_inline.utils.errors import UserError
from paddle_inline.weights.description import describe
from tests.models.backbones import GOLDENS, SMALL, draw_weights, golden_errors

FAMILIES = ("pvt ISIS", "swin SSSS", "cswin SSSS", "soft")


def small(label, **overrides):
    name, own = SMALL[label]
    return name, {**own, **overrides}


@pytest.mark.parametrize("file", GOLDENS)
def test_recorded_numbers(file):
    errors = golden_errors(paddle_inline, file)
    assert all(error < (1e-9 if key == "grad_input" else 1e-10) for key, error in errors.items()), errors


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    """{family: (file of a classifier's weights, classifier)}."""
    folder, made = tmp_path_factory.mktemp("classifiers"), {}
    for label in FAMILIES:
        name, overrides = small(label)
        model = paddle_inline.create_model(name, **overrides, num_classes=7)
        model.eval()
        file = folder / f"{label.split()[0]}.pdparams"
        paddle.save(model.state_dict(), str(file))
        made[label] = file, model
    return made


def said(call):
    """(what a call returns, the warnings that it gives)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    return result, [str(warning.message) for warning in caught if "ccache" not in str(warning.message)]


@pytest.mark.parametrize("label", FAMILIES)
def test_a_classifiers_weights(label, classifiers):
    file, classifier = classifiers[label]
    name, overrides = small(label)
    backbone, lines = said(lambda: paddle_inline.create_backbone(name, file, **overrides))
    own = classifier.state_dict()
    for key, value in backbone.state_dict().items():
        if not key.startswith("norm"):
            np.testing.assert_array_equal(value.numpy(), own[key].numpy())
    head = "head" if label.startswith("pvt") else "norm, head"
    masks = "layers.0.blocks.1"  # of the shifted windows
    expected = f"{file}: left out, for a backbone has no place for them: "
    expected += "attn_mask (made for each image), norm, head" if label == "swin SSSS" else head
    assert lines[0] == expected
    fresh = [f"{file}: not in the file, and therefore fresh: norm0, norm1, norm2, norm3"]
    assert lines[1:] == (fresh if "swin" in label else [])
    assert (f"{masks}.attn_mask" in own) == (label == "swin SSSS")
    images = paddle.randn([2, 3, 224, 224])
    backbone.out_norm = False
    backbone.eval()
    for ours, theirs in zip(backbone(images), classifier.forward_intermediates(images)):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_a_backbones_weights(classifiers, tmp_path):
    name, overrides = small("swin SSSS")
    first = paddle_inline.create_backbone(name, **overrides)
    file = tmp_path / "backbone.pdparams"
    paddle.save(first.state_dict(), str(file))
    second, lines = said(lambda: paddle_inline.create_backbone(name, file, **overrides))
    assert lines == []
    for key, value in second.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), first.state_dict()[key].numpy())
    third, lines = said(
        lambda: paddle_inline.create_backbone(name, file, out_indices=(0, 1), out_norm=False, **overrides)
    )
    assert lines == [
        f"{file}: left out, for a backbone has no place for them: layers.1.downsample.reduction, "
        "layers.1.downsample.norm, layers.2, layers.3, norm0, norm1, norm2, norm3"
    ]
    assert not [key for key in third.state_dict() if re.match(r"norm|layers\.[23]|layers\.1\.down", key)]


def test_weights_of_another_model_are_refused_with_the_difference(classifiers, tmp_path):
    name, overrides = small("swin SSSS")
    file, classifier = classifiers["swin SSSS"]
    with pytest.raises(UserError, match=r"(?s)- layers.1.blocks.2.norm1.weight \[16\]"):
        paddle_inline.create_backbone(name, file, **{**overrides, "depths": (2, 3, 2, 2)})
    with pytest.raises(
        UserError, match=r"(?s)names or shapes differ.*\n  \+ layers.1.blocks.1.norm1.weight \[16\]"
    ):
        paddle_inline.create_backbone(name, file, **{**overrides, "depths": (2, 1, 2, 2)})
    with pytest.raises(UserError, match=r"(?s)none of its names are the model's.*\n  - pos_embed1"):
        paddle_inline.create_backbone(small("pvt")[0], classifiers["swin SSSS"][0], **small("pvt")[1])
    changed = {**classifier.state_dict(), "extra.weight": paddle.zeros([2])}
    del changed["layers.3.blocks.0.attn.qkv.bias"]
    paddle.save(changed, str(tmp_path / "changed.pdparams"))
    with pytest.raises(
        UserError, match=r"(?s)\n  - layers.3.blocks.0.attn.qkv.bias \[192\]\n  \+ extra.weight \[2\]$"
    ):
        paddle_inline.create_backbone(name, tmp_path / "changed.pdparams", **overrides)
    half = {**paddle_inline.create_backbone(name, **overrides).state_dict()}
    del half["norm2.bias"]
    paddle.save(half, str(tmp_path / "half.pdparams"))
    with pytest.raises(UserError, match=r"(?s)\n  - norm2.bias \[32\]$"):
        paddle_inline.create_backbone(name, tmp_path / "half.pdparams", **overrides)


@pytest.mark.parametrize(("label", "own"), [("swin SSSS", {"window_size": 64}), ("pvt", {})])
def test_what_the_file_says_of_its_model_holds(label, own, tmp_path):
    """Trained at 64 pixels with another feature map: neither positions nor windows are those of 224."""
    name, sizes = small(label)
    kernel = "identity" if "SSSS" in label else "relu"  # softmax has none
    overrides = {**sizes, **own, "img_size": 64, "num_classes": 5, "kernel_function": kernel}
    model = paddle_inline.create_model(name, **overrides)
    file = tmp_path / "trained.pdparams"
    save_weights(file, model.state_dict(), describe(name, overrides))
    backbone, _ = said(lambda: paddle_inline.create_backbone(name, file, out_norm=False, **sizes))
    assert (backbone.spec.kernel_function, backbone.spec.img_size) == (kernel, 64)
    model.eval()
    backbone.eval()
    images = paddle.randn([2, 3, 64, 64])
    for ours, theirs in zip(backbone(images), model.forward_intermediates(images)):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("label", FAMILIES)
def test_a_program_for_one_size_serves_any_batch(label, tmp_path):
    """In float64, of which a program keeps its scalars in float32."""
    name, overrides = small(label, depths=(2 if "swin" in label else 1, 1, 1, 1))
    model = draw_weights(paddle_inline, paddle_inline.create_backbone(name, crop=True, **overrides))
    batches = [paddle.randn([batch, 3, 33, 70]).astype("float64") for batch in (1, 3)]
    expected = [[m.numpy() for m in model(images)] for images in batches]
    shape = paddle.static.InputSpec([-1, 3, 33, 70], "float64")
    paddle.jit.save(paddle.jit.to_static(model, input_spec=[shape], full_graph=True), str(tmp_path / "model"))
    program = paddle.jit.load(str(tmp_path / "model"))
    program.eval()
    for images, maps in zip(batches, expected):
        found = program(images)
        assert len(found) == 4
        for ours, theirs in zip(found, maps):
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-6 * abs(theirs).max())


def test_a_program_of_no_size_is_refused(tmp_path):
    name, overrides = small("swin SSSS")
    model = paddle_inline.create_backbone(name, **overrides)
    model.eval()
    shape = paddle.static.InputSpec([-1, 3, -1, -1], "float32")
    with pytest.raises(ValueError, match="give the height and the width"):
        paddle.jit.save(paddle.jit.to_static(model, input_spec=[shape], full_graph=True), str(tmp_path / "m"))


def test_frozen_layers_rest_inside_another_model():
    """`train` of a model around it reaches Paddle's layers past the backbone's own."""
    name, overrides = small("soft", drop_path_rate=0.2)
    model = paddle_inline.create_backbone(name, frozen_stages=1, recompute=False, **overrides)
    outer = paddle.nn.Sequential(model)
    outer.train()
    before = {key: value.numpy() for key, value in model.state_dict().items()}
    model(paddle.randn([2, 3, 64, 64]))
    moved = {key for key, value in model.state_dict().items() if (value.numpy() != before[key]).any()}
    assert moved == {key for key in before if re.match(r"patch_embed[234].*_(mean|variance)", key)}
