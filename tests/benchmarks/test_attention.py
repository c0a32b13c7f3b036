"""The attention benchmark: its forms, its fits and its memory."""

import importlib
import os
from pathlib import Path

import numpy as np
import paddle
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def attention():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("attention")


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
