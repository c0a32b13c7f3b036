"""The wheel and the source distribution, built, checked and used as a user of pip does: outside the checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

from tests.data.trees import picture

pytest.importorskip("build")
pytest.importorskip("sklearn")
pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "output", "build", "dist", "log", "*.egg-info")
SETTINGS = (
    "train.epochs=1",
    "train.warmup_epochs=0",
    "data.img_size=16",
    "data.batch_size=256",
    "visualdl=false",
)
SMALL = [f"-o={setting}" for setting in (*SETTINGS, "model.overrides.depth=1")]
RUN = "output/inline_deit_digits/default"
# One process for all, as importing Paddle takes seconds; the scripts themselves are tried apart.
PROGRAM = """
import json, sys
import convert, paddle_inline, torch_ref
from convert.__main__ import main as convert_main
from paddle_inline.cli.main import main

assert all(module.__file__.startswith(sys.prefix) for module in (convert, paddle_inline, torch_ref))
for words in json.load(open("commands.json")):
    program = convert_main if words[0] == "convert" else main
    print(">>>", *words, flush=True)
    code = program(words[1:] if words[0] == "convert" else words)
    assert code == 0 or words == ["doctor"], (words, code)
"""
COMMANDS = [
    ["list", "inline_deit_*"],
    ["configs"],
    ["configs", "quickstart", "--copy", "own.yaml"],
    ["doctor"],
    ["train", "--cfg", "quickstart", *SMALL],
    ["convert", "to-torch", f"{RUN}/best_model.pdparams", "digits.pth"],
    ["export", "--weights", RUN, "--output", "digits"],
    ["predict", "digit.png", "--export", "digits", "--json", "digit.json"],
]


def run(folder, *command):
    """Run a program in a folder without the checkout on its path, and return what it printed."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environ, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """(wheel, source distribution), built of a copy of the tree with the setuptools that is installed."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT, symlinks=True)
    shutil.copytree(ROOT / ".ci", folder / "source" / ".ci")
    shutil.copy(ROOT / ".pre-commit-config.yaml", folder / "source")
    run(
        folder,
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        folder / "dist",
        folder / "source",
    )
    (wheel,), (source,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    return wheel, source


@pytest.fixture(scope="module")
def environment(distributions, tmp_path_factory):
    """The folder of programs of an environment that has the wheel; what it needs comes from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    run(folder, *pip, "--quiet", "--disable-pip-version-check", distributions[0])
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "of_the_tests.pth").write_text(
        "\n".join(places) + "\n"
    )  # .pth files in them are not followed
    return folder / "bin"


def test_the_distributions_pass_the_checkers(distributions):
    for checker in ("twine", "check_wheel_contents"):
        pytest.importorskip(checker)
    run(ROOT, sys.executable, "-m", "twine", "check", "--strict", *distributions)
    run(ROOT, sys.executable, "-m", "check_wheel_contents", distributions[0])


def test_the_source_distribution_has_what_make_test_needs(distributions):
    with tarfile.open(distributions[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {
        "Makefile",
        "train_paddle.py",
        "configs/quickstart.yaml",
        "tests/conftest.py",
        "docs/models.md",
    }
    assert expected <= names and len([name for name in names if name.startswith("tests/golden/")]) > 10


def test_a_user_of_the_wheel_trains_converts_exports_and_predicts(environment, tmp_path):
    assert "paddle_inline 0." in run(tmp_path, environment / "paddle-inline", "--version")
    assert "to-paddle" in run(tmp_path, environment / "paddle-inline-convert", "--help")
    picture(3).save(tmp_path / "digit.png")
    (tmp_path / "commands.json").write_text(json.dumps(COMMANDS))
    (tmp_path / "program.py").write_text(PROGRAM)
    said = run(tmp_path, environment / "python", "program.py")
    assert "semantic_fpn_inline_pvt_tiny_40k" in said and "inline_deit_tiny" in said
    assert f"settings: {environment.parent}" in said and (tmp_path / "digits.pth").is_file()
    assert (tmp_path / "own.yaml").read_text() == (ROOT / "configs" / "quickstart.yaml").read_text()
    assert len(json.loads((tmp_path / "digit.json").read_text())["images"]) == 1
    assert "-e ." not in said and "train_paddle.py" not in said  # which a wheel has not got
