"""Several ranks on one CPU: the same training and the same accuracy as one rank."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

import train_paddle

ROOT = Path(__file__).parent.parent.parent
WORKER = Path(__file__).with_name("worker_ranks.py")


def start(folder, ranks, *command, options=(), environment=()):
    """Starts a program alone, or on several ranks, or with options of the launcher."""
    launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", ranks, *options]
    launcher += ["--log_dir", folder / f"log{ranks}"]
    # (An empty CUDA_VISIBLE_DEVICES, which hides GPUs, is more than the launcher can take.)
    clean = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    words = [sys.executable, *(launcher if ranks > 1 or options else []), *command]
    return subprocess.Popen(
        list(map(str, words)),
        cwd=ROOT,
        env={**clean, "PYTHONPATH": str(ROOT), **dict(environment)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def launch(*arguments, timeout=300, **more):
    """`start`, waited for; returns the finished process with all that it said as `stdout`."""
    process = start(*arguments, **more)
    try:
        out, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    for ranks, per_rank in ((1, 8), (2, 4)):
        done = launch(folder, ranks, WORKER, folder, per_rank)
        assert done.returncode == 0, done.stdout[-3000:]
    return folder


def test_two_ranks_of_a_batch_equal_one_rank_of_two(results):
    one, two = (np.load(results / f"{ranks}.npz") for ranks in (1, 2))
    assert set(one.files) == set(two.files)
    for name in one.files:
        # float64, ten steps; sums are made in another order
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-9, err_msg=name)


def test_accuracy_does_not_depend_on_the_number_of_ranks(results):
    one, two = (json.loads((results / f"{ranks}.json").read_text()) for ranks in (1, 2))
    assert one.pop("loss") == pytest.approx(two.pop("loss"), rel=1e-12)  # sums are made in another order
    assert one == two and one["images"] == 37  # which 2 does not divide
    assert len(one["per_class"]) == 10 and sum(images for images, _ in one["per_class"]) == 37


def test_synchronised_batch_norm_is_that_of_the_whole_batch(results):
    """Outputs, averaged gradients, and PyTorch's running statistics, of a SOFT model."""
    whole = np.load(results / "sync_1_0.npy")
    halves = [np.load(results / f"sync_2_{rank}.npy") for rank in (0, 1)]
    np.testing.assert_allclose(np.concatenate(halves, 1), whole, rtol=0, atol=1e-9)
    one, two = (np.load(results / f"sync_{ranks}.npz") for ranks in (1, 2))
    assert set(one.files) == set(two.files)
    moved = [name for name in one.files if name.endswith("._variance")]
    assert moved and all(np.abs(one[name] - 1).max() > 0.01 for name in moved)
    for name in one.files:
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-9, err_msg=name)


def test_all_ranks_evaluate_with_the_statistics_that_are_saved(results):
    first, second = (np.load(results / f"separate_{rank}.npz") for rank in (0, 1))
    assert np.abs(first["before"] - second["before"]).max() > 0.01
    np.testing.assert_array_equal(first["after"], first["before"])
    np.testing.assert_array_equal(second["after"], first["before"])


TINY = """
model: {name: inline_deit_digits, drop_path_rate: 0.0, resume: auto,
        overrides: {depth: 1, embed_dim: 16, num_heads: 2}}
data: {dataset: digits, img_size: 8, batch_size: 64, num_workers: 0}
train: {epochs: 2, warmup_epochs: 0, base_lr: 4e-3, lr_batch: null}
aug: {auto_augment: none, color_jitter: 0, hflip: 0, mixup: 0, cutmix: 0}
visualdl: false
save_steps: 3
"""


def run_folder(folder):
    return folder / "inline_deit_digits" / "default"


def last_files(folder):
    """What a run ended with."""
    last = run_folder(folder) / "checkpoints" / "last"
    return {name: (last / name).read_bytes() for name in ("model.pdparams", "optimizer.safetensors")}


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """A run of two ranks of batch 64 on one node, and its settings."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("two_ranks")
    cfg = folder / "tiny.yaml"
    cfg.write_text(TINY)
    done = launch(folder, 2, "train_paddle.py", "--cfg", cfg, "--output", folder)
    assert done.returncode == 0, done.stdout[-3000:]
    return cfg, folder


def test_only_one_rank_writes_and_the_run_is_that_of_one_rank(two_ranks, tmp_path):
    cfg, folder = two_ranks
    done = launch(tmp_path, 1, "train_paddle.py", "--cfg", cfg, "--output", tmp_path, "--batch-size", 128)
    assert done.returncode == 0, done.stdout[-3000:]
    rows = []
    for ranks, output in ((2, folder), (1, tmp_path)):
        output = run_folder(output)
        lines = (output / "metrics.jsonl").read_text().splitlines()
        rows.append([row for row in map(json.loads, lines) if "top1" in row])
        assert len(rows[-1]) == 2
        assert len(list((output / "checkpoints").glob("step_*"))) == 2
        log = (output / "train.log").read_text()
        assert f"{ranks} x cpu" in log and log.count("epoch 1:") == 1
        with open(output / "classes.csv", encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file))  # of all ranks' answers
        right, images = (sum(int(row[key]) for row in table) for key in ("correct", "images"))
        assert images == 364 and 100 * right / images == max(row["top1"] for row in rows[-1])
    for two, one in zip(*rows):
        # float32: the runs drift apart by rounding; one image is 0.27%
        assert abs(two["top1"] - one["top1"]) < 1.5 and two["step"] == one["step"]


def test_one_rank_goes_on_where_two_have_been(two_ranks, tmp_path, capsys):
    """The same images per step and nothing drawn by rank: allowed, and the same up to rounding."""
    cfg, folder = two_ranks
    copy = tmp_path / "copy"
    shutil.copytree(run_folder(folder), run_folder(copy), symlinks=True)
    newest = sorted((run_folder(copy) / "checkpoints").glob("step_*"))[-1]
    shutil.rmtree(newest)
    call = ["--cfg", str(cfg), "--output", str(copy)]
    assert train_paddle.main(call) == 2
    err = capsys.readouterr().err
    assert "ranks: 2 -> 1, and with them the images per step: 128 -> 64" in err and "start 2 ranks" in err
    assert train_paddle.main([*call, "--batch-size", "128"]) == 0
    assert "resumed from" in capsys.readouterr().out
    ours, theirs = (
        load_file(run_folder(f) / "checkpoints/last/optimizer.safetensors") for f in (copy, folder)
    )
    for name in theirs:  # float32: two halves are summed in another order
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.skipif(paddle.__version__.startswith("2."), reason="the launcher of Paddle 3 is asked")
def test_max_restart_goes_on_from_the_last_checkpoint(two_ranks, tmp_path):
    """The launcher restarts jobs that an etcd server watches, and no others: here a stand-in for one."""
    cfg, folder = two_ranks
    marker = tmp_path / "died"
    elastic = ("--master", "etcd://127.0.0.1:1", "--elastic_level", "1", "--max_restart", "2")
    done = launch(
        *(tmp_path, 2, WORKER.with_name("worker_dies_once.py"), marker),
        *("--cfg", cfg, "--output", tmp_path),
        options=elastic,
        environment={"PYTHONPATH": f"{ROOT}:{WORKER.parent / 'fake_etcd'}"},
    )
    assert done.returncode == 0 and marker.exists(), done.stdout[-3000:]
    log = (run_folder(tmp_path) / "train.log").read_text()
    assert log.count("resumed from") == 1 and "step_00000006: epoch 0, step 6" in log
    assert last_files(tmp_path) == last_files(folder)


@pytest.mark.skipif(paddle.__version__.startswith("2."), reason="the launcher of Paddle 3 is asked")
def test_two_nodes_are_two_ranks(two_ranks, tmp_path):
    cfg, folder = two_ranks
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        master = f"127.0.0.1:{free.getsockname()[1]}"
    command = ("train_paddle.py", "--cfg", cfg, "--output", tmp_path)
    nodes = [
        start(tmp_path / str(node), 1, *command, options=("--nnodes", "2", "--master", master))
        for node in (0, 1)
    ]
    outputs = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs[0][-2000:] + outputs[1][-2000:]
    assert (run_folder(tmp_path) / "train.log").read_text().count("2 x cpu") == 1
    assert last_files(tmp_path) == last_files(folder)
