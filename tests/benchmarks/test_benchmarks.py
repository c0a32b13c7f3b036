"""The benchmarks' arithmetic, and that each runs alone on a small case."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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

    what = "inference: openvino over torch-eager, m, 8"

    def write(openvino, torch, processor="a"):
        rows = [row("openvino", openvino), row("torch-eager", torch)]
        facts = {"benchmark": "inference", "machine": {"processor": processor}, "rows": rows}
        (results / "inference.json").write_text(json.dumps(facts))

    write(1.0, 2.0)
    assert check.main(call) == 2  # no baseline
    assert check.main([*call, "--write"]) == 0
    assert json.loads(baseline.read_text()) == {"a": {what: 2.0}}
    baseline.write_text('{"a": {"loader: not measured here": 1.5}}')
    assert check.main([*call, "--write"]) == 0  # which stays
    assert len(json.loads(baseline.read_text())["a"]) == 2
    write(1.0, 1.8)
    assert check.main(call) == 0
    write(1.0, 1.6)
    capsys.readouterr()
    assert check.main(call) == 1
    assert f"FELL from 2.00 to 1.60: {what}" in capsys.readouterr().out
    write(1.0, 1.2, "b")
    assert check.main([*call, "--write"]) == 0  # beside a's, which stay
    write(1.0, 1.1, "c")
    assert check.main(call) == 0 and "has no c: compared with the lowest of a, b" in capsys.readouterr().out
    write(1.0, 1.0, "c")
    assert check.main(call) == 1 and "FELL from 1.20 to 1.00" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[1]", '{"loader: a over b": 1.5}'])
def test_check_leaves_a_baseline_that_is_none_as_it_is(monkeypatch, tmp_path, capsys, text):
    check = load("check", monkeypatch)
    baseline = tmp_path / "baseline.json"
    baseline.write_text(text)
    facts = {"benchmark": "inference", "rows": [row("openvino", 1.0), row("onnx", 2.0)]}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "inference.json").write_text(json.dumps(facts))
    call = ["--results", str(tmp_path / "results"), "--baseline", str(baseline)]
    for arguments in (call, [*call, "--write"]):
        try:
            code = check.main(arguments)
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr().err
        assert code == 2 and str(baseline) in said and "move it away" in said and said.count("\n") == 1
    assert baseline.read_text() == text


def test_the_baseline_is_what_the_records_say(monkeypatch):
    """docs/figures, whose ratios `check.py --results docs/figures --write` puts into it."""
    check = load("check", monkeypatch)
    baseline = json.loads((BENCHMARKS / "baseline.json").read_text(encoding="utf-8"))
    records = sorted((BENCHMARKS.parent / "docs" / "figures").glob("*.json"))
    found = check.measured_by_processor(json.loads(path.read_text(encoding="utf-8")) for path in records)
    assert sum(map(len, found.values())) > 150
    for processor, ratios in found.items():
        assert {what: baseline[processor].get(what) for what in ratios} == pytest.approx(ratios, abs=1e-3)


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
    rows.append({"pipeline": "paddle_inline, in full", "workers": 1, "seconds": {"median": 2.0}})
    assert check.ratios({"benchmark": "loader", "rows": rows}) == {
        "loader: paddle_inline over timm, 1": 3.0,
        "loader: paddle_inline over paddle_inline, in full, 1": 2.0,
        "loader: paddle_inline, in full over timm, 1": 1.5,
    }


def test_ratios_of_like_precision_of_memory_and_of_bytes(monkeypatch):
    check = load("check", monkeypatch)
    rows = [row("openvino", 2.0), row("openvino-bf16", 1.0), row("torch-openvino-bf16", 0.9)]
    found = check.ratios({"benchmark": "inference", "rows": [*rows, row("openvino-int8", 0.5)]})
    assert found["inference: openvino-bf16 over torch-openvino-bf16, m, 8"] == 0.9
    assert found["inference: openvino-int8 over openvino-bf16, m, 8"] == 2.0
    assert found["inference: openvino-bf16 over openvino, m, 8"] == 2.0 and len(found) == 3
    cell = {"model": "m", "size": "512x512", "backward": True, "date": "2026-11-26", "paddle": "3.3.1"}
    rows = [
        {**cell, "form": form, "seconds": s, "MiB": m}
        for form, s, m in (("InLine", 2.0, 10), ("softmax", 3.0, 40))
    ]
    assert check.ratios({"benchmark": "dense", "rows": rows}) == {
        "dense: InLine over softmax, m, 512x512, True": 1.5,
        "dense: InLine over softmax, memory, m, 512x512, True": 4.0,
    }
    rows = [{"model": "m", "ranks": 1}, {"model": "m", "ranks": 2, "bytes": 110.0, "expected_bytes": 55}]
    assert check.ratios({"benchmark": "scaling", "rows": rows}) == {
        "scaling: bytes of a ring over those sent, m, 2": 0.5
    }


def test_the_loader_s_photographs_and_our_pipeline(monkeypatch, tmp_path):
    pytest.importorskip("sklearn")
    loader = load("loader", monkeypatch)
    loader.write_jpegs(tmp_path, 16)
    sizes = [Image.open(path).size for path in tmp_path.rglob("*.JPEG")]
    assert len(sizes) == 16 and all(width == 500 and 350 <= height < 400 for width, height in sizes)
    assert loader.paddle_pipeline(tmp_path, 0)() == loader.paddle_in_full(tmp_path, 0, "simple")() == 16
    loader.write_jpegs(tmp_path / "large", 2, 1000)
    sizes = [Image.open(path).size for path in (tmp_path / "large").rglob("*.JPEG")]
    assert len(sizes) == 2 and all(width == 1000 and 700 <= height < 800 for width, height in sizes)


@pytest.fixture(scope="module")
def digits_export(tmp_path_factory):
    """What benchmarks/predict.py exports, once for its tests."""
    for package in ("sklearn", "openvino", "paddle2onnx"):
        pytest.importorskip(package)
    import paddle_inline

    folder = tmp_path_factory.mktemp("predict") / "export"
    create = paddle_inline.create_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paddle_inline, "create_model", lambda name: create(name, depth=1))
        load("predict", patch).export("inline_deit_digits", "openvino", folder)
    return folder


@pytest.fixture
def small_predictions(digits_export, monkeypatch, tmp_path):
    """benchmarks/predict.py, and a function: what it says of five pictures in batches of two, its code and report."""
    module = load("predict", monkeypatch)
    monkeypatch.setattr("paddle_inline.cli.predict.LEAST_BATCHES", 1)  # two batches are two streams
    monkeypatch.setattr(sys.modules["common"], "RESULTS", tmp_path)
    monkeypatch.setattr(module, "export", lambda name, engine, folder: shutil.copytree(digits_export, folder))
    small = ["--model", "inline_deit_digits", "--images", "5", "--batch-size", "2", "--rounds", "2"]
    return module, lambda: (module.main(small), json.loads((tmp_path / "predict.json").read_text()))


def test_predictions_in_turn_and_overlapped_are_timed_and_compared(small_predictions, monkeypatch, capsys):
    _, run = small_predictions
    code, facts = run()
    forms = ["in turn", "in turn, threads", "overlapped, one stream", "overlapped"]
    assert code == 0 and facts["could_not_run"] == [] and [row["form"] for row in facts["rows"]] == forms
    for row in facts["rows"]:
        assert row["images"] == 4  # whole batches
        assert row["images_per_second"] == pytest.approx(4 / row["seconds"]["median"])
    seconds = {row["form"]: row["seconds"]["median"] for row in facts["rows"]}
    ratios = load("check", monkeypatch).ratios(facts)
    assert len(ratios) == 3
    assert ratios["predict: overlapped over in turn, inline_deit_digits, openvino, 2"] == (
        seconds["in turn"] / seconds["overlapped"]
    )
    assert capsys.readouterr().out.splitlines()[1].startswith("in turn ")


def test_predictions_that_differ_are_named_and_not_timed(small_predictions, monkeypatch, capsys):
    module, run = small_predictions
    right = module.classify

    def wrong(predictor, *given, **more):
        found = [*right(predictor, *given, **more)]
        return found[::-1] if predictor.streams == 1 else found[2:]

    monkeypatch.setattr(module, "classify", wrong)
    code, facts = run()
    assert code == 1 and [row["form"] for row in facts["rows"]] == ["in turn", "in turn, threads"]
    first, second = facts["could_not_run"]
    assert first.startswith("overlapped, one stream: ValueError: picture 0 is Prediction(")
    assert second == "overlapped: ValueError: 2 answers to 4 pictures"


def test_predictions_without_openvino_are_left_out_loudly(small_predictions, monkeypatch, capsys):
    _, run = small_predictions
    monkeypatch.setattr("paddle_inline.inference.backends.openvino_core", lambda: __import__("no_openvino"))
    code, facts = run()
    assert code == 1 and facts["rows"] == []
    assert facts["could_not_run"] == [
        "inline_deit_digits by openvino: MissingPackageError: OpenVINO is not installed: pip install openvino"
    ]
    assert "!!! COULD NOT RUN inline_deit_digits by openvino" in capsys.readouterr().err


def test_the_peer_s_pipeline_runs_beside_any_build_of_torchvision(monkeypatch, tmp_path):
    for name in ("sklearn", "torch", "torchvision", "timm"):
        pytest.importorskip(name)
    import torch

    loader = load("loader", monkeypatch)
    loader.write_jpegs(tmp_path, 16)
    missing, threads = [], torch.get_num_threads()
    monkeypatch.setattr(loader.ImageOps, "posterize", loader.ImageOps.posterize)  # which it replaces
    monkeypatch.setattr(loader, "PIPELINES", {"timm": loader.timm_pipeline, "none": lambda *given: lambda: 3})
    found = loader.measure(str(tmp_path), 0, "randaugment", 16, 1, missing)
    torch.set_num_threads(threads)
    assert list(found) == ["timm"] and found["timm"]["median"] > 0
    assert missing == ["none, randaugment, 0 workers: ValueError: 16 images were wanted"]


def test_a_step_of_training_on_paddle_and_torch(monkeypatch):
    pytest.importorskip("torch")
    training = load("training", monkeypatch)
    rng = np.random.RandomState(0)
    batch = rng.standard_normal((2, 3, 32, 32)).astype("float32"), rng.randint(0, 10, 2)
    for make in training.FRAMEWORKS.values():
        step = make("inline_deit_digits", "cpu", *batch, "float32")
        losses = [step() for _ in range(3)]
        assert 1 < losses[-1] < losses[0] < 5


def test_each_framework_trains_in_a_process_of_its_own(tmp_path):
    pytest.importorskip("torch")
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import common, training\n"
        "if __name__ == '__main__':\n"
        "    common.RESULTS = pathlib.Path(sys.argv[2])\n"
        "    models = ['--models', 'inline_deit_digits', 'no_such_model']\n"
        "    sys.exit(training.main([*models, '--size', '32', '--rounds', '2']))"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    run = subprocess.run([sys.executable, script, BENCHMARKS, tmp_path], capture_output=True, text=True)
    facts = json.loads((tmp_path / "training.json").read_text())
    assert run.returncode == 1, run.stderr  # one model was none
    assert [(row["framework"], row["model"]) for row in facts["rows"]] == [
        ("paddle", "inline_deit_digits"),
        ("torch", "inline_deit_digits"),
    ]
    assert len(facts["could_not_run"]) == 2 and all(
        "no_such_model" in line for line in facts["could_not_run"]
    )
    assert {"paddle", "torch", "numpy"} <= facts["versions"].keys()


def test_a_framework_whose_process_ends_is_named_and_the_next_model_is_timed(monkeypatch, tmp_path, capsys):
    training = load("training", monkeypatch)
    monkeypatch.setattr(training.sys.modules["common"], "RESULTS", tmp_path)
    monkeypatch.setattr(training, "figure", lambda *given: None)
    closed = []

    class Dies(training.Alone):
        def __init__(self, framework, name, *given):
            if name == "no_memory":
                raise OSError("Cannot allocate memory")
            self.framework, self.name, self.calls = framework, name, 0
            self.versions, self.accelerator = {}, {"gpu": "a card"}

        def __call__(self):
            self.calls += 1
            if (self.framework, self.name, self.calls) == ("torch", "dies", 3):
                raise RuntimeError("the process of torch ended with -9")
            return 1.0

        def close(self):
            closed.append(self.framework)

    monkeypatch.setattr(training, "Alone", Dies)
    models = ["--models", "no_memory", "dies", "lives"]
    assert training.main([*models, "--size", "8", "--rounds", "1"]) == 1
    facts = json.loads((tmp_path / "training.json").read_text())
    assert [row["model"] for row in facts["rows"]] == ["lives", "lives"] and closed == ["paddle", "torch"] * 2
    assert [line.split(":")[0] for line in facts["could_not_run"]] == [
        "paddle no_memory, batch 8",
        "torch no_memory, batch 8",
        "dies, batch 8",
    ]
    assert facts["machine"]["gpu"] == "a card" and "ended with -9" in facts["could_not_run"][2]


def test_a_process_that_was_killed_is_said_with_its_code(monkeypatch):
    training = load("training", monkeypatch)
    run = training.Alone.__new__(training.Alone)
    ours, theirs = training.multiprocessing.Pipe()
    theirs.close()
    run.framework, run.pipe = "torch", ours
    run.process = type("Process", (), {"join": lambda self, timeout: None, "exitcode": -9})()
    with pytest.raises(RuntimeError, match="the process of torch ended with -9"):
        run()


def test_an_engine_in_int8_is_timed(monkeypatch, tmp_path):
    for package in ("nncf", "openvino", "paddle2onnx"):
        pytest.importorskip(package)
    inference, missing = load("inference", monkeypatch), []
    import paddle_inline

    create = paddle_inline.create_model
    monkeypatch.setattr(paddle_inline, "create_model", lambda name: create("inline_deit_digits", depth=1))
    engines = inference.paddle_engines("m", ["openvino-int8"], tmp_path, "cpu", 1, missing)
    assert missing == [] and (tmp_path / "int8.xml").is_file()
    assert engines["openvino-int8"](np.zeros((2, 3, 32, 32), np.float32)).shape == (2, 10)


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
    found = {row["form"] for row in facts["rows"]}
    assert {"InLine", "softmax", "fused softmax"} < found and len(found) == 6  # and three of SOFT's


def test_what_many_gpus_need(monkeypatch):
    scaling = load("scaling", monkeypatch)
    needs = scaling.needs(25_000_000, 8, gpu_speed=1000.0, gpu_batch=128, core_speed=100.0, disk_speed=4e8)
    assert needs["images_s"] == 8000 and needs["cores"] == 10
    assert needs["sent"] == 2 * 7 / 8 * 4 * 25_000_000
    assert needs["gigabits"] == pytest.approx(8 * 0.175 / (0.128 * 2 / 3))  # 175 MB behind 85 ms
    assert needs["checkpoint_s"] == 1 and needs["hours"] == pytest.approx(13.345, abs=1e-3)


def test_a_plan_takes_the_speed_of_the_gpu_that_is_given(monkeypatch, capsys):
    scaling = load("scaling", monkeypatch)
    assert scaling.main(["--plan", "inline_deit_tiny", "--gpu-speed", "4483", "--gpu-batch", "256"]) == 0
    title, head, *rows = capsys.readouterr().out.splitlines()
    assert title == (
        "inline_deit_tiny: 6.5 M parameters; 4483 images/s of a GPU in batches of 256, 316 of a loader core, "
        "2.6e+08 bytes/s of disk"
    )
    eight = dict(zip(head.split(), map(float, rows[0].split())))
    assert len(rows) == 3 and eight["gpus"] == 8
    assert (eight["cores"], eight["gigabits"]) == (14.19, 9.529)  # docs/scaling.md: 14.2, 114 in all, 9.5


def test_a_plan_without_a_speed_or_of_no_model_is_refused(monkeypatch, capsys):
    scaling = load("scaling", monkeypatch)
    with pytest.raises(SystemExit, match="2"):
        scaling.main(["--plan", "inline_deit_tiny"])
    assert "error: --plan needs --gpu-speed: images a second of one GPU" in capsys.readouterr().err
    assert scaling.main(["--plan", "inline_deit_tny", "--gpu-speed", "1"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(
        "error: unknown model 'inline_deit_tny'; did you mean 'inline_deit_tiny'? Known: "
    )
    assert said.out == "" and said.err.count("\n") == 1


def test_a_checkpoint_of_no_model_is_named_and_the_rest_is_kept(monkeypatch, tmp_path, capsys):
    scaling = load("scaling", monkeypatch)
    monkeypatch.setattr(scaling.sys.modules["common"], "RESULTS", tmp_path)
    seconds = {kind: [1.0] for kind in scaling.KINDS}
    monkeypatch.setattr(scaling, "measure", lambda *given: {"parameters": 1, "seconds": seconds, "bytes": []})
    assert scaling.main(["--ranks", "1", "--checkpoints", "no_such_model"]) == 1
    facts = json.loads((tmp_path / "scaling.json").read_text())
    assert len(facts["rows"]) == 1 and facts["checkpoints"] == []
    assert facts["could_not_run"][0].startswith("the checkpoint of no_such_model: UserError: unknown model")


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


def test_backbones_are_measured_once_and_kept_when_a_run_is_killed(monkeypatch, tmp_path, capsys):
    dense, measured = load("dense", monkeypatch), []

    class Pool:
        """Measures at once; the third measurement is the end of the process."""

        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def submit(self, measure, *what):
            measured.append(what)
            if len(measured) == 3:
                raise SystemExit
            return type("Done", (), {"result": lambda self: (len(measured), 10.0, {"paddle": "3"})})()

    monkeypatch.setattr(dense, "ProcessPoolExecutor", Pool)
    for module in (dense, sys.modules["common"]):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    call = ["--models", "inline_pvt_tiny", "--sizes", "64x96"]
    with pytest.raises(SystemExit):
        dense.main(call)

    def seconds():
        return [row["seconds"] for row in json.loads((tmp_path / "dense.json").read_text())["rows"]]

    assert seconds() == [1, 2]
    assert dense.main(call) == 0 and seconds() == [1, 2, 4, 5]
    assert dense.main(call) == 0 and len(measured) == 5
    assert dense.main([*call, "--again"]) == 0 and seconds() == [6, 7, 8, 9]
    assert measured[:2] == [
        ("inline_pvt_tiny", {}, (64, 96), False),
        ("inline_pvt_tiny", {"attn_type": "SSSS"}, (64, 96), False),
    ]
    facts = json.loads((tmp_path / "dense.json").read_text())
    facts["machine"]["cores"] += 1
    (tmp_path / "dense.json").write_text(json.dumps(facts))
    assert dense.main(call) == 2 and "is of another machine" in capsys.readouterr().err


@pytest.mark.parametrize("framework", ["paddle", "torch"])
def test_the_benchmark_of_gpus_runs_whole_in_small_on_a_cpu(monkeypatch, tmp_path, framework, capsys):
    pytest.importorskip(framework)
    gpu = load("gpu", monkeypatch)
    monkeypatch.setattr(gpu.sys.modules["common"], "RESULTS", tmp_path)
    assert gpu.main(["--framework", framework, "--device", "cpu", "--small"]) == 0
    facts = json.loads((tmp_path / "gpu_small.json").read_text())
    parts = {part: [row for row in facts["rows"] if row["part"] == part] for part in
             ("parity", "attention", "training", "inference", "resolution")}  # fmt: skip
    assert [len(rows) for rows in parts.values()] == [2, 2, 1, 1, 4] and facts["framework"] == framework
    assert [row["dtype"] for row in parts["parity"]] == ["float64", "float32"]
    assert all(row["passed"] for row in parts["parity"])
    assert parts["parity"][0]["logits"] == 0 and 0 < parts["parity"][1]["logits"] < 1e-6
    assert all(row["images_per_second"] > 0 for row in (*parts["training"], *parts["resolution"]))
    assert [row["form"] for row in parts["resolution"]] == ["InLine", "softmax"] * 2
    assert all(row["share_of_bandwidth"] > 0 for row in parts["attention"])


def test_the_benchmark_of_gpus_says_where_there_is_none_and_what_it_left_out(monkeypatch, tmp_path, capsys):
    gpu = load("gpu", monkeypatch)
    monkeypatch.setattr(gpu.Paddle, "sees_a_gpu", staticmethod(lambda: False))
    monkeypatch.setattr(gpu.Torch, "sees_a_gpu", staticmethod(lambda: False))
    assert gpu.main([]) == 1
    said = capsys.readouterr().out
    assert said.startswith("COULD NOT RUN: paddle sees no GPU, torch sees no GPU; --device cpu --small")
    assert said.count("\n") == 1
    monkeypatch.setattr(gpu.sys.modules["common"], "RESULTS", tmp_path)
    small = ["--framework", "paddle", "--device", "cpu", "--small"]
    assert gpu.main([*small, "--seconds", "1e-9"]) == 1
    facts = json.loads((tmp_path / "gpu_small.json").read_text())
    assert facts["could_not_run"][-1].endswith("no time was left")


def test_the_benchmark_of_gpus_names_the_package_that_is_missing(monkeypatch, capsys):
    gpu = load("gpu", monkeypatch)
    monkeypatch.setitem(gpu.sys.modules, "torch", None)
    assert gpu.main(["--framework", "torch", "--device", "cpu", "--small"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("COULD NOT RUN: torch cannot be imported (") and "--small" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch-size", "0"], "--batch-size: 0 is not above 0"),
        (["--sizes", "224", "-1"], "--sizes: -1 is not above 0"),
        (["--seconds", "nan"], "--seconds: nan is not above 0"),
        (["--batch-size", "two"], "--batch-size: invalid whole number value: 'two'"),
        (["--small", "--models", "inline_deit_tiny"], "--small has a model, sizes and a batch of its own"),
    ],
)
def test_arguments_that_measure_nothing_are_refused(monkeypatch, capsys, arguments, said):
    gpu = load("gpu", monkeypatch)
    with pytest.raises(SystemExit, match="2"):
        gpu.main(arguments)
    assert said in capsys.readouterr().err


def test_the_benchmark_of_gpus_notices_a_wrong_result(monkeypatch):
    gpu = load("gpu", monkeypatch)
    ones = np.ones(3)
    assert gpu.error(ones * 1.5, ones) == 0.5 and gpu.error(ones * np.nan, ones) == float("inf")

    class Wrong:
        def model(self, name, **more):
            return type("Model", (), {"eval": lambda self: None})()

        def in_float64(self, model):
            return model

        def moved(self, model):
            self.there = True
            return model

        def tensor(self, array, host=False):
            return array

        def gradients(self, model, images, labels, dtype):
            return ones * (1.001 if hasattr(self, "there") else 1.0), ones

    found = gpu.parity(Wrong(), "m", ["float64", "float32", "bfloat16"], 8)
    assert {row["dtype"]: row["passed"] for row in found} == {
        "float64": False,
        "float32": False,
        "bfloat16": True,
    }


def test_parts_of_the_benchmark_of_gpus_are_chosen(monkeypatch, tmp_path):
    pytest.importorskip("torch")
    gpu = load("gpu", monkeypatch)
    monkeypatch.setattr(gpu.sys.modules["common"], "RESULTS", tmp_path)
    small = ["--framework", "torch", "--device", "cpu", "--small", "--parts"]
    assert gpu.main([*small, "inference", "parity"]) == 0
    rows = json.loads((tmp_path / "gpu_small.json").read_text())["rows"]
    assert {row["part"] for row in rows} == {"inference", "parity"}


def fused_kernels(*arguments, **environment):
    return subprocess.run(
        [sys.executable, BENCHMARKS / "gpu_fused.py", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_the_fused_kernels_say_what_they_need():
    pytest.importorskip("torch")
    run = fused_kernels(CUDA_VISIBLE_DEVICES="")
    lines = [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("COULD NOT RUN")]
    assert run.returncode == 1 and len(lines) == 1 and "Traceback" not in run.stderr
    assert "triton is missing" in lines[0] or "PyTorch sees no GPU" in lines[0]


def test_kernels_whose_names_begin_alike_are_all_counted(monkeypatch):
    pytest.importorskip("torch")
    stand_in = SimpleNamespace(jit=lambda function: function)
    monkeypatch.setitem(sys.modules, "triton", stand_in)
    monkeypatch.setitem(sys.modules, "triton.language", stand_in)
    stand_in.language = stand_in

    def event(name, microseconds, device="CUDA", annotation=False):
        return SimpleNamespace(
            key=name,
            self_device_time_total=microseconds,
            device_type=SimpleNamespace(name=device),
            is_user_annotation=annotation,
        )

    long = "void at::native::vectorized_layer_norm_kernel<float, " * 2
    events = [
        event(long + "a", 3e3),
        event(long + "b", 6e3),
        event("c", 9e3, "CPU"),
        event("d", 9e3, annotation=True),
    ]
    spent, longest = load("gpu_fused", monkeypatch).of_kernels(events, 3)
    assert spent == 3.0 and longest == [(long[:80], 2.0), (long[:80], 1.0)]


def test_the_fused_kernels_compute_the_attention_and_its_gradients():
    """In Triton's interpreter, where there is Triton."""
    pytest.importorskip("torch")
    pytest.importorskip("triton")
    run = fused_kernels("--small", TRITON_INTERPRET="1")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("True") == 2
