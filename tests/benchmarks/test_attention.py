"""The attention benchmark: its forms, its fits and its memory."""

import importlib
import json
import os
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddle_inline import list_attentions

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def attention():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("attention")


@pytest.fixture(scope="module")
def forms(attention):
    """What `attention.py --forms` runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("forms")


def rows_of(seconds):
    """Rows of {(form, tokens): seconds} in Paddle."""
    return [
        {"framework": "paddle", "form": form, "tokens": tokens, "seconds": {"median": value}}
        for (form, tokens), value in seconds.items()
    ]


class TestForms:
    def test_all_are_every_form_and_the_controls(self, forms):
        names = {form.name for form in forms.read_forms(["all"])}
        assert names == {*list_attentions(), "inline:local=false", "linear_relu:local=true"}
        assert forms.read_forms(["nystrom:num_landmarks=9"])[0].options == (("num_landmarks", 9),)

    def test_another_name_is_refused_in_one_line(self, attention, forms, capsys):
        with pytest.raises(SystemExit):
            attention.main(["--forms", "inlne"])
        assert "unknown form of attention 'inlne'; did you mean 'inline'?" in capsys.readouterr().err

    def test_a_grid_is_near_to_a_square(self, forms):
        assert [forms.grid_of(n) for n in (784, 1568, 7)] == [(28, 28), (32, 49), (1, 7)]

    def test_ratios_are_to_inline_and_slopes_of_long_inputs(self, forms):
        seconds = {("inline", 784): 2.0, ("gla", 784): 9.0, ("gla", 3136): 1.0, ("gla", 6272): 2.0}
        seconds.update({("relu", 784): 50.0, ("relu", 1568): 1.0, ("relu", 3136): 4.0})
        found = forms.summary(rows_of(seconds))
        assert found["gla"]["paddle"] == {"ms": 9e3, "ratio": 4.5, "slope": pytest.approx(1)}
        assert found["relu"]["paddle"]["slope"] == pytest.approx(2)  # of its two largest sizes
        assert found["inline"]["paddle"] == {"ms": 2e3, "ratio": 1.0, "slope": None}
        assert forms.table(rows_of(seconds)).splitlines()[2] == "| `inline` | 2000.0 | 1.00 | - |"

    def test_steps_of_both_frameworks(self, forms):
        chosen = forms.read_forms(["inline", "softmax"])
        for framework in forms.STEPS:
            pytest.importorskip(framework)
            rows, missing = forms.measure(framework, chosen, [6], 1, heads=2, width=4, device="cpu")
            assert not missing and [row["form"] for row in rows] == ["inline", "softmax"]

    def test_what_cannot_run_is_said_and_the_others_are_timed(self, forms, capsys):
        chosen = forms.read_forms(["inline", "nystrom:num_landmarks=9"])
        rows, missing = forms.measure("paddle", chosen, [6], 1, heads=2, width=4, device="cpu")
        assert [row["form"] for row in rows] == ["inline"] and "num_landmarks 9 for 6 tokens" in missing[0]


class TestRecord:
    """docs/figures/attention_forms.json and what docs/attention_zoo.md says of it."""

    DOCS = FOLDER.parent / "docs"
    PAGE = (DOCS / "attention_zoo.md").read_text(encoding="utf-8")
    ROWS = json.loads((DOCS / "figures" / "attention_forms.json").read_text(encoding="utf-8"))["rows"]

    def test_the_table_is_the_record_s(self, forms):
        shown = self.PAGE.partition("<!-- table of attention_forms -->\n")[2]
        assert shown.partition("<!-- end of attention_forms -->")[0] == forms.table(self.ROWS)

    def test_every_form_was_timed_and_what_is_slow_has_its_reason(self, forms):
        found = forms.summary(self.ROWS)
        assert set(found) == {form.name for form in forms.read_forms(["all"])}
        slow = {form for form, parts in found.items() for one in parts.values() if one["ratio"] > 3}
        reasons = self.PAGE.partition("Read them with care:")[2].partition("## In the four")[0]
        assert slow and all(f"`{form}`" in reasons for form in slow)

    def test_linear_forms_grow_with_the_first_power(self, forms):
        for form, parts in forms.summary(self.ROWS).items():
            for one in parts.values():
                linear = list_attentions()[form.partition(":")[0]].linear
                assert one["slope"] <= 1.1 if linear else one["slope"] > 1.5, form


def test_every_form_is_an_attention(attention):
    forms, tensors = attention.paddle_forms("cpu")
    assert len([form for form in forms if form.startswith("SOFT")]) == 3
    for run in forms.values():
        run(*tensors(1, 2, 100, 8))


def test_both_frameworks_have_the_same_forms(attention):
    import torch  # noqa: F401

    assert set(attention.torch_forms("cpu")[0]) == set(attention.paddle_forms("cpu")[0])


def test_softmax_free_forms_take_queries_as_landmarks(attention):
    from paddle_inline.ops import softmax_free

    seen = {}

    class Recorder:
        newton_inverse, normalised_newton_inverse = "soft", "norm"

        @staticmethod
        def softmax_free_attention(q, landmarks, v, invert):
            seen[landmarks.shape[2]] = (q, landmarks, invert)

    q = paddle.randn([1, 2, 1000, 8])
    for form in attention.softmax_free_forms(Recorder).values():
        form(q, q, q)
    assert sorted(seen) == [15, 50] and seen[50][2] == "norm"
    assert np.allclose(seen[15][1].numpy(), q.numpy()[:, :, : 15 * 64 : 64] * 8**-0.25)
    out = attention.softmax_free_forms(softmax_free)["SOFT, N/64 landmarks"](q, q, q)
    assert out.shape == [1, 2, 1000, 8] and np.isfinite(out.numpy()).all()


def test_slope_is_the_exponent(attention):
    tokens = [100, 1024, 2048, 4096]
    assert attention.slope(tokens, [9, 1, 4, 16]) == pytest.approx(2)  # the first is too short to count
    assert attention.slope(tokens, [1, 3, 6, 12]) == pytest.approx(1)
    assert attention.slope(tokens, [1, 5, 5, 5]) == pytest.approx(0)
    assert attention.slope(tokens[:2], [1, 2]) is None
    assert attention.slope(tokens, [1, None, 0, float("nan")]) is None


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="memory is read from Linux")
def test_memory_is_what_was_touched(attention):
    def allocate(mebibytes):
        np.ones(mebibytes * 2**17).sum()

    allocate(200)  # an earlier peak, and memory given back, must not hide the next
    assert 60 < attention._resident_peak(lambda: allocate(64)) < 80
    assert attention._resident_peak(lambda: None) < 5
