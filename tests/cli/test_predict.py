"""python -m paddle_inline predict: tables, JSON, pages, and what a user's mistake looks like."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_inline import create_model
from paddle_inline.cli import predict
from paddle_inline.cli.output import stdout_to_null
from paddle_inline.inference.export import export_model
from paddle_inline.utils.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export_model(create_model("inline_deit_digits", depth=1), folder, log=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i, name in enumerate(("a.png", "b.JPG", "c.png")):
        pixels = np.random.RandomState(i).randint(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def call(*words):
    parser = argparse.ArgumentParser()
    predict.add_arguments(parser)
    return predict.run(parser.parse_args([str(word) for word in words]))


def test_the_command_writes_table_json_and_page(exported, photos, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_text("not an image")
    out, html = tmp_path / "o.json", tmp_path / "o.html"
    code = call(photos, bad, "--export", exported, "--topk", 2, "--json", out, "--html", html)
    output = capsys.readouterr()
    assert code == 1 and "bad.png cannot be read" in output.err
    assert "a.png" in output.out and "ReduceMean" not in output.out
    answers = json.loads(out.read_text())
    assert [len(row["classes"]) for row in answers["images"]] == [2, 2, 2]
    assert html.read_text().count("<figure>") == 3
    assert call(photos / "a.png", "--export", exported, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["model"] == "inline_deit_digits"


def test_the_command_wants_a_model(photos):
    with pytest.raises(ValueError, match="needs --export DIR, or --weights"):
        call(photos)


def test_a_page_without_jinja2_is_refused_before_anything_runs(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UserError, match="pip install jinja2"):
        call(photos, "--export", "nowhere", "--html", "page.html")


def test_standard_output_is_json_alone(exported, photos):
    """Paddle's kernels print at their first run, which the program keeps out of its own output."""
    command = [sys.executable, "-m", "paddle_inline", "predict", str(photos), "--export", str(exported)]
    done = subprocess.run([*command, "--json", "-"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["images"]) == 3


def test_the_process_s_output_is_silenced_for_a_while(capfd):
    with stdout_to_null():
        os.write(1, b"from C++")
    print("after")
    assert capfd.readouterr().out == "after\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--topk", 0), "--topk and --batch-size start at 1"),
        (("--device", "gpux"), "device 'gpux' must be cpu, gpu or gpu:N"),
        (("--json", "nowhere/o.json"), r"nowhere/o\.json cannot be written: No such file or directory"),
        (("--classes", "nowhere"), "no file nowhere"),
        (("--model", "soft_tiny"), "exclude each other"),
    ],
)
def test_a_mistake_is_a_users_error(exported, photos, words, message):
    with pytest.raises(UserError, match=message):
        call(photos, "--export", exported, *words)
