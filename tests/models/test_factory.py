"""Models by name: both factories know the same, and what a user gets wrong is said clearly."""

import ast
import dataclasses
import importlib
import warnings
from pathlib import Path

import paddle
import pytest
import torch

import paddle_inline
import torch_ref
from paddle_inline.models import factory
from paddle_inline.training.checkpoint import save_weights
from paddle_inline.utils.errors import UserError
from paddle_inline.weights.description import describe

PACKAGES = [paddle_inline, torch_ref]


def test_both_packages_list_the_same_models():
    names = paddle_inline.list_models()
    assert names == torch_ref.list_models()
    assert names[:4] == [
        "inline_deit_tiny",
        "inline_deit_small",
        "inline_deit_base",
        "inline_deit_digits",
    ]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
def test_names_are_found_by_a_pattern(package):
    assert package.list_models("inline_*_tiny") == [
        f"inline_{f}_tiny" for f in ("deit", "pvt", "swin", "cswin")
    ]
    assert package.list_models("soft_tin?") == ["soft_tiny"] and package.list_models("resnet*") == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p: p.list_models(["inline_*"]),
            r"pattern \['inline_\*'\] must be a text, e\.g\.",
        ),
        (
            lambda p: p.create_model("inline_deit_digits", weights=3),
            "weights 3 must be the path of a file; load_w",
        ),
        (lambda p: p.create_model(weights=[1]), r"weights \[1\] must be the path of a file"),
        (
            lambda p: p.create_backbone("inline_pvt_tiny", {"a": 1}),
            r"weights {'a': 1} must be the path of a file",
        ),
        (lambda p: p.create_model(["inline_deit_digits"]), r"unknown model \['inline_deit_digits'\]"),
    ],
    ids=["list_models", "weights", "weights alone", "backbone", "name"],
)
def test_arguments_of_other_types_are_refused_in_a_line(package, call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(package)
    assert type(caught.value).__name__ in ("UserError", "WrongTypeError") and "\n" not in str(caught.value)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
class TestCreateModel:
    def test_every_variant_is_a_function(self, package):
        model = package.models.inline_deit_digits(num_classes=3)
        assert (model.name, model.spec.num_classes) == ("inline_deit_digits", 3)

    def test_the_functions_are_the_variants(self, package):
        """Written out for editors, and the same as the tables: name by name, each of its family."""
        tree = ast.parse(Path(package.models.__file__).read_text(encoding="utf-8"))
        rows = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)]
        families = importlib.import_module(f"{package.__name__}.models.factory").FAMILIES
        assert rows == [
            f"{name} = variant('{name}', {family.__name__})"
            for family, variants in families.items()
            for name in variants
        ]
        for name in package.list_models():
            function = getattr(package.models, name)
            assert function.__name__ == name and name in function.__doc__

    def test_weights_get_another_head_and_size_in_words(self, package, tmp_path):
        sizes = {"depth": 1, "embed_dim": 16, "num_heads": 2}
        model = package.create_model("inline_deit_digits", num_classes=5, **sizes)
        path = tmp_path / {paddle_inline: "w.pdparams", torch_ref: "w.pth"}[package]
        (paddle.save if package is paddle_inline else torch.save)(model.state_dict(), str(path))
        with pytest.warns(UserWarning) as caught:
            found = package.create_model("inline_deit_digits", path, num_classes=3, img_size=96, **sizes)
        said = " ".join(str(warning.message) for warning in caught)
        assert "head set to zero (5 -> 3 classes), so train it" in said and "pos_embed" in said
        assert (found.num_classes, found.spec.img_size) == (3, 96)
        assert not found.head.weight.any() and not found.head.bias.any()
        kept = [name for name in model.state_dict() if name.startswith("blocks")]
        assert all((model.state_dict()[name] == found.state_dict()[name]).all() for name in kept)
        with pytest.warns(UserWarning, match="head left out"):
            assert package.create_model("inline_deit_digits", path, num_classes=0, **sizes).num_classes == 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            package.create_model("inline_deit_digits", path, num_classes=5, img_size=32, **sizes)
        with pytest.raises(ValueError, match="cls_token"):  # another width's is another model's
            package.create_model("inline_deit_digits", path, num_classes=3, **{**sizes, "embed_dim": 32})

    def test_pretrained_is_answered(self, package):
        with pytest.raises(ValueError, match="has no weights to download; pass weights=FILE instead"):
            package.create_model("inline_deit_tiny", pretrained=True)

    def test_unknown_name_suggests_the_nearest(self, package):
        with pytest.raises(
            ValueError, match=r"unknown model 'inline_diet_tiny'; did you mean 'inline_deit_tiny'"
        ):
            package.create_model("inline_diet_tiny")

    def test_unknown_override_lists_the_known(self, package):
        with pytest.raises(
            ValueError, match=r"'img_sise'; did you mean 'img_size'\? Known: embed_dim, .*drop_rate"
        ):
            package.create_model("inline_deit_digits", img_sise=32)
        with pytest.raises(ValueError, match="unknown override"):
            package.create_model("inline_deit_digits", published=None)

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            ({"img_size": 30}, r"img_size 30 must divide by 4 on both sides; try \(32, 32\)"),
            ({"img_size": "32"}, "img_size '32' must be a positive int or a pair"),
            ({"img_size": (32, 32, 32)}, "must be a positive int or a pair"),
            ({"img_size": 0}, "must be a positive int"),
            ({"in_chans": 0}, "in_chans 0 must be an int of at least 1"),
            ({"num_classes": -1}, "num_classes -1 must be an int of at least 0"),
            ({"num_classes": True}, "num_classes True must be an int of at least 0"),
            ({"num_heads": 0}, "num_heads 0 must be an int of at least 1"),
            ({"depth": 2.0}, "depth 2.0 must be an int of at least 1"),
            ({"embed_dim": -4}, "embed_dim -4 must be an int of at least 1"),
            ({"mlp_ratio": 0}, "mlp_ratio 0 must be a positive number"),
            ({"drop_rate": "a"}, "drop_rate 'a' must be a number"),
            ({"img_size": True}, "img_size True must be a positive int or a pair"),
            ({"drop_rate": 1.0}, r"drop_rate 1.0 must lie in \[0, 1\)"),
            ({"drop_path_rate": -0.1}, "drop_path_rate -0.1 must lie in"),
            ({"attn_type": "X"}, "attn_type 'X' must be 'I' .* or 'S'"),
            ({"attn_type": "IISS"}, "attn_type 'IISS' must be"),
            ({"kernel_function": "gelu"}, "unknown kernel_function 'gelu'.*identity, relu, leaky_relu, exp"),
            ({"num_heads": 5}, "width 64 does not divide into 5 heads"),
        ],
        ids=str,
    )
    def test_what_cannot_be_built_is_refused(self, package, overrides, message):
        with pytest.raises(ValueError, match=message):
            package.create_model("inline_deit_digits", **overrides)


def test_a_name_that_two_families_use_is_refused():
    """A fault of ours, not of a user."""
    with pytest.raises(ValueError, match="A and B both define 'x'") as error:
        factory.merge_variants({type("A", (), {}): {"x": 1}, type("B", (), {}): {"x": 2}})
    assert not isinstance(error.value, UserError)


def test_published_figures_are_no_override():
    for name in paddle_inline.list_models():
        fields = {field.name for field in dataclasses.fields(factory.model_spec(name))}
        assert "published" in fields


def test_lists_are_tuples_in_a_spec(tmp_path):
    """As settings files have them: weights of such a run are those of the same model."""
    sizes = {"depths": [1, 1, 1, 1], "embed_dim": 8, "num_heads": [1, 1, 2, 2]}
    for package in (paddle_inline, torch_ref):
        spec = package.create_model("inline_swin_tiny", **sizes, img_size=[32, 64]).spec
        assert (spec.depths, spec.num_heads, spec.img_size) == ((1, 1, 1, 1), (1, 1, 2, 2), (32, 64))
    model = paddle_inline.create_model("inline_swin_tiny", **sizes, img_size=[32, 64])
    description = describe("inline_swin_tiny", {**sizes, "img_size": [32, 64]})
    save_weights(tmp_path / "a.pdparams", model.state_dict(), description)
    paddle_inline.load_weights(model, tmp_path / "a.pdparams")
