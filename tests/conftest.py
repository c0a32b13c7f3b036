"""For every test: a seeded start, a CPU, no network, and torch only where a test asks for it.

`-n auto` runs them in parallel workers (pytest-xdist), each with its share of the cores.

Where torch is not installed, a test file that needs it to be imported is skipped, and so is a single test
that comes upon it later: the Paddle half of the suite runs on Paddle alone.
"""

import ast
import importlib.util
import os
import random
import re
import socket
import sys
from pathlib import Path

import pytest

from paddle_inline.utils.environment import available_cores, tune_cpu

# Before anything imports Paddle, torch or numpy: a worker of pytest-xdist takes its share of the cores, and what
# it starts inherits that.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
TUNED = tune_cpu(workers=WORKERS)
if WORKERS > 1:  # an engine's threads that have nothing to do leave the cores to the other workers
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
WORKER_MEMORY = 4 << 30  # bytes

NEEDS_TORCH = {"timm", "torch", "torch_ref", "torchvision"}
HAS_TORCH = importlib.util.find_spec("torch") is not None
NO_TORCH = re.compile(rf"No module named '({'|'.join(NEEDS_TORCH)})\b")

os.environ.setdefault("MPLBACKEND", "Agg")


def imported_packages(path):
    """The top-level packages that a source file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def pytest_configure(config):
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if getattr(config.option, "tx", None) and not hasattr(config, "workerinput"):
        for name in TUNED:  # of the process that only hands out tests: its workers choose for themselves
            os.environ.pop(name, None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Return the number of workers of `-n auto`: one for each core that has 4 GiB of memory, or 0 (no xdist) for 1."""
    workers = min(available_cores(), available_memory() // WORKER_MEMORY)
    return workers if workers > 1 else 0


def available_memory(limit="/sys/fs/cgroup/memory.max"):
    """Return the machine's memory in bytes, or a container's share of it."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(memory, int(Path(limit).read_text(encoding="utf-8")))
    except (OSError, ValueError):  # no such limit, or "max"
        return memory


# A minute each: begun first, so that no worker is left alone with one at the end.
SLOWEST = {"test_train_paddle", "test_export", "test_notebooks", "test_readme", "test_ranks"}
SLOWEST.add("test_kill_and_fail")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in SLOWEST)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    broken = report.failed and isinstance(collector, pytest.Module)
    if broken and not HAS_TORCH and NO_TORCH.search(str(report.longrepr)):
        report.outcome, report.result = "skipped", []
        report.longrepr = (str(collector.path), 0, "Skipped: torch is not installed")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call():
    try:
        return (yield)
    except ModuleNotFoundError as error:
        if HAS_TORCH or not NO_TORCH.search(str(error)):
            raise
        pytest.skip("torch is not installed")


def pytest_pycollect_makemodule(module_path):
    if HAS_TORCH and imported_packages(module_path) & {*NEEDS_TORCH, "convert"}:
        from benchmarks.torchvision_operators import declare

        declare()


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, and leaves the default dtypes as it found them."""
    import numpy as np

    random.seed(0)
    np.random.seed(0)
    frameworks = [sys.modules[name] for name in ("paddle", "torch") if name in sys.modules]
    dtypes = [framework.get_default_dtype() for framework in frameworks]
    for framework in frameworks:
        (framework.seed if framework.__name__ == "paddle" else framework.manual_seed)(0)
    yield
    for framework, dtype in zip(frameworks, dtypes):
        framework.set_default_dtype(dtype)


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """A test that talks to another machine fails, and says whom it called."""
    connect = socket.socket.connect

    def connect_here(self, address):
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in ("localhost", "127.0.0.1", "::1", "0.0.0.0"):
            raise AssertionError(f"a test called {host}; tests use no network")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        yield
