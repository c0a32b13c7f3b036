"""The benchmarks' arithmetic, and that each runs alone on a small case."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_inline.utils.timing import benchmark_interleaved, spread

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(name, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_race_takes_turns():
    order, time = [], iter(range(100))
    runs = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    result = benchmark_interleaved(runs, rounds=3, warmup=1, clock=lambda: next(time))
    assert "".join(order) == "ab" + "ababab"
    assert result["a"] == {"median": 1, "low": 1, "high": 1}


def test_spread_is_the_median_between_the_quartiles():
    assert spread([5, 1, 3, 2, 4]) == {"median": 3, "low": 1.5, "high": 4.5}
    assert spread([2]) == {"median": 2, "low": 2, "high": 2}


def test_slope_is_the_exponent(monkeypatch):
    attention = load("attention", monkeypatch)
    tokens = [256, 1024, 2048, 8192]
    assert attention.slope(tokens, [1e-9, *(1e-6 * n**2 for n in tokens[1:])]) == pytest.approx(2)
    assert attention.slope([256, 1024], [1, 2]) is None


def row(engine, median, **more):
    return {"model": "m", "engine": engine, "batch": 8, "seconds": {"median": median}, **more}


def test_check_names_what_fell(monkeypatch, tmp_path, capsys):
    check = load("check", monkeypatch)
    results, baseline = tmp_path / "results", tmp_path / "baseline.json"
    call = ["--results", str(results), "--baseline", str(baseline)]
    assert check.main(call) == 2  # nothing to compare
    results.mkdir()

    def write(openvino, torch):
        facts = {"benchmark": "inference", "rows": [row("openvino", openvino), row("torch-eager", torch)]}
        (results / "inference.json").write_text(json.dumps(facts))

    write(1.0, 2.0)
    assert check.main([*call, "--write"]) == 0
    assert json.loads(baseline.read_text()) == {"inference: openvino over torch-eager, m, 8": 2.0}
    write(1.0, 1.8)
    assert check.main(call) == 0
    write(1.0, 1.6)
    capsys.readouterr()
    assert check.main(call) == 1
    assert "FELL from 2.00 to 1.60: inference: openvino over torch-eager, m, 8" in capsys.readouterr().out


def test_ratios_of_frameworks_and_pipelines(monkeypatch):
    check = load("check", monkeypatch)
    rows = [
        {"framework": f, "model": "m", "batch": 4, "seconds": {"median": s}, "images_per_second": 4 / s}
        for f, s in (("paddle", 2.0), ("torch", 1.0))
    ]
    facts = {"benchmark": "training", "rows": rows}
    assert check.ratios(facts) == {"training: paddle over torch, m, 4": 0.5}
    rows = [
        {"pipeline": p, "workers": 1, "seconds": {"median": s}}
        for p, s in (("paddle_inline", 1.0), ("timm", 3.0))
    ]
    assert check.ratios({"benchmark": "loader", "rows": rows}) == {"loader: paddle_inline over timm, 1": 3.0}


def test_the_loader_s_photographs_and_our_pipeline(monkeypatch, tmp_path):
    pytest.importorskip("sklearn")
    loader = load("loader", monkeypatch)
    loader.write_jpegs(tmp_path, 16)
    sizes = [Image.open(path).size for path in tmp_path.rglob("*.JPEG")]
    assert len(sizes) == 16 and all(width == 500 and 350 <= height < 400 for width, height in sizes)
    assert loader.paddle_pipeline(tmp_path, 0)() == 16


def test_a_step_of_training_on_paddle_and_torch(monkeypatch):
    pytest.importorskip("torch")
    training = load("training", monkeypatch)
    rng = np.random.RandomState(0)
    batch = rng.standard_normal((2, 3, 32, 32)).astype("float32"), rng.randint(0, 10, 2)
    for make in training.FRAMEWORKS.values():
        step = make("inline_deit_digits", "cpu", *batch, "float32")
        losses = [step() for _ in range(3)]
        assert 1 < losses[-1] < losses[0] < 5


def test_what_could_not_run_is_said_loudly(monkeypatch, capsys):
    common = load("common", monkeypatch)
    assert common.could_not_run("torch", ImportError("no torch")) == "torch: ImportError: no torch"
    assert "!!! COULD NOT RUN torch" in capsys.readouterr().err


@pytest.mark.full
def test_attention_runs_alone(tmp_path):
    pytest.importorskip("torch")
    command = "import sys; sys.argv = ['attention']; import common; from pathlib import Path\n"
    command += f"common.RESULTS = Path({str(tmp_path)!r})\nimport attention\n"
    command += "sys.exit(attention.main('--framework torch --tokens 64 128 --rounds 1 --no-memory'.split()))"
    done = subprocess.run([sys.executable, "-c", command], cwd=BENCHMARKS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "attention.json").read_text())
    assert {row["form"] for row in facts["rows"]} == {"InLine", "softmax", "fused softmax"}


def test_what_many_gpus_need(monkeypatch):
    scaling = load("scaling", monkeypatch)
    needs = scaling.needs(25_000_000, 8, gpu_speed=1000.0, gpu_batch=128, core_speed=100.0, disk_speed=4e8)
    assert needs["images_s"] == 8000 and needs["cores"] == 10
    assert needs["sent"] == 2 * 7 / 8 * 4 * 25_000_000
    assert needs["gigabits"] == pytest.approx(8 * 0.175 / (0.128 * 2 / 3))  # 175 MB behind 85 ms
    assert needs["checkpoint_s"] == 1 and needs["hours"] == pytest.approx(13.345, abs=1e-3)


def test_how_much_of_an_exchange_is_hidden(monkeypatch):
    scaling = load("scaling", monkeypatch)
    seconds = {
        "alone": [1.0, 1.0],
        "overlapped": [1.1, 1.1],
        "afterwards": [1.4, 1.4],
        "exchange": [0.4, 0.4],
    }
    row = scaling.row_of("m", 2, {"parameters": 10, "seconds": seconds, "bytes": [80, 82]})
    assert row["hidden"] == pytest.approx(0.75)
    assert row["expected_bytes"] == 80 and row["bytes"] == 81
    alone = scaling.row_of("m", 1, {"parameters": 10, "seconds": seconds, "bytes": []})
    assert "hidden" not in alone
