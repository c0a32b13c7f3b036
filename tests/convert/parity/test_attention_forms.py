"""Every form of attention in a small DeiT and a small Swin: layers, gradients, training steps; what is wrong shows."""

import numpy as np
import pytest
import torch  # noqa: F401  (without it this file is left out)

from convert.parity import compare
from convert.parity.run import compare_models, create_pair
from paddle_inline import list_attentions

MODELS = {
    "deit": ("inline_deit_digits", {"embed_dim": 24, "num_heads": 3, "depth": 1, "img_size": 16}),
    "swin": (
        "inline_swin_tiny",
        {
            "embed_dim": 16,
            "depths": (1, 1, 1, 1),
            "num_heads": (2, 2, 4, 4),
            "img_size": 64,
            "num_classes": 5,
        },
    ),
}
ATTENTION = {"deit": "blocks.0.attn", "swin": "layers.0.blocks.0.attn"}
FORMS = list(list_attentions())
CONTROLS = {"inline without its filter": ("inline", False), "linear_relu with it": ("linear_relu", True)}
# Forms whose layers in a DeiT have the same tensors: only the computation tells them apart.
ALIKE = (
    "softmax",
    "linear_relu",
    "linear_elu",
    "efficient",
    "hydra",
    "flow",
    "norm",
    "cosformer",
    "relu",
    "relu2",
)


def small(model, form, **options):
    name, overrides = MODELS[model]
    # Swin's softmax has windows of 7, which have to divide every grid
    size = {"img_size": 224, "window_size": 56} if (model, form) == ("swin", "softmax") else {}
    return name, {**overrides, **size, "attn_type": form, **({"attn_options": options} if options else {})}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", MODELS)
def test_every_layer_and_gradient_agrees(model, form):
    name, overrides = small(model, form)
    report = compare(name, batch=1, **overrides)
    assert report.passed, report.worst()
    assert any(row.name == ATTENTION[model] for row in report.of_kind("output"))
    gradients = {row.name for row in report.of_kind("parameter gradient")}
    ours, _ = create_pair(name, **overrides)
    own = {key for key, _ in ours.named_parameters() if key.startswith(ATTENTION[model])}
    assert own and own <= gradients


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("model", MODELS)
def test_the_two_controls_of_the_ablation_agree(model, control):
    form, local = CONTROLS[control]
    name, overrides = small(model, form, local=local)
    report = compare(name, batch=1, **overrides)
    assert report.passed, report.worst()
    assert any("residual" in row.name for row in report.rows) == local


@pytest.mark.parametrize("form", FORMS)
def test_training_steps_agree(form):
    name, overrides = small("deit", form)
    report = compare(name, backward=False, batch=2, steps=4, **overrides)
    assert report.passed, report.worst()
    assert len(report.of_kind("step loss")) == 4


def own_parameters(form):
    """Return the names in the attention's layer beside those of plain projections; of none, its first projection."""
    ours, _ = create_pair(*small("deit", form)[:1], **small("deit", form)[1])
    names = [
        key.removeprefix("blocks.0.attn.") for key in ours.state_dict() if key.startswith("blocks.0.attn.")
    ]
    return [name for name in names if name.split(".")[0] not in ("qkv", "proj")] or ["qkv.weight"]


@pytest.mark.parametrize("form", FORMS)
def test_a_changed_number_is_named(form):
    """Of every tensor that the form has of its own."""
    name, overrides = small("deit", form)
    for parameter in own_parameters(form):
        ours, theirs = create_pair(name, **overrides)
        tensor = ours.state_dict()[f"blocks.0.attn.{parameter}"]
        value = tensor.numpy().copy()
        value.flat[value.size // 2] += 0.5
        tensor.set_value(value)
        report = compare_models(ours, theirs, backward=False, batch=1)
        assert not report.passed, parameter
        owner = f"blocks.0.attn.{parameter}".rpartition(".")[0]
        assert report.first_divergence in (owner, "blocks.0.attn", "blocks.0.attn.proj"), parameter


@pytest.mark.parametrize(("form", "other"), [*zip(ALIKE, (*ALIKE[1:], ALIKE[0]))])
def test_another_form_with_the_same_tensors_is_found(form, other):
    name, overrides = small("deit", form)
    _, theirs = create_pair(name, **overrides)
    ours, _ = create_pair(name, **{**overrides, "attn_type": other})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    report = compare_models(ours, theirs, backward=False, batch=1)
    assert not report.passed
    assert report.first_divergence == "blocks.0.attn"


@pytest.mark.parametrize("form", ["mala", "agent", "gla"])
def test_half_precision_is_held_against_float64(form):
    """float32 with the arbiter: what each framework computes is compared with the truth of the same numbers."""
    name, overrides = small("deit", form)
    report = compare(name, dtype="float32", batch=1, **overrides)
    assert report.passed, report.worst()
    assert np.isfinite(report.worst().max_rel)
