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


def conftest(request):
    return request.config.pluginmanager.get_plugin(str(CONFTEST))


@pytest.mark.parametrize(
    ("cores", "gib", "workers"), [(2, 24, 2), (16, 24, 6), (2, 7, 0), (1, 24, 0), (2, 2, 0), (8, 64, 8)]
)
def test_a_worker_has_a_core_and_4_gib(cores, gib, workers, request, monkeypatch):
    monkeypatch.setattr(conftest(request), "available_cores", lambda: cores)
    monkeypatch.setattr(conftest(request), "available_memory", lambda: gib << 30)
    assert conftest(request).pytest_xdist_auto_num_workers() == workers


def test_memory_is_the_machines_or_a_containers(request, tmp_path):
    whole = conftest(request).available_memory(tmp_path / "none")
    assert whole == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for text, expected in (("max\n", whole), (f"{1 << 30}\n", 1 << 30)):
        (tmp_path / "memory.max").write_text(text)
        assert conftest(request).available_memory(tmp_path / "memory.max") == expected


def run_in_workers(folder, text, *options):
    """pytest with two workers on one file, with the project's conftest."""
    pytest.importorskip("xdist")
    (folder / "conftest.py").write_text(CONFTEST.read_text(encoding="utf-8"))
    (folder / "test_it.py").write_text(text)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", *options, "."]
    env["PYTHONPATH"] = os.pathsep.join([str(CONFTEST.parents[1]), env.get("PYTHONPATH", "")])
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def test_workers_share_the_cores_and_so_does_what_they_start(tmp_path):
    text = """
import os, subprocess, sys
from paddle_inline.utils.environment import available_cores

def test_threads():
    share = str(max(1, available_cores() // 2))
    assert os.environ["OMP_NUM_THREADS"] == share
    code = "import os; print(os.environ['OMP_NUM_THREADS'])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == [share]
"""
    done = run_in_workers(tmp_path, text)
    assert "1 passed" in done.stdout, done.stdout


def test_what_fails_dies_or_hangs_in_a_worker_is_told_by_name(tmp_path):
    text = """
import os, time

def test_fails():
    assert [1, 2] == [1, 3]

def test_dies():
    os._exit(3)

def test_hangs():
    time.sleep(100)
"""
    options = ("-o", "faulthandler_timeout=2", "-o", "faulthandler_exit_on_timeout=true")
    done = run_in_workers(tmp_path, text, *options)
    assert done.returncode == 1 and "3 failed" in done.stdout, done.stdout
    assert "assert [1, 2] == [1, 3]" in done.stdout and "At index 1 diff: 2 != 3" in done.stdout
    for name in ("test_dies", "test_hangs"):
        assert f"crashed while running 'test_it.py::{name}'" in done.stdout, done.stdout
    assert "Timeout (0:00:02)!" in done.stderr and "in test_hangs" in done.stderr


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
