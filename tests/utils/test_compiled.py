"""When compiled loops are used, and where there is nothing to compile them with."""

import os
import subprocess
import sys

import pytest

from paddle_inline.utils import compiled
from paddle_inline.utils.environment import parse_version

paddle = pytest.importorskip("paddle")
numba = pytest.mark.skipif(
    parse_version(paddle.__version__) < (3,) or compiled.load("numba") is None,
    reason="needs Numba beside Paddle 3",
)
PROBE = "import paddle; from paddle_inline.ops import kernels; print(kernels.version())"


def probe(code=PROBE, **environment):
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()[-1]


def test_a_pause_ends_as_it_began():
    before = compiled.wanted()
    with compiled.paused():
        with compiled.paused():
            assert not compiled.wanted()
        assert not compiled.wanted()
    assert compiled.wanted() == before


def test_without_numba_there_are_no_loops(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs another NumPy')")
    path = os.pathsep.join([str(tmp_path), *sys.path[1:], os.getcwd()])
    assert probe(PYTHONPATH=path) == "None"


@numba
@pytest.mark.parametrize("switch", [compiled.SWITCH + "=0", "NUMBA_DISABLE_JIT=1"])
def test_switches(switch):
    assert probe(**dict([switch.split("=")])) == "None" and probe() != "None"


@numba
def test_threads_are_those_of_openmp():
    code = PROBE + "; import numba; print(numba.config.NUMBA_NUM_THREADS)"
    os.environ.pop("NUMBA_NUM_THREADS", None)
    assert probe(code, OMP_NUM_THREADS="1") == "1"


@numba
def test_loops_without_a_folder_to_be_kept_in():
    """As in a container whose file system cannot be written."""
    code = """
import os
import numba.core.caching as caching
for name in dir(caching):  # NUMBA_CACHE_DIR, and no other folder
    if "CacheLocator" in name and "UserProvided" not in name and name != "_CacheLocator":
        getattr(caching, name).from_function = classmethod(lambda cls, *rest: None)
import numba
import paddle
from paddle_inline.ops import kernels
print(kernels.gelu(paddle.ones([4])).numpy()[0] > 0.8, os.path.isdir(numba.config.CACHE_DIR))
"""
    assert probe(code) == "True"
