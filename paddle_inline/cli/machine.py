"""Facts about this machine for the doctor: versions, cores, memory, what importing Paddle and PyTorch gives.

Paddle and PyTorch are imported in processes of their own, which may die without taking this one along.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, Union

from ..utils.child import run_python
from ..utils.cores import affinity_cores, cpu_quota
from ..utils.environment import cpu_vendor

# Modules that the package needs -> the distributions that have them.
NEEDED = {name: name for name in ("jinja2", "numpy", "omegaconf", "rich", "safetensors")}
NEEDED.update(PIL="pillow", yaml="pyyaml")
# What some commands need -> its distribution, and what for.
OPTIONAL = {
    "scikit-learn": ("scikit-learn", "only the handwritten digits (quickstart) need it"),
    "matplotlib": ("matplotlib", "only figures need it: curves.png, confusion.png ..."),
    "OpenVINO": ("openvino", "the fastest engine on a CPU, of `export --onnx`"),
    "ONNX Runtime": ("onnxruntime", "an engine of `export --onnx`"),
    "paddle2onnx": ("paddle2onnx", "only `export --onnx` needs it"),
    "Numba": ("numba", "trains faster on a CPU: compiles what Paddle does slowly"),
    "NNCF": ("nncf", "only `export --int8` needs it"),
    "hub": ("huggingface_hub", "only models of the Hugging Face hub need it"),
    "Ray": ("ray", "only predicting on several machines needs it"),
}
PADDLE_PROBE = """
import json, paddle
x = paddle.ones([2, 2])
assert paddle.matmul(x, x).sum().item() == 8
try:
    one = float(paddle.ones([1]))
except TypeError:
    one = None
print(json.dumps({"version": paddle.__version__, "device": paddle.device.get_device(),
    "cuda": paddle.is_compiled_with_cuda(), "gpus": paddle.device.cuda.device_count(), "float": one}))
"""
TORCH_PROBE = """
import json, sys
import paddle, torch
print(json.dumps({"version": torch.__version__, "file": torch.__file__ or "",
    "real": not isinstance(torch.zeros([1]), paddle.Tensor)}))
"""
# What a probe printed, the text of its error, or None: not installed.
Probe = Union[dict[str, Any], str, None]


@dataclass(frozen=True)
class Machine:
    """What was read.

    Attributes:
        python: version of this Python.
        versions: {distribution: version} of what is installed.
        missing: needed modules that are not installed.
        paddle, torch, torchvision: what importing each in another process gave.
        proxied: whether `import torch` means Paddle in this very process.
        environ: the environment variables.
        cores: those of this process's affinity mask.
        quota: the container's or service's share of the cores, None without a limit.
        vendor: of the processor.
        shm: bytes of shared memory; None: the system has none of this kind.
        nvidia: whether the machine has an NVIDIA driver.
        system: "linux", "darwin" (macOS), "win32" (Windows) or another of `sys.platform`.
    """

    python: tuple[int, ...] = sys.version_info[:3]
    versions: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    paddle: Probe = None
    torch: Probe = None
    torchvision: Probe = None
    proxied: bool = False
    environ: dict[str, str] = field(default_factory=dict)
    cores: int = 1
    quota: float | None = None
    vendor: str = ""
    shm: int | None = None
    nvidia: bool = False
    system: str = "linux"


def examine() -> Machine:
    """Read everything about this machine. It takes seconds: Paddle and PyTorch are imported elsewhere."""
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            versions.setdefault(name.lower(), distribution.version)
    return Machine(
        versions=versions,
        missing=tuple(name for name in NEEDED if importlib.util.find_spec(name) is None),
        paddle=probe("paddle", PADDLE_PROBE),
        torch=probe("torch", TORCH_PROBE),
        torchvision=probe("torchvision", "import torchvision; print('{}')"),
        proxied=any(type(finder).__name__ == "TorchProxyMetaFinder" for finder in sys.meta_path),
        environ=dict(os.environ),
        cores=affinity_cores(),
        quota=cpu_quota(),
        vendor=cpu_vendor(),
        shm=shared_memory(),
        system=sys.platform,
        nvidia=os.path.exists("/dev/nvidia0") or shutil.which("nvidia-smi") is not None,
    )


def probe(module: str, code: str, timeout: float = 300) -> Probe:
    """Return what `code` prints as JSON in a fresh Python, or its error as text; None without `module`."""
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except ValueError:  # a module of this process without a spec
        pass
    try:
        done = run_python(code, timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout} s"
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
    died = f"killed by signal {-done.returncode}; " if done.returncode < 0 else ""
    return died + lines[-1].strip()


def shared_memory(path: str = "/dev/shm") -> int | None:
    """Return the size in bytes of the system's shared memory, None where there is none of this kind."""
    try:
        found = os.statvfs(path)
    except (OSError, AttributeError):
        return None
    return found.f_frsize * found.f_blocks
