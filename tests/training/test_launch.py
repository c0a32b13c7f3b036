"""`--gpus`: Paddle's launcher in the program's place, and one line where there are no such GPUs."""

import sys

import paddle
import pytest

from paddle_inline.training import distributed, program


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(paddle.device, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize("given", [["--gpus", "0,1"], ["--gpus=0,1"]])
def test_the_launcher_gets_the_program_and_all_other_arguments(monkeypatch, two_gpus, given):
    called = []
    monkeypatch.setattr(distributed.os, "execv", lambda *command: called.append(command))
    monkeypatch.setattr(program, "configure", lambda args: (_ for _ in ()).throw(SystemExit))
    for file in ("train_paddle.py", ""):
        with pytest.raises(SystemExit):  # as `execv` returns here
            program.main(["--cfg", "a.yaml", *given, "--epochs", "3"], program=file)
    start = [sys.executable, "-m", "paddle.distributed.launch", "--gpus", "0,1"]
    module = [sys.executable, "-m", "paddle_inline", "train"]
    for own, (file, command) in zip((["train_paddle.py"], module), called):
        assert (file, command) == (sys.executable, [*start, *own, "--cfg", "a.yaml", "--epochs", "3"])


@pytest.mark.parametrize(
    "gpus, there, said",
    [
        (
            "0,1",
            None,
            "--gpus 0,1: this Paddle is built for CPUs alone. Install paddlepaddle-gpu, or leave --gpus",
        ),
        ("0,2,3", 2, "--gpus 0,2,3: there is no GPU 2, 3 here; Paddle sees GPUs 0 to 1"),
        ("1", 1, "there is no GPU 1 here; Paddle sees GPU 0 alone"),
        ("0", 0, "there is no GPU 0 here; Paddle sees none"),
        ("all", 2, "--gpus is 'all'; give the numbers of GPUs"),
        ("", 2, "--gpus is ''; give the numbers of GPUs"),
    ],
)
def test_gpus_that_are_not_there_are_one_line(monkeypatch, capsys, gpus, there, said):
    monkeypatch.setattr(paddle.device, "is_compiled_with_cuda", lambda: there is not None)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: there)
    assert program.main(["--cfg", "configs/quickstart.yaml", "--gpus", gpus]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --gpus") and said in err and err.count("\n") == 1


def test_without_arguments_there_are_two_ways_to_begin(capsys):
    assert program.main([]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: nothing to train: give a file of settings, or pictures")
    assert "--cfg quickstart\n" in err and "--dataset folder --data-path PICTURES --val-split" in err
