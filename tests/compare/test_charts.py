"""Axes say what they measure, whatever lies along them."""

import pytest

from paddle_inline.compare.charts import Axis


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("low", [3e-4, 0.7, 21, 257, 99_000])
@pytest.mark.parametrize("times", [1, 1.001, 1.4, 3, 50, 2000])
def test_an_axis_has_ticks_that_differ(low, times, log):
    axis = Axis([low, low * times], 0, 400, log)
    positions, texts = zip(*axis.ticks())
    assert 2 <= len(texts) <= 12
    assert list(positions) == sorted(set(positions)) and positions[0] >= 0 and positions[-1] <= 400
    assert len(set(texts)) == len(texts)


def test_the_ticks_of_a_narrow_logarithmic_axis_stand_where_their_values_do():
    axis = Axis([257, 372], 0, 400, log=True)
    assert axis.ticks() == [(axis.position(300), "300"), (axis.position(350), "350")]


@pytest.mark.parametrize(
    ("values", "log", "texts"),
    [
        ((98.4, 98.9), False, ["98.4", "98.6", "98.8"]),
        ((15, 26), False, ["15", "20", "25"]),
        ((0.08, 12), True, ["0.1", "0.2", "0.5", "1", "2", "5", "10"]),
        ((1e5, 4e8), True, ["1e5", "1e6", "1e7", "1e8"]),
        ((1200, 52_000), True, ["1,000", "2,000", "5,000", "10,000", "20,000", "50,000"]),
    ],
)
def test_ticks_have_the_digits_that_tell_them_apart(values, log, texts):
    assert [text for _, text in Axis(values, 0, 400, log).ticks()] == texts
