"""Python in a process of its own: it finds the package, and its end is reported, not shared."""

import subprocess

import pytest

from paddle_inline.utils.child import run_python


def test_it_finds_the_package_and_its_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run_python("import sys, paddle_inline.utils.errors; print(sys.argv[1:])", tmp_path, 3)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"[{str(tmp_path)!r}, '3']\n"


def test_its_death_is_reported():
    assert run_python("import os; os.kill(os.getpid(), 11)").returncode == -11
    assert "ValueError: no" in run_python("raise ValueError('no')").stderr
    with pytest.raises(subprocess.TimeoutExpired):
        run_python("import time; time.sleep(9)", timeout=0.5)
