"""What tests/conftest.py promises to every test."""

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
DRAWN = []


@pytest.mark.parametrize("time", [1, 2])
def test_every_test_starts_from_the_same_random_state(time):
    DRAWN.append((random.random(), np.random.rand(), paddle.rand([1]).item()))
    assert DRAWN[0] == DRAWN[-1]
    paddle.set_default_dtype("float64")  # which the next time does not see


def test_a_default_dtype_does_not_outlive_its_test():
    assert paddle.get_default_dtype() == "float32"


def test_no_test_reaches_the_network():
    with pytest.raises(AssertionError, match=r"called 192\.0\.2\.1"):
        socket.create_connection(("192.0.2.1", 80))


def test_tests_run_on_the_cpu():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def run_without_torch(folder, **files):
    """pytest on these files, with the project's conftest, in a Python that finds no torch."""
    (folder / "conftest.py").write_text(CONFTEST.read_text(encoding="utf-8"))
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    code = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
class Hidden:
    def find_spec(self, name, *rest):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Hidden())
import pytest
sys.exit(pytest.main(["-q", "-rs", "-p", "no:cacheprovider", "."]))
"""
    path = os.pathsep.join([str(CONFTEST.parents[1]), str(folder)])
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True)


def test_without_torch_what_needs_it_is_skipped_and_the_rest_runs(tmp_path):
    done = run_without_torch(
        tmp_path,
        test_top="import torch\n\ndef test_a(): pass",
        helper="import torch",
        test_through_a_helper="import helper\n\ndef test_b(): pass",
        test_inside="def test_c():\n    import torch\n\ndef test_d(): pass",
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed, 3 skipped" in done.stdout


def test_without_torch_another_missing_module_is_still_an_error(tmp_path):
    done = run_without_torch(
        tmp_path, test_top="import torchh_typo", test_in="def test_a():\n    import nothing"
    )
    assert done.returncode != 0
    assert "skipped" not in done.stdout
