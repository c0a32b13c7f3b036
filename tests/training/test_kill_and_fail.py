"""Runs that are killed, asked to stop, or fail on one rank."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import paddle
import pytest

pytest.importorskip("sklearn")
ROOT = Path(__file__).parents[2]

# Augmentation, workers, an average and dropout on, so that all that could differ after a resume would.
SMALL = """
model: {resume: auto, name: inline_deit_digits, drop_path_rate: 0.2, drop_rate: 0.1,
        overrides: {depth: 2, embed_dim: 16, num_heads: 2}}
data: {dataset: digits, img_size: 8, batch_size: 256, num_workers: 2}
train: {epochs: 6, warmup_epochs: 1, base_lr: 4e-3, warmup_lr: 1e-4, min_lr: 1e-5, lr_batch: null}
aug: {auto_augment: rand-m9-mstd0.5-inc1, reprob: 0.25, mixup: 0.8, cutmix: 1.0}
ema: {decay: 0.9}
visualdl: false
print_freq: 1
save_steps: 2
keep_last: 2
"""


def start(cfg, output, *arguments):
    command = [sys.executable, "train_paddle.py", "--cfg", str(cfg), "--output", str(output), *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process, seconds=280):
    out, _ = process.communicate(timeout=seconds)
    return out


def folder_of(output):
    return Path(output) / "inline_deit_digits" / "default"


def last(output):
    return folder_of(output) / "checkpoints" / "last"


def digests(output):
    files = [last(output) / n for n in ("model.pdparams", "ema.pdparams", "optimizer.safetensors")]
    files += [folder_of(output) / n for n in ("best_model.pdparams", "best_model_ema.pdparams")]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def rows_logged(output):
    path = folder_of(output) / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    cfg = folder / "small.yaml"
    cfg.write_text(SMALL)
    process = start(cfg, folder)
    out = finish(process)
    assert process.returncode == 0, out
    return cfg, folder


def kill_at(process, output, rows, pause):
    """Kills the run and its workers when metrics.jsonl has so many rows, and a moment later."""
    deadline = time.time() + 250
    while rows_logged(output) < rows and process.poll() is None and time.time() < deadline:
        time.sleep(0.005)
    time.sleep(pause)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.full)])
def test_sigkill_at_random_moments_changes_nothing(undisturbed, tmp_path, kills):
    cfg, reference = undisturbed
    rng = random.Random(0)
    rows = sorted(rng.sample(range(1, 34), kills))
    for row in rows:
        kill_at(start(cfg, tmp_path), tmp_path, row, rng.uniform(0, 0.1))
    out = finish(start(cfg, tmp_path))
    assert "resumed from" in out
    assert digests(tmp_path) == digests(reference)
    ours, theirs = (
        [{k: r.get(k) for k in ("step", "loss", "top1", "ema_top1")} for r in rows_of(folder)]
        for folder in (tmp_path, reference)
    )
    assert ours == theirs
    leftovers = [p.name for p in (folder_of(tmp_path) / "checkpoints").iterdir() if p.name.startswith(".")]
    assert leftovers == []


def rows_of(output):
    return [json.loads(line) for line in (folder_of(output) / "metrics.jsonl").read_text().splitlines()]


def test_sigterm_saves_and_ends_cleanly(undisturbed, tmp_path):
    cfg, reference = undisturbed
    process = start(cfg, tmp_path)
    deadline = time.time() + 250
    while rows_logged(tmp_path) < 7 and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out = finish(process)
    assert process.returncode == 0, out
    step = json.loads((last(tmp_path) / "state.json").read_text())["progress"]["step"]
    assert f"Stopping on request; checkpoint saved at step {step}. Continue with --resume auto" in out
    assert 6 <= step < 30
    out = finish(start(cfg, tmp_path))
    assert f"step {step}" in out
    assert digests(tmp_path) == digests(reference)


@pytest.mark.skipif(paddle.__version__.startswith("2."), reason="Paddle 2.6's launcher leaves no rank's file")
def test_a_rank_that_fails_ends_the_job_and_says_why(undisturbed, tmp_path):
    cfg, _ = undisturbed
    code = (
        "import sys, paddle.distributed as dist, train_paddle\n"
        "from paddle_inline.training import loop\n"
        "step = loop.train_step\n"
        "def fails(*args, **kwargs):\n"
        "    if dist.get_rank() == 1: raise KeyError('the cause on rank 1')\n"
        "    return step(*args, **kwargs)\n"
        "loop.train_step = fails\n"
        f"sys.exit(train_paddle.main(['--cfg', {str(cfg)!r}, '--output', {str(tmp_path)!r}, "
        "'--batch-size', '64', '-o', 'data.num_workers=0']))\n"
    )
    (tmp_path / "fails.py").write_text(code)
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    launcher = [
        "-m",
        "paddle.distributed.launch",
        "--nproc_per_node",
        "2",
        "--log_dir",
        str(tmp_path / "log"),
    ]
    done = subprocess.run(
        [sys.executable, *launcher, "--max_restart", "0", str(tmp_path / "fails.py")],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=250,
    )
    assert done.returncode != 0
    report = (folder_of(tmp_path) / "errors" / "rank1.txt").read_text()
    assert "rank 1 failed" in report and "KeyError: 'the cause on rank 1'" in report and "in fails" in report
    assert "the cause on rank 1" in done.stdout, done.stdout[-3000:]
