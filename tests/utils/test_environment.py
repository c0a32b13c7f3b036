"""The CPU's switches: set before Paddle is imported, never over the user's own choice."""

import os
import subprocess
import sys

import pytest

from paddle_inline.utils import environment as runtime


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "FLAGS_use_stride_kernel"):
        monkeypatch.setenv(name, "before")  # so that monkeypatch puts back what a test leaves
        monkeypatch.delenv(name)


def test_what_is_set_on_amd_and_elsewhere(monkeypatch):
    monkeypatch.setattr(runtime, "available_cores", lambda: 6)
    monkeypatch.setattr(runtime, "cpu_vendor", lambda: "AuthenticAMD")
    done = runtime.tune_cpu(workers=2)
    assert done == {
        "OMP_NUM_THREADS": "3",
        "FLAGS_use_stride_kernel": "0",
        "MKL_DEBUG_CPU_TYPE": "5",
    }
    assert {name: os.environ[name] for name in done} == done


def test_another_vendor_gets_no_amd_switch(monkeypatch):
    monkeypatch.setattr(runtime, "cpu_vendor", lambda: "GenuineIntel")
    assert "MKL_DEBUG_CPU_TYPE" not in runtime.tune_cpu()


def test_the_user_decides_first(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "OMP_NUM_THREADS" not in runtime.tune_cpu()
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_more_workers_than_cores_still_get_a_thread(monkeypatch):
    monkeypatch.setattr(runtime, "available_cores", lambda: 2)
    assert runtime.tune_cpu(workers=8)["OMP_NUM_THREADS"] == "1"
    with pytest.raises(ValueError, match="workers is 0"):
        runtime.tune_cpu(workers=0)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("3.3.1", (3, 3, 1)), ("2.10.0rc1", (2, 10, 0)), ("0.0.0+cpu", (0, 0, 0)), ("x", ())],
)
def test_versions_are_numbers(text, numbers):
    assert runtime.parse_version(text) == numbers


def test_the_vendor_is_read_from_a_file(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nvendor_id : AuthenticAMD\n")
    assert runtime.cpu_vendor(str(tmp_path / "cpuinfo")) == "AuthenticAMD"
    assert runtime.cpu_vendor(str(tmp_path / "none")) == ""


def test_it_comes_before_paddle():
    code = "import paddle_inline.utils.environment, sys; assert 'paddle' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_paddle_is_imported_without_its_remarks():
    code = """
import os, sys, warnings
os.environ["OMP_NUM_THREADS"] = "2"
from paddle_inline.utils.environment import import_paddle
assert import_paddle() is sys.modules["paddle"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_else_paddle_says_is_passed_on(tmp_path):
    (tmp_path / "paddle.py").write_text(
        "import sys\n"
        "print('OMP_NUM_THREADS set to 2', file=sys.stderr)\n"
        "print('no driver', file=sys.stderr)\n"
        "raise ImportError('broken')\n"
    )
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    code = f"{path}\nfrom paddle_inline.utils import environment"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nenvironment.import_paddle()"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "no driver" in done.stderr and "ImportError: broken" in done.stderr
    assert "OMP_NUM_THREADS" not in done.stderr


class FakeLibrary:
    """Records what mallopt is told."""

    def __init__(self):
        self.told = []

    def mallopt(self, parameter, value):
        self.told.append((parameter, value))
        return 1


@pytest.fixture
def library(monkeypatch):
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    fake = FakeLibrary()
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: fake)
    return fake


def test_freed_memory_is_kept(library):
    assert runtime.keep_freed_memory()
    assert library.told == [(-1, -1), (-4, 0)]  # M_TRIM_THRESHOLD: never; M_MMAP_MAX: none


def test_the_user_decides_first_about_memory(library, monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    assert not runtime.keep_freed_memory()
    assert library.told == []


def test_memory_is_left_to_other_libraries_than_glibc(library, monkeypatch):
    monkeypatch.delattr(FakeLibrary, "mallopt")
    assert not runtime.keep_freed_memory()

    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(runtime.ctypes, "CDLL", missing)
    assert not runtime.keep_freed_memory()
