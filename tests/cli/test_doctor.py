"""The doctor: every trap it knows is simulated, and it survives what it examines."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paddle_inline.cli import doctor
from paddle_inline.cli.doctor import FAIL, OK, WARN
from paddle_inline.cli.machine import Machine, probe, shared_memory

ROOT = Path(__file__).parents[2]
PADDLE = {"version": "3.2.2", "device": "cpu", "cuda": False, "gpus": 0, "float": 1.0}
TORCH = {"version": "2.13.0", "file": "site-packages/torch/__init__.py", "real": True}
GOOD = Machine(
    python=(3, 11, 7),
    versions={
        **{distribution: "9.9" for distribution, _ in doctor.OPTIONAL.values()},
        **{"paddlepaddle": "3.2.2", "numpy": "2.3.0", "torchvision": "0.28.0", "visualdl": "2.5.3"},
    },
    paddle=PADDLE,
    torch=TORCH,
    torchvision={},
    environ={"OMP_NUM_THREADS": "4"},
    cores=4,
    vendor="GenuineIntel",
    shm=8 << 30,
)


def changed(**changes):
    """The good machine, with something else about it; paddle={...} changes entries of the probe."""
    if isinstance(changes.get("paddle"), dict):
        changes["paddle"] = {**PADDLE, **changes["paddle"]}
    return dataclasses.replace(GOOD, **changes)


def test_a_good_machine_has_nothing_to_mend(capsys):
    found = doctor.findings(GOOD)
    assert [(finding.level, finding.fix) for finding in found] == [(OK, "")] * len(found)
    assert len(found) == len(doctor.CHECKS) + len(doctor.OPTIONAL)
    assert doctor.report(GOOD) == 0
    assert "Everything here runs on this machine." in capsys.readouterr().out


ABI = "ImportError: numpy.core.multiarray failed to import"
NMS = "RuntimeError: operator torchvision::nms does not exist"
BAD = {
    "Windows": (changed(system="win32"), WARN, "Windows: not tested", "WSL 2"),
    "macOS": (changed(system="darwin"), WARN, "macOS: not tested", "Linux"),
    "old Python": (changed(python=(3, 8, 18)), FAIL, "Python", "python3.13 -m venv"),
    "new Python": (changed(python=(3, 14, 0)), FAIL, "Python", "python3.13 -m venv"),
    "no yaml": (changed(missing=("yaml",)), FAIL, "without yaml", "pip install pyyaml"),
    "no numpy": (
        changed(missing=("numpy", "PIL")),
        FAIL,
        "nothing but `doctor` runs",
        "pip install numpy",
    ),
    "no Paddle": (changed(paddle=None), FAIL, "not installed", "pip install paddlepaddle==3.3.1"),
    "two Paddles": (
        changed(versions={"paddlepaddle": "3.3.1", "paddlepaddle-gpu": "3.3.1"}),
        FAIL,
        "paddlepaddle and paddlepaddle-gpu",
        "pip uninstall -y paddlepaddle paddlepaddle-gpu",
    ),
    "no libgomp": (
        changed(paddle="OSError: libgomp.so.1: cannot open"),
        FAIL,
        "libgomp",
        "apt install libgomp1",
    ),
    "no setuptools": (
        changed(paddle="ModuleNotFoundError: No module named 'setuptools'"),
        FAIL,
        "setuptools",
        "pip install setuptools",
    ),
    "numpy 2 under Paddle 2.6": (changed(paddle=ABI), FAIL, "cannot be imported", "pip install 'numpy<2'"),
    "Paddle 2.6 crashes": (
        changed(paddle="killed by signal 11; x", versions={"paddlepaddle": "2.6.2", "numpy": "2.0.1"}),
        FAIL,
        "killed by signal 11",
        "pip install 'numpy<2'",
    ),
    "Paddle crashes": (
        changed(paddle="killed by signal 4; no message"),
        FAIL,
        "signal 4",
        "--force-reinstall",
    ),
    "CPU wheel on a GPU": (changed(nvidia=True), WARN, "CPU build", doctor.INSTALL_PAGE),
    "GPU wheel, no GPU": (changed(paddle={"cuda": True}), WARN, "sees no GPU", "nvidia-smi"),
    "numpy 2.4": (changed(paddle={"float": None}), WARN, "float(tensor)", "tensor.item()"),
    "oneDNN of 3.3.0": (changed(paddle={"version": "3.3.0"}), WARN, "oneDNN", "disable_onednn()"),
    "oneDNN of 3.3.1": (changed(paddle={"version": "3.3.1"}), WARN, "oneDNN", "disable_onednn()"),
    "idle cores": (changed(environ={"OMP_NUM_THREADS": "1"}), WARN, "3 cores idle", "OMP_NUM_THREADS=4"),
    "too many threads": (
        changed(environ={"OMP_NUM_THREADS": "9"}),
        WARN,
        "9 threads on 4",
        "OMP_NUM_THREADS=4",
    ),
    "a container's share": (
        changed(quota=1.5, environ={"OMP_NUM_THREADS": "4"}),
        WARN,
        "4 threads on 1.5 cores",
        "OMP_NUM_THREADS=1",
    ),
    "threads that are no number": (
        changed(environ={"OMP_NUM_THREADS": "4,2"}),
        WARN,
        "'4,2'",
        "NUM_THREADS=4",
    ),
    "AMD": (changed(vendor="AuthenticAMD"), WARN, "AMD", "environment.tune_cpu()"),
    "AMD, other switch": (
        changed(vendor="AuthenticAMD", environ={"MKL_DEBUG_CPU_TYPE": "4"}),
        WARN,
        "MKL_DEBUG_CPU_TYPE is 4",
        "export MKL_DEBUG_CPU_TYPE=5",
    ),
    "small /dev/shm": (changed(shm=64 << 20), WARN, "64 MiB", "--shm-size"),
    "torch is Paddle here": (changed(proxied=True), FAIL, "enable_compat", "paddle.disable_compat()"),
    "torch is Paddle at the start": (
        changed(torch={**TORCH, "real": False, "file": "paddle/__init__.py"}),
        FAIL,
        "paddle/__init__.py, which is not PyTorch",
        "enable_compat()",
    ),
    "torch crashes beside Paddle": (
        changed(torch="killed by signal 11; x"),
        FAIL,
        "signal 11",
        "convert record",
    ),
    "torch untried": (changed(torch="x", paddle="y"), WARN, "not tried", "Paddle"),
    "torchvision of another build": (changed(torchvision=NMS), WARN, "nms", "one pip call"),
}


@pytest.mark.parametrize("case", BAD)
def test_each_trap_is_seen_and_comes_with_its_mending(case, capsys):
    machine, level, text, fix = BAD[case]
    found = doctor.findings(machine)
    failed = any(one.level == FAIL for one in found)
    (found,) = [one for one in found if one.level == level and text in one.text + one.subject]
    assert fix in found.fix
    assert doctor.report(machine) == (1 if failed else 0)
    assert level == WARN or failed
    assert f"-> {found.fix}" in capsys.readouterr().out


@pytest.mark.parametrize("absent", ["torch", "torchvision", "shm"])
def test_what_may_be_absent(absent):
    assert {one.level for one in doctor.findings(changed(**{absent: None}))} == {OK}


def test_an_amd_with_its_switch_is_fine():
    machine = changed(vendor="AuthenticAMD", environ={"MKL_DEBUG_CPU_TYPE": "5"})
    assert {one.level for one in doctor.findings(machine)} == {OK}


@pytest.mark.parametrize(("numpy", "fix"), [("1.26.4", "--force-reinstall"), ("10.0", "numpy<2")])
def test_versions_are_compared_as_numbers(numpy, fix):
    machine = changed(paddle="killed by signal 11; x", versions={"paddlepaddle": "2.6.2", "numpy": numpy})
    (found,) = [one for one in doctor.findings(machine) if one.subject == "Paddle"]
    assert fix in found.fix


def test_a_terminal_gets_colours_and_a_pipe_does_not(monkeypatch, capsys):
    doctor.report(GOOD)
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    doctor.report(GOOD)
    assert "\x1b[32mOK" in capsys.readouterr().out


def test_the_report_needs_no_rich(monkeypatch, capsys):
    doctor.report(GOOD)
    expected = capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "rich.text", None)
    doctor.report(GOOD)
    assert capsys.readouterr().out == expected


def test_a_probe_survives_what_it_imports():
    assert probe("json", "print('{\"a\": 1}')") == {"a": 1}
    assert probe("no_such_module", "") is None
    assert probe("json", "raise OSError('no libgomp')") == "OSError: no libgomp"
    assert probe("os", "import os; os.kill(os.getpid(), 11)") == "killed by signal 11; no message"
    assert probe("time", "import time; time.sleep(9)", timeout=0.5) == "no answer within 0.5 s"


def test_a_share_that_the_programs_keep_to_is_fine():
    assert {one.level for one in doctor.findings(changed(quota=1.5, environ={}))} == {OK}


def test_shared_memory_is_measured(tmp_path):
    found = os.statvfs(tmp_path)
    assert shared_memory(str(tmp_path)) == found.f_frsize * found.f_blocks
    assert shared_memory(str(tmp_path / "none")) is None


def test_a_process_where_torch_is_paddle_is_seen():
    code = """
import paddle
from paddle_inline.cli import machine
machine.probe = lambda *rest: None
if hasattr(paddle, "enable_compat"):
    assert not machine.examine().proxied
    paddle.enable_compat()
    assert machine.examine().proxied
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)


def test_this_machine_passes():
    done = subprocess.run(
        [sys.executable, "-m", "paddle_inline", "doctor"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    assert any(line.startswith("OK    Paddle") for line in lines)
    assert any(line.startswith("OK    torch ") for line in lines)


def test_what_only_some_commands_need_is_named_with_what_for():
    found = {finding.subject: finding for finding in doctor.check_optional(changed(versions={"ray": "2.9"}))}
    assert all(finding.level == OK for finding in found.values())
    assert (found["Ray"].text, found["Ray"].fix) == ("2.9", "")
    for subject, (distribution, purpose) in doctor.OPTIONAL.items():
        if subject != "Ray":
            assert found[subject].text == f"not installed; {purpose}"
            assert found[subject].fix == f"pip install {distribution}"


def test_python_3_13_has_no_paddle2onnx():
    machine = changed(python=(3, 13, 0), versions={})
    (found,) = (one for one in doctor.check_optional(machine) if one.subject == "paddle2onnx")
    assert (
        found.fix
        == "there is none for Python 3.13: `export --onnx` takes PyTorch there (pip install torch onnx)"
    )


WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None
from paddle_inline.cli import machine, main
machine.probe = lambda *given: None
assert main.main(["doctor"]) == 1
assert main.main(["predict", "a.png", "--weights", "b"]) == 2
"""


def test_it_runs_without_numpy_and_says_so():
    done = subprocess.run([sys.executable, "-c", WITHOUT_NUMPY], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "FAIL  numpy          not installed: nothing but `doctor` runs without it" in done.stdout
    assert "-> pip install numpy" in done.stdout
    assert done.stderr == (
        "error: predict needs numpy, which is not installed: "
        "`python -m paddle_inline doctor` says what else is missing\n"
    )
