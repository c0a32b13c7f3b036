"""The attention benchmark: what it measures, fits and writes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("attention_benchmark", ROOT / "benchmarks" / "attention.py")
attention = importlib.util.module_from_spec(spec)
spec.loader.exec_module(attention)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    arguments = ["--lengths", "256", "1024", "1536", "--rounds", "2", "--backward", "--output", str(folder)]
    report = attention.main(arguments)
    assert json.loads((folder / "attention_paddle_backward.json").read_text()) == report
    return report


def test_every_attention_is_timed_at_every_length(report):
    assert len(report["summary"]) == 6
    for row in report["summary"].values():
        assert row["tokens"] == [256, 1024, 1536]
        assert all(0 < seconds < 60 for seconds in row["seconds"])
    for row in report["rows"]:
        assert row["fastest"] <= row["seconds"] <= row["slowest"]
    assert report["summary"]["softmax"]["speedup"] == [1, 1, 1]


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="memory is read from Linux")
def test_memory_is_that_of_the_tensors(report):
    """Softmax forms N x N numbers for two heads, more than once; nothing else forms as many."""
    square = 2 * 1536 * 1536 * 4
    peak = {name: row["bytes"][-1] for name, row in report["summary"].items()}
    assert 2 * square < peak["softmax"] < 8 * square
    for name in ("inline", "soft, 49 landmarks", "soft_norm, 49 landmarks"):
        assert 0 < peak[name] < square


def test_all_forms_are_the_attention_they_are_named_after():
    framework = attention.Paddle()
    inputs = [framework.draw(200) for _ in range(3)]
    outputs = {name: f(*inputs).numpy() for name, f in attention.attentions(framework).items()}
    fused = outputs.pop("softmax, fused").transpose(0, 2, 1, 3)
    assert np.allclose(fused, outputs["softmax"], atol=1e-5)
    for name, output in outputs.items():
        assert output.shape == (1, 2, 200, 32), name
        assert np.isfinite(output).all(), name


def test_slope_is_the_exponent():
    lengths = [100, 1000, 2000, 4000]
    assert attention.slope(lengths, [9, 1, 4, 16]) == pytest.approx(2)  # the first is too short to count
    assert attention.slope(lengths, [1, 3, 6, 12]) == pytest.approx(1)
    assert attention.slope(lengths, [1, 5, 5, 5]) == pytest.approx(0)
    assert attention.slope(lengths[:2], [1, 2]) is None
    assert attention.slope(lengths, [1, None, None, 2]) is None


@pytest.mark.parametrize("arguments", [["--lengths", "10"], ["--rounds", "0"]])
def test_sizes_that_cannot_be_measured_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        attention.main(arguments)
    assert "--lengths at least 64" in capsys.readouterr().err


def test_the_reference_is_timed_without_paddle(tmp_path):
    import torch  # noqa: F401

    code = (
        "import runpy, sys; sys.argv[0] = 'attention.py';"
        "runpy.run_path('benchmarks/attention.py', run_name='__main__');"
        "assert 'torch' in sys.modules and 'paddle' not in sys.modules"
    )
    arguments = ["--framework", "torch", "--lengths", "128", "--rounds", "1", "--output", str(tmp_path)]
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, capture_output=True)
    assert json.loads((tmp_path / "attention_torch.json").read_text())["framework"] == "torch"
