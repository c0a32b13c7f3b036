"""Is this machine fit to run everything here? Each bad finding comes with the line that mends it.

Everything is read first (`examine`), Paddle and torch in processes of their own, which may die without
taking this one along; the checks are functions of what was read.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import locale
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

from ..utils import environment as runtime

OK, WARN, FAIL = "OK", "WARN", "FAIL"
PYTHONS = (3, 9), (3, 13)  # the oldest and newest that Paddle 3.3 has wheels for
NEEDED = ("numpy", "omegaconf", "PIL", "rich", "safetensors", "yaml")
PADDLES = ("paddlepaddle", "paddlepaddle-gpu")  # distributions of one and the same package
INSTALL_PAGE = "https://www.paddlepaddle.org.cn/en/install/quick"
LEAST_SHM = 1 << 30  # bytes; what the loader's workers hand over at 224 pixels fits many times

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
# What a failed import says -> what mends it.
KNOWN_ERRORS = {
    "libgomp": "apt install libgomp1",
    "setuptools": "pip install setuptools",
    "distutils": "pip install setuptools",
    "numpy.core.multiarray": "pip install 'numpy<2'",
    "compiled using NumPy 1": "pip install 'numpy<2'",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: str
    subject: str
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Machine:
    """What was read. A probe is what the other process printed, or the text of its error.

    Attributes:
        python: version of this Python.
        versions: {distribution: version} of what is installed.
        missing: needed modules that are not.
        paddle, torch, torchvision: probes; None: not installed.
        proxied: whether `import torch` means Paddle in this very process.
        environ: the environment variables.
        cores, quota: cores this process may use; the container's share of them, or None.
        vendor: the processor's.
        shm: bytes of shared memory; None: the system has none of this kind.
        nvidia: whether the machine has an NVIDIA driver.
        language: of the user, such as en_US.
    """

    python: tuple = sys.version_info[:3]
    versions: dict = field(default_factory=dict)
    missing: tuple = ()
    paddle: dict | str | None = None
    torch: dict | str | None = None
    torchvision: dict | str | None = None
    proxied: bool = False
    environ: dict = field(default_factory=dict)
    cores: int = 1
    quota: float | None = None
    vendor: str = ""
    shm: int | None = None
    nvidia: bool = False
    language: str = "en"


# ---------------------------------------------------------------- reading


def examine():
    """Read everything about this machine: a Machine. Takes seconds: it imports Paddle and torch elsewhere."""
    versions = {}
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
        cores=runtime.available_cores(),
        quota=cpu_quota(),
        vendor=runtime.cpu_vendor(),
        shm=shared_memory(),
        nvidia=os.path.exists("/dev/nvidia0") or shutil.which("nvidia-smi") is not None,
        language=locale.getlocale()[0] or "",
    )


def probe(module, code, timeout=300):
    """What `code` prints as JSON in a fresh Python, or its error as text; None: `module` is not installed."""
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except ValueError:  # a module of this process without a spec
        pass
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout} s"
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    said = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
    died = f"killed by signal {-done.returncode}; " if done.returncode < 0 else ""
    return died + said[-1].strip()


def cpu_quota(path="/sys/fs/cgroup/cpu.max"):
    """The cores that this container may use at a time, by its control group; None: no limit is known."""
    try:
        with open(path, encoding="ascii") as file:
            quota, period = file.read().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def shared_memory(path="/dev/shm"):
    """The size in bytes of the system's shared memory, or None where there is none of this kind."""
    try:
        found = os.statvfs(path)
    except (OSError, AttributeError):
        return None
    return found.f_frsize * found.f_blocks


# ---------------------------------------------------------------- the checks


def check_python(machine):
    version = ".".join(map(str, machine.python))
    oldest, newest = (".".join(map(str, python)) for python in PYTHONS)
    if not PYTHONS[0] <= machine.python[:2] <= PYTHONS[1]:
        fix = f"python{newest} -m venv .venv"
        return Finding(FAIL, "Python", f"{version}: Paddle has wheels for {oldest} to {newest}", fix)
    if machine.missing:
        return Finding(FAIL, "Python", f"{version}, without {', '.join(machine.missing)}", "pip install -e .")
    return Finding(OK, "Python", version)


def check_paddle(machine):
    twice = [name for name in PADDLES if name in machine.versions]
    if len(twice) > 1:
        text = f"{' and '.join(twice)} are both installed and overwrite each other"
        return Finding(
            FAIL, "Paddle", text, f"pip uninstall -y {' '.join(twice)}, then install the one you want"
        )
    if machine.paddle is None:
        fix = f"pip install paddlepaddle==3.3.1 (CPU), or for a GPU as {INSTALL_PAGE} says"
        return Finding(FAIL, "Paddle", "not installed", fix)
    if isinstance(machine.paddle, str):
        return Finding(FAIL, "Paddle", f"cannot be imported: {machine.paddle}", known_fix(machine))
    return Finding(OK, "Paddle", f"{machine.paddle['version']}, default device {machine.paddle['device']}")


def known_fix(machine):
    """What mends an import of Paddle that failed."""
    for words, fix in KNOWN_ERRORS.items():
        if words in machine.paddle:
            return fix
    if (
        machine.versions.get("paddlepaddle", "").startswith("2.")
        and machine.versions.get("numpy", "1") >= "2"
    ):
        return "pip install 'numpy<2'"
    return "python -c 'import paddle', for the whole message; then pip install --force-reinstall paddlepaddle"


def check_device(machine):
    if not isinstance(machine.paddle, dict):
        return None
    if machine.nvidia and not machine.paddle["cuda"]:
        fix = f"pip uninstall -y paddlepaddle, then as {INSTALL_PAGE} says for your CUDA"
        return Finding(WARN, "device", "an NVIDIA GPU is here, but this Paddle is the CPU build", fix)
    if machine.paddle["cuda"] and not machine.paddle["gpus"]:
        return Finding(
            WARN, "device", "the GPU build of Paddle sees no GPU", "nvidia-smi, to see what the driver says"
        )
    return Finding(OK, "device", f"{machine.paddle['gpus']} GPUs" if machine.paddle["cuda"] else "CPU")


def check_numpy(machine):
    version = machine.versions.get("numpy", "missing")
    if isinstance(machine.paddle, dict) and machine.paddle["float"] is None:
        text = f"{version}: float(tensor) of a Paddle tensor of shape [1] fails. Nothing here does that"
        return Finding(WARN, "numpy", text, "in your own code: tensor.item(); or pip install 'numpy<2.4'")
    return Finding(OK, "numpy", version)


def check_onednn(machine):
    if not isinstance(machine.paddle, dict) or machine.paddle["cuda"]:
        return None
    version = machine.paddle["version"]
    if version in ("3.3.0", "3.3.1"):
        text = f"Paddle {version}'s Predictor may crash with oneDNN, which is on by default"
        return Finding(
            WARN, "oneDNN", text, "if it does: config.disable_onednn() on its paddle.inference.Config"
        )
    return Finding(OK, "oneDNN", "no trouble known with this Paddle")


def check_threads(machine):
    usable = min(machine.cores, machine.quota or machine.cores)
    text = machine.environ.get("OMP_NUM_THREADS", "")
    fix = f"export OMP_NUM_THREADS={max(1, int(usable))}"
    if text and not text.isdigit():
        return Finding(WARN, "threads", f"OMP_NUM_THREADS is {text!r}, not a number", fix)
    threads = int(text) if text else machine.cores
    if threads > max(1, usable):
        return Finding(WARN, "threads", f"{threads} threads on {usable:g} cores hinder each other", fix)
    if threads < int(usable):
        return Finding(
            WARN, "threads", f"OMP_NUM_THREADS={threads} leaves {int(usable) - threads} cores idle", fix
        )
    return Finding(OK, "threads", f"{threads} on {usable:g} cores")


def check_blas(machine):
    value = machine.environ.get("MKL_DEBUG_CPU_TYPE")
    if machine.vendor != "AuthenticAMD":
        return Finding(OK, "BLAS", f"no switch needed on {machine.vendor or 'this processor'}")
    if value is None:
        text = "AMD: Paddle's MKL may take its slowest path. The programs here set its switch themselves"
        fix = "in your own, before `import paddle`: paddle_inline.utils.environment.tune_cpu()"
        return Finding(WARN, "BLAS", text, fix)
    if value != "5":
        return Finding(WARN, "BLAS", f"AMD: MKL_DEBUG_CPU_TYPE is {value}", "export MKL_DEBUG_CPU_TYPE=5")
    return Finding(OK, "BLAS", "AMD, MKL_DEBUG_CPU_TYPE=5")


def check_shared_memory(machine):
    if machine.shm is None:
        return Finding(OK, "shared memory", "none of its kind; loaders use pipes")
    size = f"{machine.shm / (1 << 20):,.0f} MiB"
    if machine.shm < LEAST_SHM:
        text = f"{size}: loader workers die of `bus error` when it is full"
        return Finding(
            WARN, "shared memory", text, "docker run --shm-size=8g ..., or train with -o data.num_workers=0"
        )
    return Finding(OK, "shared memory", size)


def check_torch(machine):
    if machine.proxied:
        text = "paddle.enable_compat() was called: `import torch` gives Paddle, to be compared with itself"
        return Finding(FAIL, "torch", text, "paddle.disable_compat(), or a fresh process")
    if machine.torch is None:
        fix = "pip install -e '.[parity]', if you want to convert or verify"
        return Finding(OK, "torch", "not installed; only conversion and its proof need it", fix)
    if isinstance(machine.torch, str):
        if not isinstance(machine.paddle, dict):
            return Finding(WARN, "torch", "not tried: Paddle comes first", "see the line on Paddle")
        text = f"cannot be imported beside Paddle: {machine.torch}"
        fix = "record each framework in an environment of its own: python -m convert record --help"
        return Finding(FAIL, "torch", text, fix)
    if not machine.torch["real"]:
        text = f"`import torch` gives {machine.torch['file']}, which is not PyTorch"
        return Finding(
            FAIL, "torch", text, "remove paddle.enable_compat() from whatever runs at the start of Python"
        )
    return Finding(OK, "torch", machine.torch["version"])


def check_torchvision(machine):
    if machine.torch is None or machine.torchvision is None:
        return Finding(OK, "torchvision", "not installed; only timm needs it")
    if isinstance(machine.torchvision, str):
        fix = "install torch and torchvision in one pip call, from one index (the install page of PyTorch)"
        return Finding(WARN, "torchvision", f"cannot be imported, nor can timm: {machine.torchvision}", fix)
    return Finding(OK, "torchvision", machine.versions.get("torchvision", ""))


def check_visualdl(machine):
    version = machine.versions.get("visualdl")
    if version is None:
        return Finding(OK, "VisualDL", "not installed; metrics.jsonl and curves.png are written anyway")
    summary_lines = machine.language[:2].lower()
    if summary_lines in ("en", "zh", "c", "po", ""):
        return Finding(OK, "VisualDL", version)
    text = f"{version}: its page answers 500 to a browser that asks for neither English nor Chinese"
    return Finding(WARN, "VisualDL", text, "visualdl --language en --logdir output")


CHECKS = (
    check_python,
    check_paddle,
    check_device,
    check_numpy,
    check_threads,
    check_blas,
    check_onednn,
    check_shared_memory,
    check_torch,
    check_torchvision,
    check_visualdl,
)


def findings(machine):
    """All findings about a Machine, in the order of the report."""
    return [finding for check in CHECKS if (finding := check(machine)) is not None]


COLOURS = {OK: "\033[32m", WARN: "\033[33m", FAIL: "\033[31m"}


def report(machine):
    """Print the findings, with what mends each bad one below it; returns the exit code, 1 if any is FAIL."""
    found = findings(machine)
    for finding in found:
        level = f"{finding.level:4}"
        if sys.stdout.isatty():
            level = f"{COLOURS[finding.level]}{level}\033[0m"
        print(f"{level}  {finding.subject:14} {finding.text}")
        if finding.fix:
            print(f"{'':21} -> {finding.fix}")
    failures, warnings = (sum(finding.level == level for finding in found) for level in (FAIL, WARN))
    if failures:
        print(f"{failures} of {len(found)} checks failed: mend these first.")
    else:
        print(
            "Everything here runs on this machine"
            + (f"; to know: {warnings} of the above." if warnings else ".")
        )
    return 1 if failures else 0
