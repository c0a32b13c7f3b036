"""python -m paddle_inline bench: its figures, engines that fail, and what a user's mistake looks like."""

import json
import re

import pytest

from paddle_inline.cli import bench
from paddle_inline.cli.main import main
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
        (["--export", "nowhere"], r"no card\.json in nowhere"),
        (["--model", "soft_digits", "--rounds", "0"], "start at 1"),
        (["--model", "soft_digits", "--device", "tpu"], "device 'tpu' must be"),
    ],
)
def test_a_mistake_is_one_line(words, message, capsys):
    assert main(["bench", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.search(f"^error: .*{message}", lines[0])
