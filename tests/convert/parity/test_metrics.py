"""The measures of difference by hand, and what is a failure by each of them. Needs numpy alone."""

import math

import numpy as np
import pytest

from convert.parity import metrics, tolerance
from convert.parity.comparison import compare_recordings
from convert.parity.recording import MODEL, Call, Recording, Value
from convert.parity.result import Report, Row


def test_arrays_of_other_shapes_are_infinitely_far_apart():
    for shape in ((2, 2), (3, 1), (1, 3), (4,), ()):
        assert metrics.errors(np.zeros(3), np.zeros(shape), metrics.relative_to_largest) == (
            math.inf,
            math.inf,
        )
    assert metrics.errors(np.zeros(3), np.zeros(3), metrics.relative_to_largest) == (0.0, 0.0)
    assert metrics.errors(np.zeros(0), np.zeros(0), metrics.relative_to_norm) == (0.0, 0.0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_near(wrong):
    for pair in (([1.0, 2.0], [1.0, wrong]), ([1.0, wrong], [1.0, 2.0]), ([wrong], [wrong])):
        for measure in (metrics.relative_to_largest, metrics.relative_to_norm):
            found = metrics.errors(*pair, measure)
            assert not Row("output", "n", (2,), *found, 1.0).passed


def test_the_measures_by_hand():
    reference, candidate = np.array([3.0, -4.0, 0.0]), np.array([3.0, -4.5, 0.1])
    assert metrics.errors(reference, candidate, metrics.relative_to_largest) == (0.5, 0.125)
    size = math.hypot(0.5, 0.1)
    assert metrics.errors(reference, candidate, metrics.relative_to_norm)[1] == pytest.approx(size / 5)
    difference = np.abs(candidate - reference)
    rms = 5 / math.sqrt(3)
    assert metrics.relative_to_element(difference, reference, 0) == pytest.approx(max(0.5 / 4, 0.1 / rms))
    assert metrics.relative_to_element(difference, reference, 50) == pytest.approx(0.5 / (50 / math.sqrt(3)))
    assert metrics.relative_to_norm(difference, reference, 50) == pytest.approx(size / 50)
    zero = np.zeros(3)
    assert metrics.relative_to_largest(difference, zero) == 0.5
    assert metrics.relative_to_norm(difference, zero) == pytest.approx(size)


def test_rounding_noise_is_a_millionth_of_the_largest_gradient():
    made = Recording("torch", "2", "m", "float64")
    made.parameter_gradients = {"a": np.array([3.0, 4.0]), "b": np.array([1e-9])}
    assert tolerance.GRADIENT_FLOOR == 1e-6 and metrics.gradient_floor(made) == pytest.approx(5e-6)


@pytest.mark.parametrize(("error", "passes"), [(1e-5, True), (math.nextafter(1e-5, 1), False), (0.0, True)])
def test_an_error_of_the_tolerance_itself_passes(error, passes):
    row = Row("output", "n", (1,), error, error, 1e-5)
    assert row.passed is passes
    assert row.ratio == pytest.approx(error / 1e-5)
    none = Row("weight", "n", (), 0.0, 0.0, 0.0)
    assert none.passed and not Row("weight", "n", (), math.inf, math.inf, 0.0).passed
    assert not Report("m", "float64", (), None, {}).passed


def recording(output, framework="torch"):
    values = Value(np.asarray(output, "float64")), Value(np.ones((2, 2)))
    calls = [Call("head", "Linear", [], values[0]), Call(MODEL, "Model", [], values[1])]
    made = Recording(framework, "1", "m", "float64", calls=calls)
    made.loss = np.array(1.0)
    return made


@pytest.mark.parametrize("output", [np.ones((2, 3)), np.ones(4), np.ones((2, 2, 1)), [[1, 1], [1, math.nan]]])
def test_a_sublayer_of_another_shape_or_without_numbers_is_named(output):
    same = compare_recordings(recording(np.ones((2, 2))), recording(np.ones((2, 2)), "paddle"))
    assert same.passed and same.first_divergence is None
    report = compare_recordings(recording(np.ones((2, 2))), recording(output, "paddle"))
    assert not report.passed and report.first_divergence == "head"
