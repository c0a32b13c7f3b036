"""python -m paddle_inline: what it prints, and what a user's mistake looks like."""

import os
import subprocess
import sys
from pathlib import Path

import paddle
import pytest
from PIL import Image

from paddle_inline import create_model, list_models
from paddle_inline.cli import main as cli
from paddle_inline.cli.list import disagreements
from paddle_inline.models.spec import Published
from paddle_inline.utils.flops import Profile

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "paddle_inline", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_list_shows_every_model_with_published_and_built_figures(capsys):
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("  ") and line.split()}
    assert set(list_models()) <= set(rows)
    assert rows["inline_pvt_tiny"] == ["224", "12.0", "12.032", "2.0", "1.975", "78.2"]
    assert rows["inline_swin_base_384"] == ["384", "-", "88.465", "-", "46.196", "-"]
    assert rows["soft_small"] == ["224", "24", "38.858", "3.3", "7.397", "82.2"]  # as docs/models.md
    notes = [line for line in lines if "configuration builds" in line]
    assert (
        "  soft_small: published 3.3 GMACs, its configuration builds 7.717, 7.397 by fewer products here"
        in notes
    )
    assert "  inline_cswin_tiny: published 25 M parameters, its configuration builds 20.605" in notes
    assert not any("inline_deit" in line or "inline_swin" in line for line in notes)


def test_list_measures(capsys, monkeypatch):
    monkeypatch.setattr("paddle_inline.models.factory.list_models", lambda pattern: ["inline_deit_digits"])
    assert cli.main(["list", "--measure"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "inline_deit_digits" in line)
    assert row.split() == ["inline_deit_digits", "32", "-", "-", "-", "-", "-", "0.252", "0.014"]


def test_info_shows_settings_cost_and_decay_groups(capsys):
    assert cli.main(["info", "inline_deit_digits"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["embed_dim", "64"] in rows
    assert ["M", "parameters", "0.252", "-", "-"] in rows
    assert any(row[-2:] == ["4,224", "no"] and "cls_token" in " ".join(row) for row in rows)
    assert ["all", "tensors", "of", "the", "state", "dict", "72"] in rows


def test_what_counts_as_a_disagreement():
    figures = Published(30.0, 29.224, 1.9, 2.221, None)
    assert disagreements("m", figures) == ["m: published 1.9 GMACs, its configuration builds 2.221"]
    assert disagreements("m", Published()) == []
    counted = Profile(29_224_000, {"Linear": 2_100_000_000})
    assert disagreements("m", Published(29.2, 29.224, 1.9, None, None), counted) == [
        "m: published 1.9 GMACs, counted 2.100"
    ]


def test_a_mistake_is_one_message_and_exit_code_2():
    done = run("info", "inline_deit_tny")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: unknown model 'inline_deit_tny'; did you mean 'inline_deit_tiny'?")


def test_a_mistake_shows_its_origin_when_asked():
    with pytest.raises(ValueError, match="inline_deit_tny"):
        cli.main(["--traceback", "info", "inline_deit_tny"])


@pytest.mark.parametrize("arguments", [["lst"], [], ["info"], ["list", "--mesure"]], ids=" ".join)
def test_a_wrong_call_says_how_to_call(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: python -m paddle_inline" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "paddle_inline", "list"],
            cwd=ROOT,
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (0, "")


def broken_import(module, error):
    """__import__, but for one module, which raises."""
    working = __import__

    def broken(name, *rest):
        if name == module:
            raise error
        return working(name, *rest)

    return broken


def test_without_paddle_the_message_says_what_to_install(monkeypatch, capsys):
    missing = ModuleNotFoundError("No module named 'paddle'", name="paddle")
    monkeypatch.setattr("builtins.__import__", broken_import("models.factory", missing))
    assert cli.main(["list"]) == 2
    assert "install PaddlePaddle" in capsys.readouterr().err


FAULTS = {  # Paddle's own errors are often ValueError or OSError, which a user's mistake may be too
    "shape": ("ValueError", "paddle.matmul(paddle.ones([2, 3]), paddle.ones([2, 3]))"),
    "operating system": ("OSError", "raise OSError('CUDA error 2')"),
    "value": ("ValueError", "raise ValueError('InvalidArgument')"),
}
PLANTED = """
import sys
from paddle_inline.utils.environment import import_paddle, tune_cpu
tune_cpu()
paddle = import_paddle()
from paddle_inline.cli.main import main
from paddle_inline.models.inline_deit import InLineDeiT
def planted_fault(self, x):
    {code}
InLineDeiT.forward = planted_fault
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_model_keeps_its_stack(fault, tmp_path):
    kind, code = FAULTS[fault]
    weights, image = tmp_path / "digits.pdparams", tmp_path / "a.png"
    paddle.save(create_model("inline_deit_digits").state_dict(), str(weights))
    Image.new("RGB", (32, 32)).save(image)
    words = ["predict", str(image), "--weights", str(weights), "--model", "inline_deit_digits"]
    done = subprocess.run(
        [sys.executable, "-c", PLANTED.format(code=code), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "in planted_fault" in done.stderr and f"\n{kind}: " in done.stderr


def test_every_command_explains_itself(capsys):
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit):
            cli.main([name, "--help"])
        assert len(capsys.readouterr().out.splitlines()) > 3


def test_the_commands_load_no_framework_before_the_cpu_is_tuned():
    code = "import sys, paddle_inline.cli.main; assert not {'paddle', 'torch'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
