"""Forms of attention are known by their tensors, and those with the same tensors are listed."""

import numpy as np
import pytest

from convert import paddle_to_torch, torch_to_paddle
from convert.claims import check_overrides
from convert.errors import UnknownModelError
from convert.families.forms import alike, signatures
from convert.identify import identify
from convert.mapping import shapes_of, skeleton
from paddle_inline import create_model, list_attentions
from paddle_inline.utils.errors import UserError

MODELS = {
    "InLineDeiT": "inline_deit_tiny",
    "InLinePVT": "inline_pvt_tiny",
    "InLineSwin": "inline_swin_tiny",
    "InLineCSwin": "inline_cswin_tiny",
}
BARE = ["linear_relu", "linear_elu", "efficient", "hydra", "flow", "norm", "cosformer", "relu", "relu2"]
GATED, TEMPERED = ["mala", "rala"], ["xca", "l2"]
FORMS = [form for form in list_attentions() if form not in ("inline", "softmax")]


def shapes(name, side="torch", **overrides):
    return shapes_of(skeleton(name, overrides), side)


def takes(family, form):
    return form in signatures(family)


@pytest.mark.parametrize("family", MODELS)
def test_forms_with_the_same_tensors(family):
    """What no tensor tells apart; in DeiT softmax has nothing of its own either."""
    groups = [BARE + (["softmax"] if family == "InLineDeiT" else []), TEMPERED, GATED]
    for group in groups:
        for form in filter(lambda form: takes(family, form), group):
            others = [other for other in group if other != form and takes(family, other)]
            assert sorted(alike(family, form)) == sorted(others)
    for form in set(FORMS) - {*BARE, *GATED, *TEMPERED}:
        assert alike(family, form) == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", MODELS)
def test_a_form_is_found_or_listed(family, form):
    if not takes(family, form):
        pytest.skip("CSwin has not got it")
    name = MODELS[family]
    for side in ("torch", "paddle"):
        found = shapes(name, side, attn_type=form)
        assert identify(found, name, {"attn_type": form}).overrides == {"attn_type": form}
        others = alike(family, form)
        if not others:
            assert identify(found, name).overrides == {"attn_type": form}
        elif "softmax" in others:
            identity = identify(found, name)
            assert identity.overrides == {"attn_type": "S"}
            assert all(other in identity.remarks[0] for other in BARE)
        else:
            with pytest.raises(UnknownModelError, match=r"add --opts attn_type") as caught:
                identify(found, name)
            assert all(other in str(caught.value) for other in [form, *others])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", MODELS)
def test_the_family_of_a_form_is_found_without_a_name(family, form):
    """Whichever projections the form has: what is left to ask is the form, or its number of heads."""
    if not takes(family, form):
        pytest.skip("CSwin has not got it")
    for side in ("torch", "paddle"):
        try:
            name = identify(shapes(MODELS[family], side, attn_type=form)).name
        except UnknownModelError as error:
            assert "which only a name tells apart" in str(error) or "has these tensors, but" in str(error)
        else:
            assert name == MODELS[family]


@pytest.mark.parametrize(
    ("family", "form", "options"),
    [
        ("InLineDeiT", "agent", {"num_agents": 9}),
        ("InLineSwin", "agent", {"num_agents": (4, 9, 16, 25)}),
        ("InLineDeiT", "performer", {"num_features": 20}),
        ("InLineCSwin", "performer", {"num_features": 20}),
        ("InLinePVT", "linformer", {"num_projected": 16}),
        ("InLineDeiT", "nystrom", {"conv_kernel": 9}),
    ],
)
def test_options_that_tensors_show(family, form, options):
    name = MODELS[family]
    found = shapes(name, attn_type=form, attn_options=options)
    assert identify(found, name).overrides == {"attn_type": form, "attn_options": options}


@pytest.mark.parametrize("family", [family for family in MODELS if family != "InLineDeiT"])
def test_a_form_for_each_stage(family):
    forms = "slab,inline,softmax,focused"
    assert identify(shapes(MODELS[family], attn_type=forms), MODELS[family]).overrides == {"attn_type": forms}


@pytest.mark.parametrize("family", MODELS)
def test_inline_without_its_filter_is_known_by_name(family):
    known = {"attn_type": "inline", "attn_options": {"local": False}}
    found = identify(shapes(MODELS[family], **known), MODELS[family], known).overrides
    assert {key: found[key] for key in known} == known


@pytest.mark.parametrize("shape", [(), (0,), (3,), (0, 0), (2, 2, 2, 2, 2)])
@pytest.mark.parametrize("form", FORMS)
def test_tensors_of_other_shapes_are_refused_with_the_difference(form, shape):
    """A file's names can be right and its shapes nonsense."""
    found = shapes("inline_deit_tiny", attn_type=form)
    found = {name: shape if ".attn." in name else own for name, own in found.items()}
    with pytest.raises(UnknownModelError):
        identify(found, "inline_deit_tiny", {"attn_type": form})


def test_a_wrong_name_is_refused():
    with pytest.raises(UnknownModelError, match="nearest model"):
        identify(shapes("inline_deit_tiny", attn_type="slab"), "inline_deit_tiny", {"attn_type": "focused"})


@pytest.mark.parametrize("options", [{"num_agents": object()}, {1: 2}, "x", {"num_agents": float("inf")}])
def test_options_of_a_file_are_plain(options):
    with pytest.raises(UserError, match=r"attn_options|num_agents"):
        identify(shapes("inline_deit_tiny"), None, {"attn_type": "agent", "attn_options": options})


def test_options_of_a_file_may_be_one_per_stage():
    overrides = {
        "attn_type": "agent,agent,softmax,inline",
        "attn_options": {"num_agents": [9, 9, None, None]},
    }
    check_overrides("inline_pvt_tiny", overrides)
    overrides = {"attn_type": "inline", "attn_options": {"local": [True, False, True, False]}}
    check_overrides("inline_pvt_tiny", overrides)


@pytest.mark.parametrize("form", FORMS)
def test_weights_go_there_and_back_bit_for_bit(form):
    model = create_model("inline_deit_digits", attn_type=form, depth=1, embed_dim=24, num_heads=3)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    back = torch_to_paddle(paddle_to_torch(state, model), model)
    assert list(back) == list(state)
    assert all(
        np.array_equal(back[name], value) and back[name].dtype == value.dtype for name, value in state.items()
    )


def test_options_are_given_on_the_command_line():
    from convert.parity.cli import parse_overrides

    assert parse_overrides(["attn_type", "agent", "attn_options", "{num_agents: 9}"]) == {
        "attn_type": "agent",
        "attn_options": {"num_agents": 9},
    }
    assert parse_overrides(["attn_options", "{'rope': False}"]) == {"attn_options": {"rope": False}}
    assert parse_overrides(["attn_options", "{["]) == {"attn_options": "{["}
