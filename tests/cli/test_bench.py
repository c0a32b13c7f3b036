"""python -m paddle_inline bench: its figures, engines that fail, and what a user's mistake looks like."""

import json
import re

import pytest

from paddle_inline.cli import bench
from paddle_inline.cli.main import main
from paddle_inline.inference import int8
from paddle_inline.utils.errors import MissingPackageError

QUICK = ["bench", "--model", "inline_deit_digits", "--batch-size", "2", "--rounds", "1", "--engines"]


def test_engines_are_timed(tmp_path, capfd):
    path = tmp_path / "figures.json"
    assert main([*QUICK, "eager", "paddle", "--json", str(path)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["eager", "2"],
        ["paddle", "2"],
    ]  # no line of Paddle's
    facts = json.loads(path.read_text())
    assert facts["model"] == "inline_deit_digits" and facts["failed"] == {}
    assert all(row["seconds"]["median"] > 0 for row in facts["rows"])


@pytest.mark.parametrize(
    ("error", "traces"), [(MissingPackageError("no OpenVINO"), 0), (RuntimeError("first\nkernel missing"), 1)]
)
def test_an_engine_that_fails_leaves_the_others(monkeypatch, capsys, error, traces):
    def broken(*given):
        raise error

    monkeypatch.setattr(bench, "CompiledEngine", broken)
    assert main([*QUICK, "eager", "compiled"]) == 1
    output = capsys.readouterr()
    assert output.out.splitlines()[1].startswith("eager")
    assert f"COULD NOT RUN compiled: {str(error).splitlines()[-1]}" in output.err
    assert output.err.count("Traceback") == traces


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "either --model NAME or --export DIR"),
        (["--model", "soft_tiny", "--export", "a"], "either --model NAME or --export DIR"),
        (["--export", "a", "--engines", "eager"], "use --model"),
        (
            ["--model", "soft_digits", "--engines", "openvino-int8"],
            "`export --int8` wrote: give its folder, --export",
        ),
        (["--export", "nowhere"], r"no card\.json in nowhere"),
        (["--model", "soft_digits", "--rounds", "0"], "start at 1"),
        (["--model", "soft_digits", "--device", "tpu"], "device 'tpu' must be"),
    ],
)
def test_a_mistake_is_one_line(words, message, capsys):
    assert main(["bench", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.search(f"^error: .*{message}", lines[0])


@pytest.fixture
def export(tmp_path):
    """The function (entries) -> the folder of an export, of a card alone, with those entries."""

    def written(**entries):
        card = {
            "format": 1,
            "model": "inline_deit_digits",
            "num_classes": 10,
            "classes": None,
            "preprocessing": {
                **{"img_size": 8, "mean": [0.0] * 3, "std": [1.0] * 3},
                **{"interpolation": "bilinear", "crop": False},
            },
            "input": {"shape": [None, 3, 8, 8]},
            "files": {"program": "model.json", "params": "model.pdiparams", "onnx": "model.onnx"},
            "onednn": True,
        }
        card["files"].update(entries.pop("files", {}))
        (tmp_path / "card.json").write_text(json.dumps({**card, **entries}))
        return tmp_path

    return written


@pytest.mark.parametrize(
    ("rest", "native", "taken"), [("fp32", True, "fp32"), ("bf16", True, "bf16"), ("bf16", False, "fp32")]
)
def test_an_export_s_int8_program_runs_as_its_card_says(export, monkeypatch, capsys, rest, native, taken):
    given = []

    def engine(*words):
        given.append(words)
        return lambda images: images

    monkeypatch.setattr(bench, "OpenVinoEngine", engine)
    monkeypatch.setattr(int8, "multiplies_bfloat16", lambda: native)
    monkeypatch.setattr(int8, "multiplies_int8", lambda: True)
    files = {"int8": "model-int8.xml", "int8_weights": "model-int8.bin"}
    folder = export(files=files, int8={"rest": rest})
    words = ["--batch-size", "2", "--rounds", "1", "--threads", "3", "--engines", "openvino-int8", "openvino"]
    assert main(["bench", "--export", str(folder), *words]) == 0
    assert given == [(folder / "model-int8.xml", 3, taken), (folder / "model.onnx", 3, "fp32")]
    printed = capsys.readouterr()
    assert ("what is not in int8 runs in float32" in printed.err) is (rest != taken)
    lines = printed.out.splitlines()
    assert [line.split()[0] for line in lines] == ["engine", "openvino-int8", "openvino"]


def test_an_export_without_an_int8_program_is_a_mistake(export, capsys):
    folder = export()
    assert main(["bench", "--export", str(folder), "--engines", "openvino", "openvino-int8"]) == 2
    assert capsys.readouterr().err == (
        f"error: {folder} holds no int8 program: `python -m paddle_inline export --weights FILE --output {folder} "
        "--dynamic-batch --int8 --calibrate PICTURES` writes one\n"
    )
