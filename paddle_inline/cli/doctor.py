"""Check that this machine can run everything here; each problem comes with a suggested fix."""

# Everything is read first (machine.py); the checks are functions of what was read.

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from ..utils.environment import parse_version
from ..utils.errors import counted
from .machine import NEEDED, OPTIONAL, Machine, examine
from .output import show

OK, WARN, FAIL = "OK", "WARN", "FAIL"
PYTHONS = (3, 9), (3, 13)  # the oldest and newest that Paddle 3.3 has wheels for
PADDLES = ("paddlepaddle", "paddlepaddle-gpu")  # distributions of one and the same package
INSTALL_PAGE = "https://www.paddlepaddle.org.cn/en/install/quick"
LEAST_SHM = 1 << 30  # bytes; what the loader's workers hand over at 224 pixels fits many times

# Words in the message of a failed import -> suggested fix.
KNOWN_ERRORS = {
    "libgomp": "apt install libgomp1",
    "setuptools": "pip install setuptools",
    "distutils": "pip install setuptools",
    "numpy.core.multiarray": "pip install 'numpy<2'",
    "compiled using NumPy 1": "pip install 'numpy<2'",
}


# Systems on which the tests do not run -> their name, what is known to be missing there, and the way out.
UNTESTED = {
    "win32": (
        "Windows",
        "Known: the training process loads its images itself, one device, no checkpoint when a run is ended from "
        "outside (Ctrl-C saves one), `make` needs a Unix shell",
        "WSL 2 (such as Ubuntu) has all of it",
    ),
    "darwin": (
        "macOS",
        "Known: the training process loads its images itself, Paddle has no build for the GPU",
        "for long runs, a machine with Linux",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report, with the suggested fix of a problem."""

    level: str
    subject: str
    text: str
    fix: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `doctor`."""
    parser.add_argument("data", nargs="?", metavar="DATA", help="a data set: say what a run would make of it")
    parser.add_argument("--all", action="store_true", help="read all its images, not a sample")


def run(arguments: argparse.Namespace) -> int:
    """Examine this machine, or the data set given, and print the report; 1 if a check failed."""
    if arguments.data:
        from .doctor_data import report_data

        return report_data(arguments.data, every=arguments.all)
    return report(examine())


def check_python(machine: Machine) -> Finding:
    version = ".".join(map(str, machine.python))
    oldest, newest = (".".join(map(str, python)) for python in PYTHONS)
    if not PYTHONS[0] <= machine.python[:2] <= PYTHONS[1]:
        fix = f"python{newest} -m venv .venv"
        return Finding(FAIL, "Python", f"{version}: Paddle has wheels for {oldest} to {newest}", fix)
    if machine.missing:
        fix = f"pip install {' '.join(NEEDED.get(name, name) for name in machine.missing)}"
        return Finding(FAIL, "Python", f"{version}, without {', '.join(machine.missing)}", fix)
    return Finding(OK, "Python", version)


def check_system(machine: Machine) -> Finding:
    lacks = UNTESTED.get(machine.system)
    if lacks is None:
        return Finding(OK, "system", machine.system)
    name, what, fix = lacks
    return Finding(WARN, "system", f"{name}: not tested here. {what}", fix)


def check_paddle(machine: Machine) -> Finding:
    twice = [name for name in PADDLES if name in machine.versions]
    if len(twice) > 1:
        text = f"{' and '.join(twice)} are both installed and overwrite each other"
        return Finding(
            FAIL, "Paddle", text, f"pip uninstall -y {' '.join(twice)}, then install the one you want"
        )
    if machine.paddle is None:
        fix = f"pip install paddlepaddle==3.3.1 (CPU); for a GPU: {INSTALL_PAGE}"
        return Finding(FAIL, "Paddle", "not installed", fix)
    if isinstance(machine.paddle, str):
        return Finding(FAIL, "Paddle", f"cannot be imported: {machine.paddle}", known_fix(machine))
    return Finding(OK, "Paddle", f"{machine.paddle['version']}, default device {machine.paddle['device']}")


def known_fix(machine: Machine) -> str:
    """Return the suggested fix of an import of Paddle that failed."""
    for words, fix in KNOWN_ERRORS.items():
        if words in str(machine.paddle):
            return fix
    paddle, numpy = (parse_version(machine.versions.get(name, "")) for name in ("paddlepaddle", "numpy"))
    if paddle[:1] == (2,) and numpy >= (2,):
        return "pip install 'numpy<2'"
    return "python -c 'import paddle', for the full message; then pip install --force-reinstall paddlepaddle"


def check_device(machine: Machine) -> Finding | None:
    if not isinstance(machine.paddle, dict):
        return None
    if machine.nvidia and not machine.paddle["cuda"]:
        fix = f"pip uninstall -y paddlepaddle, then install the build for your CUDA: {INSTALL_PAGE}"
        return Finding(WARN, "device", "an NVIDIA GPU is here, but this Paddle is the CPU build", fix)
    if machine.paddle["cuda"] and not machine.paddle["gpus"]:
        return Finding(
            WARN,
            "device",
            "the GPU build of Paddle sees no GPU",
            "nvidia-smi, to see what the driver reports",
        )
    return Finding(OK, "device", counted(machine.paddle["gpus"], "GPU") if machine.paddle["cuda"] else "CPU")


def check_numpy(machine: Machine) -> Finding:
    version = machine.versions.get("numpy", "missing")
    if "numpy" in machine.missing:
        return Finding(
            FAIL, "numpy", "not installed: nothing but `doctor` runs without it", "pip install numpy"
        )
    if isinstance(machine.paddle, dict) and machine.paddle["float"] is None:
        text = f"{version}: float(tensor) of a Paddle tensor of shape [1] fails. Nothing here does that"
        return Finding(WARN, "numpy", text, "in your own code: tensor.item(); or pip install 'numpy<2.4'")
    return Finding(OK, "numpy", version)


def check_onednn(machine: Machine) -> Finding | None:
    if not isinstance(machine.paddle, dict) or machine.paddle["cuda"]:
        return None
    version = machine.paddle["version"]
    if (3, 3) <= parse_version(version) <= (3, 3, 1):
        text = f"Paddle {version}'s Predictor may crash with oneDNN, which is on by default"
        return Finding(
            WARN, "oneDNN", text, "if it does: config.disable_onednn() on its paddle.inference.Config"
        )
    return Finding(OK, "oneDNN", "no known problem with this Paddle")


def check_threads(machine: Machine) -> Finding:
    usable = min(machine.cores, machine.quota or machine.cores)
    text = machine.environ.get("OMP_NUM_THREADS", "")
    fix = f"export OMP_NUM_THREADS={max(1, int(usable))}"
    if text and not text.isdigit():
        return Finding(WARN, "threads", f"OMP_NUM_THREADS is {text!r}, not a number", fix)
    threads = int(text) if text else max(1, int(usable))  # as the programs here choose
    cores = counted(f"{usable:g}", "core")
    if threads > max(1, usable):
        return Finding(WARN, "threads", f"{threads} threads on {cores} slow each other down", fix)
    if threads < int(usable):
        idle = counted(int(usable) - threads, "core")
        return Finding(WARN, "threads", f"OMP_NUM_THREADS={threads} leaves {idle} idle", fix)
    return Finding(OK, "threads", f"{threads} on {cores}")


def check_blas(machine: Machine) -> Finding:
    value = machine.environ.get("MKL_DEBUG_CPU_TYPE")
    if machine.vendor != "AuthenticAMD":
        return Finding(OK, "BLAS", f"no setting needed on {machine.vendor or 'this processor'}")
    if value is None:
        text = "AMD: Paddle's MKL may take its slowest path. The programs here prevent that"
        fix = "in your own, before `import paddle`: paddle_inline.utils.environment.tune_cpu()"
        return Finding(WARN, "BLAS", text, fix)
    if value != "5":
        return Finding(WARN, "BLAS", f"AMD: MKL_DEBUG_CPU_TYPE is {value}", "export MKL_DEBUG_CPU_TYPE=5")
    return Finding(OK, "BLAS", "AMD, MKL_DEBUG_CPU_TYPE=5")


def check_shared_memory(machine: Machine) -> Finding:
    if machine.shm is None:
        return Finding(OK, "shared memory", "not on this system; loaders use pipes")
    size = f"{machine.shm / (1 << 20):,.0f} MiB"
    if machine.shm < LEAST_SHM:
        text = f"{size}: loader workers crash with `bus error` when it is full"
        return Finding(
            WARN, "shared memory", text, "docker run --shm-size=8g ..., or train with -o data.num_workers=0"
        )
    return Finding(OK, "shared memory", size)


def check_torch(machine: Machine) -> Finding:
    if machine.proxied:
        text = "paddle.enable_compat() was called: `import torch` gives Paddle, not PyTorch"
        return Finding(FAIL, "torch", text, "paddle.disable_compat(), or a fresh process")
    if machine.torch is None:
        fix = "pip install torch timm, if you want to convert or verify"
        return Finding(OK, "torch", "not installed; only conversion and verification need it", fix)
    if isinstance(machine.torch, str):
        if not isinstance(machine.paddle, dict):
            return Finding(WARN, "torch", "not tried, since Paddle cannot be imported", "fix Paddle first")
        text = f"cannot be imported beside Paddle: {machine.torch}"
        fix = "record each framework in an environment of its own: python -m convert record --help"
        return Finding(FAIL, "torch", text, fix)
    if not machine.torch["real"]:
        text = f"`import torch` gives {machine.torch['file']}, which is not PyTorch"
        return Finding(
            FAIL, "torch", text, "remove paddle.enable_compat() from whatever runs at the start of Python"
        )
    return Finding(OK, "torch", machine.torch["version"])


def check_torchvision(machine: Machine) -> Finding:
    if machine.torch is None or machine.torchvision is None:
        return Finding(OK, "torchvision", "not installed; only timm needs it")
    if isinstance(machine.torchvision, str):
        fix = "install torch and torchvision in one pip call, from one index (the install page of PyTorch)"
        return Finding(WARN, "torchvision", f"cannot be imported, nor can timm: {machine.torchvision}", fix)
    return Finding(OK, "torchvision", machine.versions.get("torchvision", ""))


def check_visualdl(machine: Machine) -> Finding:
    version = machine.versions.get("visualdl")
    if version is None:
        return Finding(OK, "VisualDL", "not installed; metrics.jsonl and curves.png are written anyway")
    return Finding(OK, "VisualDL", version)


def check_optional(machine: Machine) -> list[Finding]:
    """Say of each package that some commands need whether it is there."""
    found = []
    for subject, (distribution, purpose) in OPTIONAL.items():
        version = machine.versions.get(distribution)
        text, fix = version or f"not installed; {purpose}", "" if version else f"pip install {distribution}"
        if distribution == "paddle2onnx" and machine.python >= (3, 13) and not version:
            fix = (
                "there is none for Python 3.13: `export --onnx` takes PyTorch there (pip install torch onnx)"
            )
        found.append(Finding(OK, subject, text, fix))
    return found


CHECKS: tuple[Callable[[Machine], Finding | None], ...] = (
    check_system,
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


def findings(machine: Machine) -> list[Finding]:
    """Return all findings about a Machine, in the order of the report."""
    return [finding for check in CHECKS if (finding := check(machine)) is not None] + check_optional(machine)


def report(machine: Machine) -> int:
    """Print the findings, each problem with its suggested fix below it.

    Returns:
        The exit code, 1 if a check failed.
    """
    found = findings(machine)
    for finding in found:
        _print(f"{finding.level:4}", f"  {finding.subject:14} {finding.text}")
        if finding.fix:
            _print("", f"{'':21} -> {finding.fix}")
    failures, warnings = (sum(finding.level == level for finding in found) for level in (FAIL, WARN))
    if failures:
        _print("", f"{failures} of {len(found)} checks failed: fix these first.")
    else:
        note = f"; {warnings} warning{'s' * (warnings > 1)} above" if warnings else ""
        _print("", f"Everything here runs on this machine{note}.")
    return 1 if failures else 0


def _print(level: str, text: str) -> None:
    try:
        from rich.text import Text
    except ImportError:  # one of the findings
        print(level + text)
        return
    colour = {OK: "green", WARN: "yellow", FAIL: "red"}.get(level.strip(), "")
    show(Text(level, colour) + Text(text), wrap=False)
