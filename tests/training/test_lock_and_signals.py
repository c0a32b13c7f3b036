"""Two runs in one folder, Ctrl-C, and runs in threads."""

import logging
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image, ImageFile

from paddle_inline.config.load import load_config
from paddle_inline.training import lock, loop, program
from paddle_inline.training.build_data import worker_count
from paddle_inline.training.callbacks import StopOnRequest
from paddle_inline.training.checkpoint import newest_checkpoint
from paddle_inline.training.lock import locked
from paddle_inline.training.state import Progress
from paddle_inline.utils.errors import UserError

pytest.importorskip("sklearn")
HANDLED = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD
ROOT = Path(__file__).parents[2]
SMALL = (
    "model.overrides.depth=1 model.overrides.embed_dim=16 model.overrides.num_heads=2 train.epochs=3 "
    "data.img_size=8 data.batch_size=128 visualdl=false"
)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than such a run."""
    for name in ("show_samples", "finish"):
        monkeypatch.setattr(program.report, name, lambda *args, **kwargs: None)


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal():
    """A shell's `&` and nohup start processes that ignore SIGINT and SIGHUP."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def command(output, *more):
    options = [word for setting in SMALL.split() for word in ("-o", setting)]
    return ["--cfg", str(ROOT / "configs" / "quickstart.yaml"), "--output", str(output), *options, *more]


def newest(output):
    return newest_checkpoint(output / "inline_deit_digits" / "default" / "checkpoints")[0]


def test_a_second_run_is_refused_and_told_of_the_first(tmp_path):
    with locked(tmp_path / "run") as left:
        assert left == ""
        with pytest.raises(UserError, match=rf"process {os.getpid()} on {socket.gethostname()}") as error:
            locked(tmp_path / "run").__enter__()
        assert "--tag" in str(error.value)
        with locked(tmp_path / "other"):
            pass
    with locked(tmp_path / "run"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("with_worker", [False, True])
def test_the_lock_of_a_killed_run_is_no_obstacle(tmp_path, with_worker):
    """Nor one that a data worker of the killed run still has."""
    code = (
        "import os, signal, time; from paddle_inline.training.lock import locked\n"
        f"held = locked({str(tmp_path / 'run')!r})\n"
        "held.__enter__()\n"
        f"if {with_worker} and not os.fork(): time.sleep(4); os._exit(0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.wait(60) == -signal.SIGKILL
    assert (tmp_path / ".run.lock").exists()
    with locked(tmp_path / "run") as left:
        assert left == f"process {process.pid} on {socket.gethostname()}"
        with pytest.raises(UserError, match=f"process {os.getpid()} on"):
            locked(tmp_path / "run").__enter__()


@pytest.mark.parametrize(
    ("owner", "free"),
    [
        ("", True),
        ("no lock of ours", True),
        (f"{os.getpid()} {socket.gethostname()}", False),
        (f"999999999 {socket.gethostname()}", True),
        (f"{os.getpid()} elsewhere", False),
    ],
    ids=["empty", "not a lock", "alive here", "dead here", "elsewhere"],  # the same in every worker
)
def test_where_a_file_system_has_no_locks_the_owner_decides(tmp_path, monkeypatch, owner, free):
    monkeypatch.setattr(lock, "fcntl", None)
    (tmp_path / ".run.lock").write_text(owner)
    if free:
        with locked(tmp_path / "run"):
            pass
    else:
        with pytest.raises(UserError, match=owner.split()[1]):
            locked(tmp_path / "run").__enter__()


def test_two_runs_at_once_in_one_folder(tmp_path, capsys, monkeypatch):
    codes, step = [], loop.train_step

    def second_run_meanwhile(*args, **kwargs):
        if not codes:
            codes.append(None)
            codes[0] = program.main(command(tmp_path))
        return step(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", second_run_meanwhile)
    assert program.main(command(tmp_path, "--stop-after", "1")) == 0
    assert codes == [2]
    assert f"is being written by process {os.getpid()} on " in capsys.readouterr().err
    assert newest(tmp_path).name == "step_00000011"
    assert [path.name for path in (tmp_path / "inline_deit_digits").iterdir()] == ["default"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_saves_and_ends_the_run(tmp_path, capsys, monkeypatch, number, code):
    before = [signal.getsignal(n) for n in HANDLED]
    step, count = loop.train_step, []

    def interrupted(*args, **kwargs):
        count.append(1)
        if len(count) == 15:
            os.kill(os.getpid(), number)
        return step(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", interrupted)
    assert program.main(command(tmp_path)) == code
    assert newest(tmp_path).name == "step_00000015"
    out, err = capsys.readouterr()
    assert out.count("Stopping on request; checkpoint saved at step 15") == 1 and "Traceback" not in out + err
    assert [signal.getsignal(n) for n in HANDLED] == before
    monkeypatch.setattr(loop, "train_step", step)
    assert program.main(command(tmp_path, "--resume", "auto")) == 0
    assert newest(tmp_path).name == "step_00000033"


def test_a_second_ctrl_c_interrupts_at_once():
    with StopOnRequest(Progress()) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.should_stop() and stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):  # another thread may take the signal, and wakes nothing in this one
                time.sleep(0.01)


@pytest.mark.parametrize("arguments", [[], ["--throughput"]])
def test_ctrl_c_before_training_is_one_line(tmp_path, capsys, monkeypatch, arguments):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(program.build, "build_model", interrupted)
    assert program.main(command(tmp_path, *arguments)) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_run_in_a_thread_trains(tmp_path):
    codes = []
    thread = threading.Thread(
        target=lambda: codes.append(program.main(command(tmp_path, "--stop-after", "1")))
    )
    thread.start()
    thread.join()
    assert codes == [0]
    assert newest(tmp_path).name == "step_00000011"


def test_epochs_to_stop_after_are_counted_from_where_a_run_is_resumed(tmp_path):
    for step in ("11", "22"):
        assert program.main(command(tmp_path, "--resume", "auto", "--stop-after", "1")) == 0
        assert newest(tmp_path).name == f"step_000000{step}"


def pictures(root, count=8):
    """Two classes of so many training pictures, and half as many held-out ones."""
    for part, number in (("train", count), ("val", count // 2)):
        for label, green in (("cat", 200), ("dog", 0)):
            (root / part / label).mkdir(parents=True, exist_ok=True)
            for i in range(number):
                Image.new("RGB", (9, 9), (20 * i % 256, green, 90)).save(root / part / label / f"{i}.jpg")
    return ["-o", "data.dataset=imagenet", "--data-path", str(root), "--batch-size", "4"]


def test_a_run_with_workers_in_a_thread_trains(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = [*pictures(tmp_path / "data"), "-o", "data.num_workers=2", "--stop-after", "1"]
    codes = []
    thread = threading.Thread(target=lambda: codes.append(program.main(command(tmp_path, *data))))
    thread.start()
    thread.join()
    assert codes == [0]
    log = (tmp_path / "inline_deit_digits" / "default" / "train.log").read_text()
    assert log.count("data.num_workers is 2") == 1


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_where_paddle_starts_no_workers_the_run_loads_its_images_itself(monkeypatch, system):
    config = load_config("", ["data.num_workers", "3"])
    assert worker_count(config) == 3
    monkeypatch.setattr("paddle_inline.training.build_data.sys.platform", system)
    assert worker_count(config) == 0


def state_of_the_process():
    """What a program's function must leave as it was for the notebook or test that called it."""
    return {
        "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "numpy": np.random.get_state()[1].tolist(),
        "random": random.getstate(),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "warnings": list(warnings.filters),
        "streams": (sys.stdout, sys.stdout.errors, sys.stderr, sys.stderr.errors),
        "workers": multiprocessing.active_children(),
        # the loader's own end a moment after its processes
        "threads": [
            thread for thread in threading.enumerate() if not thread.name.startswith(("Queue", "Thread-"))
        ],
        "level of the log": (logging.getLogger().level, list(logging.getLogger().handlers)),
        "hook": (sys.excepthook, threading.excepthook),
        "gradients": paddle.is_grad_enabled(),
        "dtype": paddle.get_default_dtype(),
        "device": paddle.device.get_device(),
        "PIL": (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS),
    }


def test_the_process_is_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("paddle.io.multiprocess_utils._SIGCHLD_handler_set", False)  # of an earlier test
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = [*pictures(tmp_path / "data"), "-o", "data.num_workers=2"]
    best = tmp_path / "inline_deit_digits" / "default" / "best_model.pdparams"
    paddle.seed(5)
    expected = paddle.rand([3]).numpy()
    for more in (["--stop-after", "1"], ["--eval", "--pretrained", str(best)], ["--throughput"], ["--eval"]):
        paddle.seed(5)
        before = state_of_the_process()
        assert program.main(command(tmp_path, *data, *more)) == (2 if more == ["--eval"] else 0)
        after = state_of_the_process()
        assert {name for name in before if after[name] != before[name]} == set(), more
        assert (paddle.rand([3]).numpy() == expected).all(), more


def test_an_evaluation_in_a_thread(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = [*pictures(tmp_path / "data"), "-o", "data.num_workers=2"]
    assert program.main(command(tmp_path, *data, "--stop-after", "1")) == 0
    run, codes = tmp_path / "inline_deit_digits" / "default", []
    words = command(tmp_path, *data, "--eval", "--pretrained", str(run))
    answers = []
    capsys.readouterr()
    for here in (True, False):
        thread = threading.Thread(target=lambda: codes.append(program.main(words)))
        thread.run() if here else thread.start()
        here or thread.join()
        answers.append(capsys.readouterr().out)
    assert codes == [0, 0] and answers[0] == answers[1] and "top-1" in answers[0]


def test_ctrl_c_in_a_terminal_reaches_the_workers_too(tmp_path):
    """The whole group of processes gets the signal, as a terminal sends it."""
    data = [*pictures(tmp_path / "data"), "-o", "data.num_workers=2", "-o", "train.epochs=10000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train_paddle.py"), *command(tmp_path, *data)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "epoch 2: top-1" in line:
            os.killpg(process.pid, signal.SIGINT)
    out = "".join(lines)
    assert process.wait(60) == 130, out
    assert out.count("Stopping on request") == 1 and "Traceback" not in out, out


def test_a_terminal_that_is_gone_ends_a_run_in_order_but_not_under_nohup():
    with StopOnRequest(Progress()) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.should_stop() and stop.signal == signal.SIGHUP
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopOnRequest(Progress()) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.should_stop()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_lock_that_is_a_link_is_not_written_through(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".run.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match=rf"the lock {tmp_path / '.run.lock'} is a link: remove it"):
        locked(tmp_path / "run").__enter__()
    assert (tmp_path / "precious").read_text() == "precious"


def test_epochs_to_stop_after_are_none_below_zero(tmp_path, capsys):
    assert program.main(command(tmp_path, "--stop-after", "-1")) == 2
    assert "--stop-after is -1; give a number of epochs, from 0" in capsys.readouterr().err
    assert program.main(command(tmp_path, "--tag", "a\0b")) == 2
    assert list(tmp_path.iterdir()) == []
