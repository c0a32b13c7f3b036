"""Who is further from the float64 truth, and how far Paddle may be."""

import numpy as np
import pytest
import torch

from convert.parity import tolerance
from convert.parity.arbiter import Arbiter
from convert.parity.comparison import compare_recordings
from convert.parity.recording import MODEL, Call, Recording, Value
from convert.parity.run import compare_models, create_pair, rounded
from tests.convert.parity.specs import SMALL, small


def recording(error=0.0, dtype="float32"):
    """Of a model of one sublayer, whose output is off by a share `error` of its norm."""
    output = np.ones((4, 25))
    output[0, 0] += 10 * error  # the norm of a hundred ones
    values = Value(output.astype(dtype), np.ones((4, 25), dtype)), Value(output.astype(dtype))
    calls = [Call("head", "Linear", [], values[0]), Call(MODEL, "Model", [], values[1])]
    made = Recording("torch", "2", "m", dtype, calls=calls)
    made.loss = np.array(1.0, dtype)
    return made


@pytest.mark.parametrize(
    ("torchs", "paddles", "passes"),
    [
        (1e-5, 1e-5, True),
        (1e-5, 1.9e-5, True),
        (1e-5, 2.2e-5, False),
        (1e-6, 2.2e-6, True),  # within the few ulp
        (0.0, 4e-7, True),
        (0.0, 7e-7, False),
        (1e-5, np.nan, False),
    ],
)
def test_the_limit(torchs, paddles, passes, monkeypatch):
    monkeypatch.setitem(tolerance.OUTPUT, "float32", 1.0)
    sides = recording(torchs), recording(paddles)
    report = compare_recordings(*sides, recording(0.0, "float64").replay(Arbiter(*sides)))
    assert report.passed is passes
    row = report.of_kind("output")[0]
    assert row.torch_distance == pytest.approx(torchs, abs=7e-8)
    assert row.allowed_distance == pytest.approx(2 * torchs + 4 * 2**-23, abs=2e-7)
    if not passes and not np.isnan(paddles):
        assert report.first_divergence == "head"
        assert report.divergence.kind == "distance"
    assert report.further_from_truth() == (
        0,
        2 if paddles > torchs else 0,
    )  # the sublayer's output and the model's


@pytest.mark.parametrize(
    ("torchs", "paddles", "noise", "passes"),
    [
        (1e-3, 1.9e-3, True, True),  # far from each other, and none of them is right
        (1e-3, 2.2e-3, True, False),
        (1e-3, np.nan, True, False),
        (1e-5, 1e-3, False, False),
        (np.inf, 1e-3, False, False),
    ],
)
def test_agreement_with_noise_is_not_asked_for(torchs, paddles, noise, passes):
    sides = recording(torchs), recording(-paddles)
    report = compare_recordings(*sides, recording(0.0, "float64").replay(Arbiter(*sides)))
    row = report.of_kind("output")[0]
    assert (row.noise, row.passed) == (noise, passes)
    assert row.max_rel != row.max_rel or row.max_rel > row.tolerance
    assert bool(report.noise) is noise
    assert report.first_divergence == (None if passes else "head")
    assert report.divergence is None or report.divergence.kind == ("distance" if noise else "output")


def test_a_sum_in_half_the_digits_is_caught():
    """A sublayer of Paddle's that computes less exactly than it could, far within the tolerance."""
    name, overrides = small("pvt")
    ours, theirs = create_pair(name, **overrides)
    assert compare_models(ours, theirs, "float32", backward=False).passed
    norm = ours.block2[0].norm1
    forward = norm.forward
    norm.forward = lambda x: forward(x) * np.float32(1 + 2**-18)
    report = compare_models(ours, theirs, "float32", backward=False)
    assert all(row.max_rel <= row.tolerance for row in report.rows)
    assert report.first_divergence == "block2.0.norm1"
    assert report.divergence.kind == "distance"
    assert report.most_disputed().paddle_distance > 3e-6
    assert compare_models(ours, theirs, "float32", backward=False, arbiter=False).passed


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_truth_is_of_the_same_rounded_numbers(dtype):
    images = np.random.RandomState(0).standard_normal(10_000)
    kind = getattr(torch, dtype)
    np.testing.assert_array_equal(
        rounded(images, dtype), torch.tensor(images).float().to(kind).double().numpy()
    )


@pytest.mark.parametrize("family", SMALL)
def test_bfloat16_means_what_it_says(family):
    """What passes between sublayers fits in sixteen bits, in both frameworks, and so do the weights."""
    name, overrides = small(family)
    ours, theirs = create_pair(name, **overrides)
    from convert.parity.capture import record_paddle, record_torch
    from convert.parity.inputs import rule_batch

    batch = rule_batch(ours.spec, 3)
    for made in (record_torch(theirs, *batch, "bfloat16"), record_paddle(ours, *batch, "bfloat16")):
        for call in made.calls:
            values = call.output.array.astype("float64")
            np.testing.assert_array_equal(rounded(values, "bfloat16"), values)
            if call.output.gradient is not None and call.name != MODEL:
                assert call.output.gradient.dtype == np.float32
    for value in [*theirs.parameters(), *ours.parameters()]:
        value = value.detach().numpy().astype("float64")
        np.testing.assert_array_equal(rounded(value, "bfloat16"), value)
