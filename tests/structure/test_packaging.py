"""A wheel holds every file of the packages, templates and configs/ included; a source distribution holds the tests."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIST_FILES = """
from pathlib import Path
import setuptools
from distutils.core import run_setup
distribution = run_setup("setup.py", stop_after="config")
build = distribution.get_command_obj("build_py")
build.finalize_options()
for package, module, path in build.find_all_modules():
    print(Path(path).as_posix())
for package, source, target, names in build.data_files:
    for name in names:
        print((Path(source) / name).as_posix())
"""


def wheel_files(root):
    """The files that setuptools would put into a wheel, relative to the project."""
    done = subprocess.run([sys.executable, "-c", LIST_FILES], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def package_files(root):
    """The files of the three packages and of configs/, relative to the project."""
    return {
        path.relative_to(root).as_posix()
        for package in ("paddle_inline", "torch_ref", "convert", "configs")
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_a_wheel_holds_every_file_of_the_packages():
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip("pyproject.toml needs setuptools 77")
    files = package_files(ROOT)
    assert any(file.endswith(".html") for file in files) and "configs/quickstart.yaml" in files
    assert not files - wheel_files(ROOT)


def test_a_file_that_a_wheel_leaves_out_is_seen(tmp_path):
    pytest.importorskip("setuptools")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "a"\nversion = "1"\n[tool.setuptools]\npackages = ["convert"]\n'
    )
    (tmp_path / "setup.py").write_text("import setuptools\nsetuptools.setup()\n")
    (tmp_path / "convert").mkdir()
    for name in ("__init__.py", "page.html"):
        (tmp_path / "convert" / name).touch()
    assert package_files(tmp_path) - wheel_files(tmp_path) == {"convert/page.html"}


def test_a_source_distribution_holds_what_git_has():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("no clone")
    manifest = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").split()
    outside = {"paddle_inline", "torch_ref", "convert", *manifest}
    outside |= {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"}  # always in it
    left_out = {name.split("/")[0] for name in done.stdout.split()} - outside
    assert left_out == {".github", ".gitignore"}  # of a host of repositories


def texts(path):
    """The texts of a file that are no docstrings: each string with its line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield f"{path.name}:{node.lineno}", node.value


def test_messages_name_no_page_that_a_wheel_lacks():
    files = (
        path
        for package in ("paddle_inline", "torch_ref", "convert")
        for path in (ROOT / package).rglob("*.py")
    )
    assert [where for path in files for where, text in texts(path) if "docs/" in text] == []
