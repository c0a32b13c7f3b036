"""Names and shapes say which model a file is of: every name of ours, and models that nobody released."""

import pytest

from convert.errors import UnknownModelError
from convert.identify import identify
from convert.mapping import shapes_of, skeleton
from paddle_inline import create_model, list_models
from paddle_inline.models.factory import model_spec

# Models that have exactly the tensors of another; nothing but words can tell them apart.
TWINS = [
    ("inline_cswin_base", "inline_cswin_base_384"),
    *((f"soft_{size}", f"soft_norm_{size}") for size in ("tiny", "small", "medium", "large", "huge")),
]
PVT_SMALL = {"depths": (1, 1, 1, 1), "embed_dims": (32, 32, 64, 64), "num_heads": (1, 1, 2, 2)}
SWIN_SMALL = {"depths": (1, 2, 3, 1), "embed_dim": 32, "num_heads": (1, 2, 4, 8)}
CSWIN_SMALL = {"depths": (1, 1, 2, 1), "embed_dim": 32, "num_heads": (1, 2, 4, 8)}


def shapes(name, side="torch", **overrides):
    return shapes_of(skeleton(name, overrides), side)


@pytest.mark.parametrize("name", [n for n in list_models() if not any(n in twins for twins in TWINS)])
def test_every_released_model_is_known_by_its_tensors(name):
    found = identify(shapes(name))
    assert (found.name, found.overrides, found.side) == (name, {}, "torch")


@pytest.mark.parametrize("twins", TWINS, ids=lambda twins: twins[0])
def test_models_with_the_same_tensors_are_both_named(twins):
    with pytest.raises(UnknownModelError, match="several models have exactly these tensors") as caught:
        identify(shapes(twins[0]))
    for name in twins:
        assert f"create_model({name!r})" in str(caught.value)


@pytest.mark.parametrize("name", TWINS[0])
def test_twins_are_told_apart_by_the_training_settings_or_by_name(name):
    size = 384 if name.endswith("384") else 224
    assert identify(shapes(name), hints={"img_size": size}).name == name
    assert identify(shapes(name), name).name == name


@pytest.mark.parametrize(
    "name, text", [("soft_tiny", "SOFT soft_tiny"), ("soft_norm_tiny", "soft_tiny_norm")]
)
def test_soft_and_its_normalised_form_are_told_apart_by_the_settings_words(name, text):
    assert identify(shapes(name), hints={"text": text}).name == name


@pytest.mark.parametrize(
    "name, overrides",
    [
        ("inline_deit_tiny", {"num_classes": 10, "img_size": 384}),
        ("inline_deit_tiny", {"num_classes": 0, "in_chans": 1}),
        ("inline_deit_tiny", {"embed_dim": 48, "num_heads": 3, "depth": 2, "mlp_ratio": 2}),
        ("inline_pvt_tiny", {"attn_type": "ISIS", "num_classes": 7}),
        ("inline_pvt_tiny", {**PVT_SMALL, "img_size": 96}),
        ("inline_pvt_tiny", {"attn_type": "IISS", "sr_ratios": (8, 4, 1, 1)}),
        ("inline_swin_tiny", {"attn_type": "IISS"}),
        ("inline_swin_tiny", {"attn_type": "SSSS"}),
        ("inline_swin_tiny", {"attn_type": "IMSS1", "num_classes": 3}),
        ("inline_swin_tiny", {"img_size": 448}),
        ("inline_swin_tiny", {"img_size": 448, "window_size": 28}),
        ("inline_swin_tiny", {**SWIN_SMALL, "attn_type": "SSMS2", "img_size": 448}),
        ("inline_swin_small", {"qkv_bias": False}),
        ("inline_cswin_tiny", {"attn_type": "IIMS3"}),
        ("inline_cswin_tiny", {**CSWIN_SMALL, "num_classes": 0}),
        ("soft_digits", {"landmark_ratios": (4, 2, 1), "num_classes": 4}),
    ],
)
@pytest.mark.parametrize("side", ["torch", "paddle"])
def test_models_that_nobody_released(name, overrides, side):
    found = identify(shapes(name, side, **overrides))
    assert found.side == side
    wanted, got = model_spec(name, **overrides), model_spec(found.name, **found.overrides)
    for key in vars(wanted):
        if key not in ("published", *found.assumed):
            assert getattr(got, key) == getattr(wanted, key), key


def test_what_no_tensor_shows_is_said():
    assert identify(shapes("inline_deit_tiny")).assumed == {"kernel_function": "identity"}
    assumed = identify(shapes("inline_cswin_tiny")).assumed
    assert assumed["img_size"] == 224
    assert assumed["num_heads"] == (2, 4, 8, 16)


def test_what_is_known_is_not_called_assumed():
    found = identify(shapes("inline_deit_tiny"), overrides={"kernel_function": "exp"})
    assert (found.overrides, found.assumed) == ({"kernel_function": "exp"}, {})
    assert str(found) == "create_model('inline_deit_tiny', kernel_function='exp')"


@pytest.mark.parametrize("name", ["inline_deit_tiny", "inline_pvt_tiny"])
def test_heads_that_softmax_hides_are_not_guessed(name):
    with pytest.raises(UnknownModelError, match=rf"does not show its number of heads(?s:.)*--model {name}"):
        identify(shapes(name, attn_type="SSSS"))
    assert identify(shapes(name, attn_type="SSSS"), name).overrides["attn_type"][0] == "S"
    heads = {"inline_deit_tiny": 3, "inline_pvt_tiny": (1, 2, 5, 8)}[name]
    found = identify(shapes(name, attn_type="SSSS", num_heads=heads), overrides={"num_heads": heads})
    assert found.overrides["num_heads"] == heads


def test_an_image_that_is_not_square_is_asked_for():
    found = shapes("inline_pvt_tiny", img_size=(160, 288))
    with pytest.raises(UnknownModelError, match=r"--opts img_size(?s:.)*img_size=\(160, 288\)"):
        identify(found)
    assert identify(found, overrides={"img_size": (160, 288)}).overrides == {"img_size": (160, 288)}


def test_a_missing_tensor_is_listed_against_the_nearest_model():
    found = shapes("inline_deit_tiny", num_classes=10)
    del found["blocks.3.attn.proj.bias"]
    with pytest.raises(UnknownModelError) as caught:
        identify(found)
    assert str(caught.value).splitlines() == [
        "the nearest model is create_model('inline_deit_tiny', num_classes=10)",
        "  (- in the model, + in the file)",
        "  - blocks.3.attn.proj.bias [192]",
    ]


def test_a_wrong_shape_and_an_extra_tensor_are_listed():
    found = {**shapes("inline_deit_tiny"), "blocks.3.norm2.bias": (191,), "dist_token": (1, 1, 192)}
    with pytest.raises(UnknownModelError) as caught:
        identify(found)
    assert str(caught.value).splitlines()[2:] == [
        "  - blocks.3.norm2.bias [192]",
        "  + blocks.3.norm2.bias [191]",
        "  + dist_token [1, 1, 192]",
    ]


def test_a_tensor_too_many_is_named_before_anything_is_asked():
    found = shapes("inline_deit_tiny")
    found.update(pos_embed=(1, 198, 192), dist_token=(1, 1, 192))  # 197 positions: of no square image
    with pytest.raises(
        UnknownModelError, match=r"the nearest model is [^\n]*\n.*\n  \+ dist_token \[1, 1, 192\]"
    ):
        identify(found)


@pytest.mark.parametrize(
    ("name", "letters", "names"),
    [
        ("inline_deit_tiny", "S", "softmax"),
        ("inline_swin_tiny", "IISS", "inline,inline,softmax,softmax"),
        ("inline_cswin_tiny", "IIII", "inline"),
    ],
)
def test_attention_given_by_name_is_that_of_the_tensors(name, letters, names):
    given = {"attn_type": names}
    if letters == "S":
        given["num_heads"] = model_spec(name).num_heads  # softmax shows no heads
    found = identify(shapes(name, attn_type=letters), name, given)
    assert found.overrides["attn_type"] == names
    with pytest.raises(UnknownModelError, match=r"attn_type is '[IS]+' by the tensors, not '[IS]+'"):
        identify(
            shapes(name, attn_type=letters), name, {"attn_type": "inline" if letters == "S" else "softmax"}
        )


def test_attention_that_no_attn_type_writes_is_named():
    found = shapes("inline_swin_tiny", attn_type="IIMS3")
    for key in list(found):
        if key.startswith("layers.2.blocks.0.attn.residual"):
            del found[key]
        if key.startswith("layers.2.blocks.4.attn.relative"):
            found[key.replace("blocks.4", "blocks.0")] = found[key]
    with pytest.raises(UnknownModelError, match="no attn_type gives the blocks II, II, SIISSS, SS"):
        identify(found)


def test_a_stranger_is_told_so():
    with pytest.raises(UnknownModelError, match="none of theirs"):
        identify({"conv1.weight": (64, 3, 7, 7), "fc.bias": (1000,)})


def test_the_nearest_model_of_a_neighbour_is_shown():
    found = {f"stages.{i}.{key}": value for i, (key, value) in enumerate(shapes("inline_deit_tiny").items())}
    found.update({key: value for key, value in shapes("inline_deit_tiny").items() if "attn.qkv" not in key})
    with pytest.raises(
        UnknownModelError, match=r"the nearest is inline_deit_tiny(?s:.)*- blocks\.0\.attn\.qkv"
    ):
        identify(found)


def test_an_unknown_name_or_override_is_a_mistake_of_the_call():
    with pytest.raises(ValueError, match="did you mean 'inline_deit_tiny'"):
        identify(shapes("inline_deit_tiny"), "inline_deit_tinny")
    with pytest.raises(ValueError, match="unknown override"):
        identify(shapes("inline_deit_tiny"), overrides={"window_size": 7})


def test_a_name_that_the_tensors_contradict_is_refused():
    with pytest.raises(UnknownModelError, match="look like InLineDeiT, and inline_pvt_tiny is InLinePVT:"):
        identify(shapes("inline_deit_tiny"), "inline_pvt_tiny")


def test_an_override_that_the_tensors_contradict_is_refused_in_one_line():
    with pytest.raises(UnknownModelError, match=r"^depth is 12 by the tensors, not 3$"):
        identify(shapes("inline_deit_tiny"), overrides={"depth": 3})


def test_a_form_that_no_tensor_shows_is_taken_from_what_is_known(monkeypatch):
    """Its blocks have softmax's tensors, or others; by them alone it would be taken for softmax."""
    from paddle_inline.layers import attention

    class Halved(attention.SoftmaxAttention):
        """Softmax with half the values."""

        def attend(self, q, k, v, context, size):
            return attention.SoftmaxAttention.attend(self, q, k, v / 2, context, size)

    monkeypatch.setitem(attention.ATTENTION, "halved", Halved)
    overrides = {"attn_type": "halved", "depth": 2}
    state = create_model("inline_deit_digits", **overrides).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    found = identify(shapes, "inline_deit_digits", overrides)
    assert (found.name, found.overrides) == ("inline_deit_digits", overrides)
    with pytest.raises(UnknownModelError, match="attn_type is 'S' by the tensors, not 'I'"):
        identify(shapes, "inline_deit_digits", {**overrides, "attn_type": "inline"})
