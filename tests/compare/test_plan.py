"""What a comparison is made of, and what is refused before anything starts."""

import pytest

from paddle_inline.compare import plan as plans
from paddle_inline.compare.plan import Form, Plan, make_plan, read_form
from paddle_inline.utils.errors import UserError

KNOWN = ["inline", "softmax", "linear_relu", "linear_elu"]


def make(forms=("softmax",), backbone="inline_deit_digits", data="digits", seeds=1, epochs=1):
    return make_plan(forms, backbone, data, seeds, epochs, KNOWN)


def test_a_form_is_a_name_with_options():
    assert read_form("softmax", KNOWN) == Form("softmax", "softmax")
    form = read_form("inline:local=false,kernel_function=relu", KNOWN)
    assert dict(form.options) == {"local": False, "kernel_function": "relu"}
    assert form.overrides() == {
        "attn_type": "inline",
        "kernel_function": "relu",
        "attn_options": {"local": False},
    }
    assert form.folder == "inline-local=false-kernel_function=relu"
    assert dict(read_form("softmax:a=3,b=0.5", KNOWN).options) == {"a": 3, "b": 0.5}


def test_all_forms_and_both_controls_are_compared_by_default():
    names = [form.name for form in make(None).forms]
    assert names[:3] == ["softmax", "inline", "inline:local=false"] and names[-1] == "linear_relu:local=true"
    assert sorted(names) == sorted([*KNOWN, *plans.CONTROLS])


def test_every_form_has_the_same_settings_but_its_attention(tmp_path):
    first, second = (
        make(["softmax", "inline"]).config(form, 2, tmp_path) for form in make(["softmax", "inline"]).forms
    )
    assert first.model.overrides != second.model.overrides
    second.model.overrides = first.model.overrides
    assert first == second
    assert (first.seed, first.data.dataset, first.train.epochs, first.data.img_size) == (2, "digits", 1, 32)
    folder = make(data=str(tmp_path)).config(make().forms[0], 0, tmp_path)
    assert (folder.data.dataset, folder.data.data_path) == ("imagenet", str(tmp_path))


def test_every_entry_of_the_recipe_is_a_setting(tmp_path):
    config = make().config(make().forms[0], 0, tmp_path)
    for key, value in plans.RECIPE.items():
        found = config
        for name in key.split("."):
            found = getattr(found, name)
        assert found == value, key


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"forms": ["sofmax"]}, "unknown form of attention 'sofmax'; did you mean 'softmax'"),
        ({"forms": ["inline:local"]}, "NAME:OPTION=VALUE"),
        ({"forms": ["softmax", "inline", "softmax"]}, "softmax more than once"),
        ({"forms": ["inline:local=false,local=true"]}, "gives local more than once"),
        ({"forms": ["inline:local=false", "inline:local=False"]}, "'inline:local=False', which are one form"),
        ({"seeds": 0}, "--seeds is 0; give 1 or more"),
        ({"epochs": 0}, "--epochs is 0; give 1 or more"),
        ({"backbone": "inline_deit_digit"}, "did you mean 'inline_deit_digits'"),
        (
            {"forms": ["softmax", "softmax:local=true", "inline:locl=true"]},
            r"cannot be built with softmax:local=true \(local is an option of .*\); inline:locl=true \(.*\); "
            r"the others: --forms softmax$",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_line(given, message):
    with pytest.raises(UserError, match=message) as refused:
        make(**given)
    assert "\n" not in str(refused.value)


def test_settings_are_all_that_decides_the_numbers():
    assert make(["softmax"]).settings() == make(["inline"]).settings()
    for other in ({"seeds": 2}, {"epochs": 2}, {"data": "elsewhere"}, {"backbone": "inline_deit_tiny"}):
        assert make(["softmax"], **other).settings() != make().settings()
    assert make().settings()["widened"] and not make(backbone="inline_deit_tiny").settings()["widened"]
    assert isinstance(make(), Plan)
