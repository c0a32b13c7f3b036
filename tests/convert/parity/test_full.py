"""Every model at its full size: forward and backward in float64, forward in float32 with the arbiter."""

import pytest
import torch  # noqa: F401  (without it this file is left out)

from convert.parity import compare
from paddle_inline import list_models

pytestmark = pytest.mark.full


@pytest.mark.parametrize("name", list_models())
def test_forward_and_backward(name):
    report = compare(name, batch=1)
    assert report.passed, (report.divergence, report.worst())


@pytest.mark.parametrize("name", list_models())
def test_float32_is_no_further_from_the_truth(name):
    report = compare(name, dtype="float32", backward=False)
    assert report.passed, (report.divergence, report.most_disputed())
    assert all(row.allowed_distance is not None for row in report.of_kind("output"))
