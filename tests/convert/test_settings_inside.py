"""The settings inside the checkpoints of the authors: followed in what no tensor shows, or refused, or said."""

import json

import pytest
import torch

import torch_ref
from convert.__main__ import main
from convert.checkpoint import training_hints
from convert.errors import UnknownModelError
from convert.identify import identify
from convert.mapping import shapes_of, skeleton
from paddle_inline.weights.load import open_weights

SIZES = {
    "inline_deit_tiny": {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 32},
    "inline_pvt_tiny": {"depths": (1, 1, 1, 1), "embed_dims": (16, 16, 32, 32), "num_heads": (1, 2, 2, 4)},
    "inline_swin_tiny": {"depths": (1, 2, 2, 1), "embed_dim": 16, "num_heads": (1, 2, 4, 8)},
    "inline_cswin_tiny": {"depths": (1, 1, 2, 1), "embed_dim": 16, "num_heads": (2, 4, 8, 16)},
}
# A file of theirs has the sections of all families, those of the others at their defaults.
OTHERS = {
    "SWIN": {
        "EMBED_DIM": 96,
        "DEPTHS": [2, 2, 6, 2],
        "NUM_HEADS": [3, 6, 12, 24],
        "WINDOW_SIZE": 7,
        "APE": False,
    },
    "CSWIN": {"EMBED_DIM": 64, "QK_SCALE": 0.7},
    "PVT": {"LA_SR_RATIOS": "1111"},
}


def found(name, settings, leave_out=(), say_type=True, **overrides):
    """The Identity of a small model whose file has these sections of MODEL."""
    overrides = {**SIZES[name], **overrides}
    shapes = shapes_of(skeleton(name, overrides), "torch")
    shapes = {key: shape for key, shape in shapes.items() if key.rsplit(".", 1)[-1] not in leave_out}
    model = {"TYPE": name if say_type else "", **settings}
    size = overrides.get("img_size", 224)
    config = {"MODEL": model, "DATA": {"IMG_SIZE": size}}
    return identify(shapes, hints=training_hints({"config": config}))


def built(identity, name, **overrides):
    """Whether an identity builds the same model as `name` with its small sizes and these overrides."""
    wanted = skeleton(name, {**SIZES[name], **overrides}).spec
    own = identity.model.spec
    keys = set(vars(own)) - {"published"}
    return {key: getattr(own, key) for key in keys} == {key: getattr(wanted, key) for key in keys}


@pytest.mark.parametrize("name", SIZES)
def test_sections_of_other_families_are_defaults_that_nobody_used(name):
    own = name.split("_")[1].upper()
    settings = {section: keys for section, keys in OTHERS.items() if section != own}
    identity = found(name, settings)
    assert built(identity, name) and not identity.remarks


@pytest.mark.parametrize("heads", [(2, 2, 4, 4), (2, 4, 4, 8)])
@pytest.mark.parametrize("name", ["inline_pvt_tiny", "inline_cswin_tiny"])
def test_heads_that_softmax_hides_are_those_of_the_settings(name, heads):
    section = name.split("_")[1].upper()
    identity = found(name, {section: {"NUM_HEADS": list(heads)}}, attn_type="SSSS", num_heads=heads)
    assert built(identity, name, attn_type="SSSS", num_heads=heads)
    assert "num_heads" not in identity.assumed and identity.how.endswith("the training settings in the file")
    mixed = found(name, {section: {"NUM_HEADS": list(heads)}}, attn_type="IISS", num_heads=heads)
    assert built(mixed, name, attn_type="IISS", num_heads=heads) and not mixed.remarks


def test_heads_of_deit():
    identity = found("inline_deit_tiny", {"DEIT": {"NUM_HEADS": 4}}, attn_type="S", num_heads=4)
    assert built(identity, "inline_deit_tiny", attn_type="S", num_heads=4)


@pytest.mark.parametrize(
    ("name", "overrides", "settings"),
    [
        ("inline_swin_tiny", {"window_size": 7, "attn_type": "IIII"}, {"SWIN": {"WINDOW_SIZE": 7}}),
        ("inline_swin_tiny", {"window_size": 56, "attn_type": "IIII"}, {"SWIN": {"WINDOW_SIZE": 56}}),
        ("inline_swin_tiny", {"window_size": 28, "attn_type": "IIIS"}, {"SWIN": {"WINDOW_SIZE": 28}}),
        ("inline_swin_tiny", {"qkv_bias": False}, {"SWIN": {"QKV_BIAS": False, "WINDOW_SIZE": 56}}),
        (
            "inline_swin_tiny",
            {"mlp_ratio": 2.0},
            {"SWIN": {"MLP_RATIO": 2.0, "EMBED_DIM": 16, "WINDOW_SIZE": 56}},
        ),
        (
            "inline_swin_tiny",
            {"in_chans": 1},
            {"SWIN": {"IN_CHANS": 1, "DEPTHS": [1, 2, 2, 1], "WINDOW_SIZE": 56}},
        ),
        ("inline_cswin_tiny", {"qkv_bias": False}, {"CSWIN": {"QKV_BIAS": False, "QK_SCALE": None}}),
        ("inline_pvt_tiny", {}, {"PVT": {"LA_SR_RATIOS": "1111", "QKV_BIAS": True, "SR_RATIOS": "8421"}}),
        ("inline_pvt_tiny", {"kernel_function": "exp"}, {"INLINE": {"KERNEL_FUNCTION": "exp"}}),
        ("inline_deit_tiny", {"patch_size": 8}, {"DEIT": {"PATCH_SIZE": 8, "NUM_HEADS": 2}}),
    ],
)
@pytest.mark.parametrize("masks", [True, False], ids=["masks", "no masks"])
def test_settings_that_can_be_built_are(name, overrides, settings, masks):
    left_out = () if masks else ("attn_mask", "relative_position_index")
    identity = found(name, settings, left_out, **overrides)
    if overrides.get("window_size") == 56:  # the whole grid, which is the model's own
        overrides = {**overrides, "window_size": None}
    assert built(identity, name, **overrides)
    assert not identity.remarks


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("inline_swin_tiny", {"SWIN": {"QK_SCALE": 0.3}}, "MODEL.SWIN.QK_SCALE is 0.3; inline_swin_tiny"),
        ("inline_cswin_tiny", {"CSWIN": {"QK_SCALE": 1.0}}, "MODEL.CSWIN.QK_SCALE is 1.0"),
        ("inline_deit_tiny", {"DEIT": {"QK_SCALE": 2}}, "MODEL.DEIT.QK_SCALE is 2"),
        ("inline_swin_tiny", {"SWIN": {"APE": True}}, "MODEL.SWIN.APE is True, and inline_swin_tiny"),
        ("inline_swin_tiny", {"SWIN": {"PATCH_NORM": False}}, "MODEL.SWIN.PATCH_NORM is False"),
        ("inline_pvt_tiny", {"PVT": {"QKV_BIAS": False}}, "MODEL.PVT.QKV_BIAS is False"),
        ("inline_pvt_tiny", {"PVT": {"LA_SR_RATIOS": "2111"}}, "la_sr_ratios"),
        ("inline_pvt_tiny", {"INLINE": {"KERNEL_FUNCTION": "tanh"}}, "tanh"),
        ("inline_swin_tiny", {"SWIN": {"NUM_HEADS": "many"}}, "MODEL.SWIN.NUM_HEADS is 'many'"),
    ],
)
def test_settings_that_cannot_be_built_are_refused_by_name(name, settings, message):
    with pytest.raises(UnknownModelError) as error:
        found(name, settings)
    assert message in str(error.value)


def test_a_scale_that_is_every_head_s_own_is_no_other():
    identity = found("inline_swin_tiny", {"SWIN": {"QK_SCALE": 16**-0.5, "WINDOW_SIZE": 56}})
    assert built(identity, "inline_swin_tiny")


@pytest.mark.parametrize(
    ("settings", "remark"),
    [
        ({"SWIN": {"EMBED_DIM": 96}}, "MODEL.SWIN.EMBED_DIM is 96, its tensors show 16: they are followed"),
        ({"SWIN": {"QKV_BIAS": False}}, "MODEL.SWIN.QKV_BIAS is False, its tensors show True"),
        ({"LA": {"ATTN_TYPE": "SSSS"}}, "MODEL.LA.ATTN_TYPE is 'SSSS', its tensors show 'IIIS'"),
        ({"SWIN": {"WINDOW_SIZE": 14}}, "MODEL.SWIN.WINDOW_SIZE is 14, its tensors show whole grids"),
        ({"SWIN": {"EMBED_DIMM": 96}, "INLINE": {"GATE": 1}}, "MODEL.SWIN.EMBED_DIMM, MODEL.INLINE.GATE"),
    ],
)
def test_what_is_not_followed_is_said(settings, remark):
    identity = found("inline_swin_tiny", settings)
    assert built(identity, "inline_swin_tiny")
    assert remark in "\n".join(identity.remarks)


def test_another_size_or_family_in_the_settings_is_said():
    name = "inline_deit_tiny"
    shapes = shapes_of(skeleton(name, SIZES[name]), "torch")
    config = {"MODEL": {"TYPE": "inline_swin_t"}, "DATA": {"IMG_SIZE": 224}}
    identity = identify(shapes, hints=training_hints({"config": config}))
    assert built(identity, name)
    said = "\n".join(identity.remarks)
    assert "the image size is 224, its tensors show 32: they are followed" in said
    assert "name inline_swin_t, its tensors are InLineDeiT's" in said


@pytest.fixture(scope="module")
def their_file(tmp_path_factory):
    """A checkpoint of theirs of a small PVT of softmax, in a function of its settings."""
    sizes = {**SIZES["inline_pvt_tiny"], "attn_type": "SSSS", "img_size": 64}
    weights = torch_ref.create_model("inline_pvt_tiny", **sizes).state_dict()

    def write(more=(), **settings):
        path = tmp_path_factory.mktemp("theirs") / "ckpt_epoch_2.pth"
        config = {"MODEL": {"TYPE": "inline_pvt_t", **settings}, "DATA": {"IMG_SIZE": 64}, **dict(more)}
        torch.save({"model": weights, "epoch": 3, "max_accuracy": 1.0, "config": config}, path)
        return path

    return write


def test_the_commands_follow_them(their_file, tmp_path, capsys):
    path = their_file(PVT={"NUM_HEADS": [1, 2, 2, 4], "GATE": 7})
    assert main(["inspect", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["overrides"]["num_heads"] == [1, 2, 2, 4] and "num_heads" not in facts["assumed"]
    assert facts["remarks"] == ["not used of its settings: MODEL.PVT.GATE"]
    assert main(["to-paddle", str(path), str(tmp_path / "a.pdparams"), "--no-verify"]) == 0
    assert "not used of its settings: MODEL.PVT.GATE" in capsys.readouterr().out
    assert main(["verify", "--weights", str(path), "--batch", "1"]) == 0
    said = capsys.readouterr()
    assert "every layer agrees" in said.out and "not used of its settings: MODEL.PVT.GATE" in said.err


def test_the_images_of_evaluation_are_those_of_the_settings(their_file, tmp_path, capsys):
    config = {"DATA": {"IMG_SIZE": 64, "INTERPOLATION": "bilinear"}, "TEST": {"CROP": False}}
    path = their_file(config, PVT={"NUM_HEADS": [1, 2, 2, 4]})
    assert main(["to-paddle", str(path), str(tmp_path / "a.pdparams"), "--no-verify"]) == 0
    assert "with crop, interpolation of the settings in it" in capsys.readouterr().out
    transform = open_weights(tmp_path / "a.pdparams")[1]["transform"]
    assert (transform["img_size"], transform["crop"], transform["interpolation"]) == (64, False, "bilinear")


@pytest.mark.parametrize("command", ["inspect", "to-paddle", "verify"])
def test_the_commands_refuse_what_cannot_be_built(their_file, tmp_path, capsys, command):
    path = their_file(PVT={"NUM_HEADS": [1, 2, 2, 4], "QK_SCALE": 0.3})
    out = tmp_path / "a.pdparams"
    given = {"to-paddle": [str(path), str(out)], "verify": ["--weights", str(path)]}
    assert main([command, *given.get(command, [str(path)])]) == 4
    assert "MODEL.PVT.QK_SCALE is 0.3" in capsys.readouterr().err
    assert not out.exists()
