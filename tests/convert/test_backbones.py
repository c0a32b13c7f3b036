"""Backbones inside detectors' and segmenters' checkpoints: recognised, taken out, verified map by map."""

import json

import numpy as np
import paddle
import pytest
import torch
from safetensors.torch import save_file

import paddle_inline
import torch_ref
from convert.__main__ import main
from convert.backbones import Maps, build_backbone, maps_in
from convert.checkpoint import ConversionOptions, open_checkpoint
from convert.conversion import convert
from convert.errors import CheckFailedError, UnknownModelError
from convert.identify import identify
from convert.mapping import shapes_of, skeleton
from convert.parity.inputs import rule_weights
from convert.summary import beside
from convert.verify import check_forward
from paddle_inline.utils.errors import UserError
from paddle_inline.weights import load_adapted
from paddle_inline.weights.lazy_array import LazyArray, WeightsFileError
from tests.convert.backbones import (
    BESIDE,
    NORMS,
    SMALL,
    paddle_detector,
    same,
    torch_backbone,
    torch_detector,
    under,
)

NO_CHECK = ConversionOptions(verify=False)
ALL = (0, 1, 2, 3)
WHOLE = Maps(ALL, True)
NAMES = [name for name in paddle_inline.list_models() if "deit" not in name and "digits" not in name]


@pytest.fixture(scope="module")
def swin():
    return torch_backbone("inline_swin_tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("backbones")


@pytest.fixture(scope="module")
def files(folder):
    """{name: Paddle's file of a small backbone}, each converted from a detector of PyTorch, and verified."""
    made = {}
    for name in SMALL:
        torch.save({"state_dict": torch_detector(torch_backbone(name)), "meta": {}}, folder / f"{name}.pth")
        options = ConversionOptions(model=name if name.startswith("soft") else None)
        made[name] = convert(folder / f"{name}.pth", folder / f"{name}.pdparams", "paddle", options)
    return made


def save(folder, contents):
    torch.save(contents, folder / "a.pth")
    return folder / "a.pth"


def opened(folder, contents, **options):
    return open_checkpoint(save(folder, contents), ConversionOptions(**options))


def assert_is(found, state, maps=WHOLE, rebuilt=()):
    assert found.identity.name == "inline_swin_tiny"
    assert found.identity.overrides == SMALL["inline_swin_tiny"]
    assert found.identity.maps == maps
    assert found.rebuilt == tuple(rebuilt)
    assert set(found.weights.arrays) == {*state, *rebuilt}
    for name, value in state.items():
        np.testing.assert_array_equal(found.weights.arrays[name].read(), value.numpy())


@pytest.mark.parametrize("name", SMALL)
def test_out_of_a_detector_to_paddle_and_back_bit_for_bit(folder, files, name):
    """Verified both ways; the file builds the backbone, which computes what its twin does."""
    outcome, state = files[name], torch_backbone(name)
    assert outcome.verification["passed"] and max(outcome.verification["maps"]) <= 1e-10
    assert len(outcome.verification["maps"]) == 4
    assert outcome.verification["bits"] == "equal to the source's"
    said = []
    convert(folder / f"{name}.pdparams", folder / f"{name}_back.pth", "torch", log=said.append)
    assert any(line.startswith("verified: forward pass of 133 x 77 pixels in float64") for line in said)
    assert same(torch.load(folder / f"{name}_back.pth", weights_only=True), state)
    facts = json.loads((folder / f"{name}.pdparams.json").read_text())
    assert facts["backbone"] == {"out_indices": [0, 1, 2, 3], "out_norm": "swin" in name}
    assert "transform" not in facts and facts["source"]["prefix_removed"] == "backbone."
    ours = paddle_inline.create_backbone(name, weights=folder / f"{name}.pdparams", **SMALL[name])
    ours.eval()
    theirs = torch_ref.create_backbone(name, weights=folder / f"{name}_back.pth", **SMALL[name]).eval()
    images = np.random.RandomState(0).standard_normal((1, 3, 64, 96)).astype("float32")
    with paddle.no_grad(), torch.no_grad():
        for one, other in zip(ours(paddle.to_tensor(images)), theirs(torch.from_numpy(images))):
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", SMALL)
def test_out_of_a_detector_of_paddle_to_torch_and_back(tmp_path, folder, files, name, suffix):
    arrays = paddle.load(str(folder / f"{name}.pdparams"), return_numpy=True)
    paddle.save(paddle_detector(arrays), str(tmp_path / "d.pdparams"))
    options = ConversionOptions(model=name, verify=False)
    convert(tmp_path / "d.pdparams", tmp_path / f"t{suffix}", "torch", options)
    convert(tmp_path / f"t{suffix}", tmp_path / "b.pdparams", "paddle", NO_CHECK)
    back = paddle.load(str(tmp_path / "b.pdparams"), return_numpy=True)
    assert list(back) == list(arrays)
    for key, value in arrays.items():
        assert back[key].dtype == value.dtype and back[key].tobytes() == value.tobytes()


WRAPPED = {
    "mmdetection": lambda s: {"state_dict": torch_detector(s), "meta": {"epoch": 12}, "optimizer": {}},
    "data parallel": lambda s: {"state_dict": torch_detector(s, "module.backbone.")},
    "a body": lambda s: {"model": torch_detector(s, "backbone.body.")},
    "lightning": lambda s: {"state_dict": torch_detector(s, "model.backbone."), "epoch": 1},
    "flat": torch_detector,
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wherever_it_is(tmp_path, swin, kind):
    found = opened(tmp_path, WRAPPED[kind](swin))
    assert_is(found, swin)
    assert beside(found) == BESIDE
    assert set(found.left_out) == {
        name
        for name in (
            WRAPPED[kind](swin).get("state_dict") or WRAPPED[kind](swin).get("model") or torch_detector(swin)
        )
        if "backbone" not in name
    }


def test_its_average_beside_it(tmp_path, swin):
    average = torch_backbone("inline_swin_tiny", seed=1)
    contents = {
        "state_dict": torch_detector(swin),
        "ema_state_dict": torch_detector(average, "module.backbone."),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []},
    }
    assert_is(opened(tmp_path, contents), swin)
    assert_is(opened(tmp_path, contents, take="ema"), average)
    both = {"state_dict": {**torch_detector(swin), **under("teacher.backbone.", average)}}
    found = opened(tmp_path, both, take="state_dict.teacher.backbone")
    assert_is(found, average)


def test_alone_without_prefix(tmp_path, swin):
    assert_is(opened(tmp_path, swin), swin)
    save_file(swin, tmp_path / "a.safetensors")
    assert_is(open_checkpoint(tmp_path / "a.safetensors", ConversionOptions()), swin)


def test_masks_and_indices_are_made_anew(tmp_path, swin):
    """Absent, of another size, or of the images of training, for which a backbone has no place."""
    index = [name for name in swin if name.endswith("relative_position_index")]
    bare = {name: value for name, value in swin.items() if name not in index}
    assert len(index) == 2
    assert_is(opened(tmp_path, bare), bare, rebuilt=index)
    other = {**bare, **{name: torch.zeros(4, 4, dtype=torch.int64) for name in index}}
    assert_is(opened(tmp_path, other), bare, rebuilt=index)
    masked = {**swin, "layers.1.blocks.1.attn_mask": torch.zeros(4, 49, 49)}
    found = opened(tmp_path, under("backbone.", masked))
    assert_is(found, swin)
    assert list(found.left_out) == ["backbone.layers.1.blocks.1.attn_mask"]


def test_an_index_of_other_values_is_damage(tmp_path, swin, capsys):
    index = next(name for name in swin if name.endswith("relative_position_index"))
    path = save(tmp_path, {**swin, index: swin[index] + 1})
    assert main(["to-paddle", str(path), str(tmp_path / "m.pdparams"), "--no-verify"]) == 5
    assert f"{index} is not what the model's sizes make it" in capsys.readouterr().err


def test_norms_of_some_maps(tmp_path, swin):
    """Of maps 1 to 3; and of maps 0 and 1 of a network that has built all stages, whose last two lead nowhere."""
    some = {name: value for name, value in swin.items() if not name.startswith("norm0.")}
    assert_is(opened(tmp_path, some), some, Maps((1, 2, 3), True))
    none = {name: value for name, value in swin.items() if not name.startswith("norm")}
    found = opened(tmp_path, none)
    assert_is(found, none, Maps(ALL, False))
    assert str(found.identity).startswith("create_backbone('inline_swin_tiny', out_norm=False, ")
    first = {name: value for name, value in swin.items() if not name.startswith(("norm2.", "norm3."))}
    found = opened(tmp_path, {"state_dict": torch_detector(first)}, model="inline_swin_tiny")
    assert found.identity.maps == Maps((0, 1), True)
    assert set(found.identity.model.state_dict()) == set(found.weights.arrays)
    assert found.left_out.keys() >= {
        "backbone.layers.2.blocks.0.norm1.weight",
        "backbone.layers.1.downsample.norm.bias",
    }


@pytest.mark.parametrize("name", [name for name in NAMES if "soft" not in name and "base" not in name])
def test_every_released_backbone_is_recognised_by_its_tensors(name):
    maps = Maps(ALL, True)
    for side in ("torch", "paddle"):
        found = identify(shapes_of(skeleton(name, {}, maps), side), maps=maps)
        assert (found.name, found.overrides, found.side, found.maps) == (name, {}, side, maps)
        assert str(found).startswith(f"create_backbone('{name}'")


@pytest.mark.parametrize("name", ["inline_pvt_small", "inline_cswin_tiny"])
def test_without_its_last_stage_it_is_that_of_the_variant_with_the_same_first_ones(name):
    maps = Maps((0, 2), True)
    found = identify(shapes_of(skeleton(name, {}, maps), "torch"), maps=maps)
    assert (found.name, found.overrides, found.maps) == (name, {}, maps)
    assert "stages behind stage 2 of 0 .. 3 are not in the file" in found.remarks[0]
    assert not any(key.startswith(("block4", "stage4")) for key in found.model.state_dict())


@pytest.mark.parametrize(
    "name, other, indices",
    [
        ("soft_tiny", "soft_norm_tiny", ALL),
        ("soft_small", "soft_norm_small", (0, 1, 2)),
        ("inline_cswin_base", "inline_cswin_base_384", ALL),
        ("inline_swin_base", "inline_swin_base_384", (1,)),
    ],
)
def test_backbones_of_the_same_tensors_are_listed(name, other, indices):
    maps = Maps(indices, True)
    shapes = shapes_of(skeleton(name, {}, maps), "torch")
    with pytest.raises(UnknownModelError, match="several models have exactly these tensors") as refused:
        identify(shapes, maps=maps)
    assert f"create_backbone('{name}'" in str(refused.value)
    assert f"create_backbone('{other}'" in str(refused.value) and "--model NAME" in str(refused.value)
    assert identify(shapes, other, maps=maps).name == other


@pytest.mark.parametrize("classes", [7, 0])
@pytest.mark.parametrize("name", SMALL)
def test_a_classifier_is_a_classifier(tmp_path, name, classes):
    state = torch_ref.create_model(name, **SMALL[name], num_classes=classes).state_dict()
    found = opened(tmp_path, state, model=name)
    assert found.identity.maps is None
    assert (
        found.identity.overrides["num_classes"] == classes if name != "soft_digits" or classes == 0 else True
    )
    assert set(found.weights.arrays) | set(found.counters) == set(state)
    remarks = [line for line in found.identity.remarks if "without its head and a backbone" in line]
    assert len(remarks) == (name == "inline_pvt_tiny" and classes == 0)


def test_a_pvt_without_head_is_a_backbone_where_its_place_says_so(tmp_path):
    state = torch_backbone("inline_pvt_tiny")
    for contents in (under("backbone.", state), {**under("net.", state), "decode_head.w": torch.ones(2)}):
        found = opened(tmp_path, contents)
        assert found.identity.maps == Maps(ALL, False)
        assert found.identity.remarks[0].endswith("create_model with num_classes=0 takes them too")
    with_norms = torch_backbone("inline_pvt_tiny", out_norm=True)
    assert opened(tmp_path, with_norms).identity.maps == Maps(ALL, True)


@pytest.mark.parametrize("more", ["norm4.weight", "layers.0.extra", "dist_token"])
def test_what_is_no_backbone_of_ours_is_refused(tmp_path, swin, more):
    with pytest.raises(UnknownModelError, match=rf"\+ {more}"):
        opened(tmp_path, {**swin, more: torch.ones(64)})


def test_a_part_that_is_missing_is_named(tmp_path, swin):
    lacking = {name: value for name, value in swin.items() if name != "norm2.bias"}
    with pytest.raises(UnknownModelError, match=r"(?s)nearest model is create_backbone.*\n  - norm2\.bias"):
        opened(tmp_path, lacking)
    both = {
        **swin,
        "norm.weight": torch.ones(64),
        "norm.bias": torch.ones(64),
    }  # a classifier's, and a backbone's
    with pytest.raises(UnknownModelError, match=r"(?s)nearest model is create_model.*\n  \+ norm0\.weight"):
        opened(tmp_path, both)


def test_maps_in():
    swin = ["patch_embed.proj.weight", "layers.0.blocks.0.norm1.weight"]
    assert maps_in(swin, "InLineSwin") == Maps((0,), False)
    assert maps_in([*swin, "norm0.bias"], "InLineSwin") == Maps((0,), True)
    for classifier in ("norm.bias", "head.weight"):
        assert maps_in([*swin, classifier, "norm0.bias"], "InLineSwin") is None
    assert maps_in(["blocks.0.attn.qkv.weight"], "InLineDeiT") is None


def test_inspect(tmp_path, swin, capsys):
    path = save(tmp_path, {"state_dict": torch_detector(swin), "optimizer": {"state": {}}})
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "model: create_backbone('inline_swin_tiny', embed_dim=8, depths=(1, 2, 1, 2)" in said
    assert "maps: of stages 0, 1, 2, 3, with the output norms norm0, norm1, norm2, norm3" in said
    assert "beside the model: neck (2 tensors), rpn_head (1 tensor), roi_head (1 tensor)" in said
    assert f"next: python -m convert to-paddle {path} {tmp_path / 'a_backbone.pdparams'}\n" in said
    assert f"next: python -m convert to-torch {path} {tmp_path / 'a_backbone.pth'}\n" in said
    assert f"to-torch BACKBONE {tmp_path / 'a_new.pth'} --into {path}\n" in said
    assert "--training" not in said
    assert main(["inspect", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["backbone"] == {"out_indices": [0, 1, 2, 3], "out_norm": True, "norms": NORMS}
    assert facts["beside"] == BESIDE


def test_inspect_of_ours_says_how_to_use_it(folder, files, capsys):
    path = folder / "inline_pvt_tiny.pdparams"
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert f"use it: paddle_inline.create_backbone('inline_pvt_tiny', weights='{path}')\n" in said
    assert f"next: python -m convert to-torch {path} {folder / 'inline_pvt_tiny.pth'}\n" in said


def test_verification_names_the_sublayer_that_differs():
    name, maps = "inline_swin_tiny", Maps(ALL, True)
    model = skeleton(name, SMALL[name], maps)
    paddle_model = build_backbone(name, SMALL[name], maps)
    own = {
        key: value.numpy()
        for key, value in build_backbone(name, SMALL[name], maps, "torch_ref").state_dict().items()
    }
    torch_arrays = rule_weights(own)
    from convert.mapping import torch_to_paddle

    paddle_arrays = torch_to_paddle(torch_arrays, model)
    assert list(paddle_arrays) == list(paddle_model.state_dict())
    identity = identify({key: value.shape for key, value in own.items()}, name, maps=maps)

    def lazy(arrays):
        return {key: LazyArray(value.shape, str(value.dtype), value.copy) for key, value in arrays.items()}

    assert check_forward(identity, lazy(paddle_arrays), lazy(torch_arrays))["passed"]
    for key, where in (
        ("norm2.bias", "norm2"),
        ("layers.1.blocks.1.mlp.fc1.bias", r"layers\.1\.blocks\.1\.mlp\.fc1"),
    ):
        broken = {**torch_arrays, key: torch_arrays[key] + 1e-3}
        with pytest.raises(CheckFailedError, match=rf"first at {where}, "):
            check_forward(identity, lazy(paddle_arrays), lazy(broken))


def test_verify_takes_a_file_of_a_backbone(folder, files, tmp_path, capsys):
    """Ours; one in a detector of PyTorch, trained at another size, of which some maps are asked for."""
    sizes = {**SMALL["inline_pvt_tiny"], "img_size": 96}
    state = build_backbone("inline_pvt_tiny", sizes, WHOLE, "torch_ref").state_dict()
    detector = save(tmp_path, {"state_dict": torch_detector(state)})
    said, all_maps = tmp_path / "a.json", {f"map {i}" for i in ALL}
    for path, given, name, sides, maps in (
        (folder / "inline_swin_tiny.pdparams", (), "inline_swin_tiny", [133, 77], all_maps),
        (
            detector,
            ("out_indices", "(0,2)", "img_size", "(40,64)"),
            "inline_pvt_tiny",
            [40, 64],
            {"map 0", "map 1"},
        ),
    ):
        options = ["--json", str(said), *(("--model", f"backbone:{name}", "--opts", *given) if given else ())]
        assert main(["verify", "--weights", str(path), "--batch", "1", *options]) == 0
        (found,) = json.loads(said.read_text())["reports"]
        assert (found["model"], found["subject"]["input"]) == (f"backbone:{name}", [1, 3, *sides])
        assert {row["name"] for row in found["rows"] if row["name"].startswith("map ")} == maps
    capsys.readouterr()


def test_a_classifier_is_not_built_from_a_backbone(folder, files, tmp_path, swin):
    path = folder / "inline_swin_tiny.pdparams"
    for package, file in ((paddle_inline, path), (torch_ref, folder / "inline_swin_tiny_back.pth")):
        if package is torch_ref:
            convert(path, file, "torch", NO_CHECK)
        with pytest.raises(ValueError, match=r"is of a backbone of inline_swin_tiny, without norm and head"):
            package.create_model(weights=file)
    lacking = r"it is of a backbone, without norm and head, with the output norms norm0, norm1, norm2, norm3"
    for package, file in ((paddle_inline, path), (torch_ref, folder / "inline_swin_tiny_back.pth")):
        with pytest.raises(ValueError, match=lacking):
            package.create_model("inline_swin_tiny", weights=file, **SMALL["inline_swin_tiny"])
    model = paddle_inline.create_model("inline_swin_tiny", **SMALL["inline_swin_tiny"], num_classes=3)
    with pytest.raises(UserError, match=lacking):
        load_adapted(model, path)  # what --pretrained does, which makes a head of its own


@pytest.mark.parametrize(
    "flags, why",
    [
        (("--img-size", "384"), "--img-size for a backbone"),
        (("--num-classes", "3"), "--num-classes for a backbone"),
        (("--training",), "has a backbone, and the training program trains classifiers"),
    ],
)
def test_what_is_of_classifiers_is_refused(tmp_path, swin, flags, why, capsys):
    path = save(tmp_path, {"state_dict": torch_detector(swin), "optimizer": {"state": {}}})
    out = tmp_path / ("run" if "--training" in flags else "m.pdparams")
    assert main(["to-paddle", str(path), str(out), "--no-verify", *flags]) == 2
    assert why in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    "backbone",
    [
        [],
        {"out_indices": [0, 4], "out_norm": True},
        {"out_indices": [1, 0], "out_norm": True},
        {"out_indices": [0]},
        {"out_indices": [0], "out_norm": 1},
        {"out_indices": [], "out_norm": True},
    ],
)
def test_a_description_of_other_maps_is_refused(backbone):
    from paddle_inline.weights.description import read_description

    with pytest.raises(WeightsFileError, match="its description's backbone is"):
        read_description({"model": "inline_swin_tiny", "overrides": {}, "backbone": backbone or [0]})
