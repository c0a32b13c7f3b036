"""For every test: a seeded start, a CPU, no network, and torch only where a test asks for it.

Where torch is not installed, the test files that import it at their top are left out, which the run's
summary says, and a test that comes upon it later is skipped: the Paddle half runs on Paddle alone.
"""

import ast
import functools
import importlib.metadata
import importlib.util
import os
import random
import socket
import sys

import numpy as np
import pytest

from paddle_inline.runtime import tune_cpu

NEEDS_TORCH = {"timm", "torch", "torch_ref", "torchvision"}
HAS_TORCH = importlib.util.find_spec("torch") is not None
left_out = set()

tune_cpu()  # before anything imports Paddle
os.environ.setdefault("MPLBACKEND", "Agg")


def imported_packages(path, anywhere):
    """The top-level packages that a source file imports, at its own top or anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree) if anywhere else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def pytest_configure(config):
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_ignore_collect(collection_path):
    if HAS_TORCH or collection_path.suffix != ".py":
        return None
    if imported_packages(collection_path, anywhere=False) & NEEDS_TORCH:
        left_out.add(collection_path)
        return True
    return None


def pytest_report_collectionfinish():
    return [f"torch is not installed: {len(left_out)} files that need it are left out"] if left_out else []


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call():
    outcome = yield
    error = outcome.excinfo[1] if outcome.excinfo else None
    if isinstance(error, ModuleNotFoundError) and error.name in NEEDS_TORCH and not HAS_TORCH:
        pytest.skip(f"{error.name} is not installed")


def pytest_pycollect_makemodule(module_path):
    if imported_packages(module_path, anywhere=True) & {*NEEDS_TORCH, "convert"}:
        declare_torchvision_operators()


@functools.cache
def declare_torchvision_operators():
    """Let torchvision's GPU build, and so timm, be imported beside a CPU build of torch.

    Its compiled operators find no partner there, and its import fails on the two that it annotates.
    """
    versions = {}
    for name in ("torch", "torchvision"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return
    if versions["torch"].endswith("+cpu") and not versions["torchvision"].endswith("+cpu"):
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        sys.modules[__name__].torchvision_operators = library  # they vanish with the object


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, and leaves the default dtypes as it found them."""
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
