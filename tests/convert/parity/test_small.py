"""Both frameworks, every sublayer, forward and backward: odd sizes and every mix of attentions, small."""

import paddle
import pytest
import torch

from convert.parity import compare
from convert.parity.recording import MODEL
from convert.parity.run import create_pair
from tests.convert.parity.specs import LETTERS, ODD, SMALL, letters, small


def check(family, batch=3, dtype="float64", backward=True, **overrides):
    name, overrides = small(family, **overrides)
    report = compare(name, dtype=dtype, batch=batch, backward=backward, **overrides)
    worst = report.worst()
    assert report.passed, (report.divergence, worst)
    return report


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_every_family(family, dtype):
    report = check(family, batch=None, dtype=dtype)  # as many images as the arbiter needs
    assert report.first_divergence is None
    gradients = {"output gradient", "parameter gradient", "input gradient"}
    assert {row.kind for row in report.rows} == {"output", "loss"} | gradients
    # SOFT's gradients pass through the inverse of a kernel matrix: in bfloat16 some of PyTorch's own are
    # further from the truth than the tolerance.
    assert not report.noise or (dtype == "bfloat16" and family.startswith("soft"))
    assert not any(row.noise for row in report.of_kind("output", "loss"))


@pytest.mark.parametrize("case", ODD)
def test_odd_sizes(case):
    family, overrides, batch = ODD[case]
    check(family, batch, **overrides)


@pytest.mark.parametrize(
    "attn_type", [f"{a}{b}{c}{d}" for a in "IS" for b in "IS" for c in "IS" for d in "IS"]
)
def test_every_mix_of_pvt(attn_type):
    check("pvt", attn_type=attn_type)


@pytest.mark.parametrize("family", ["swin", "cswin"])
@pytest.mark.parametrize("attn_type", LETTERS)
def test_mixes_of_swin_and_cswin(family, attn_type):
    check(family, attn_type=letters(attn_type), depths=(2, 2, 2, 2))


@pytest.mark.parametrize("family", SMALL)
def test_nothing_is_left_out(family):
    """Every sublayer that computes and every trained parameter has a row."""
    name, overrides = small(family)
    report = compare(name, **overrides)
    ours, theirs = create_pair(name, **overrides)
    containers = (paddle.nn.LayerList, torch.nn.ModuleList)
    compared = {row.name for row in report.of_kind("output")}
    for sublayers in (ours.named_sublayers(), theirs.named_modules()):
        wanted = {key or MODEL for key, layer in sublayers if not isinstance(layer, containers)}
        assert wanted <= compared
    parameters = {key for key, p in theirs.named_parameters() if p.requires_grad}
    assert {row.name for row in report.of_kind("parameter gradient")} == parameters
