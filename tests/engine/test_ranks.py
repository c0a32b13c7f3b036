"""Several ranks on one CPU: the same training and the same accuracy as one rank."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
WORKER = Path(__file__).with_name("worker_ranks.py")


def launch(folder, ranks, *command, timeout=300, environment=()):
    """Runs a program once, or on several ranks; returns the finished process."""
    launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(ranks)]
    launcher += ["--log_dir", str(folder / f"log{ranks}")]
    # (An empty CUDA_VISIBLE_DEVICES, which hides GPUs, is more than the launcher can take.)
    clean = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return subprocess.run(
        [sys.executable, *(launcher if ranks > 1 else []), *map(str, command)],
        cwd=ROOT,
        env={**clean, "PYTHONPATH": str(ROOT), **dict(environment)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )


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
        # float64, ten updates; sums are made in another order
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-9, err_msg=name)


def test_accuracy_does_not_depend_on_the_number_of_ranks(results):
    one, two = (json.loads((results / f"{ranks}.json").read_text()) for ranks in (1, 2))
    assert one == two and one["images"] == 37  # which 2 does not divide


TINY = """
model: {name: inline_deit_digits, drop_path_rate: 0.0,
        overrides: {depth: 1, embed_dim: 16, num_heads: 2}}
data: {dataset: digits, img_size: 8, batch_size: 64, num_workers: 0}
train: {epochs: 2, warmup_epochs: 0, base_lr: 4e-3, lr_batch: null}
aug: {auto_augment: none, color_jitter: 0, hflip: 0, mixup: 0, cutmix: 0}
visualdl: false
"""


def test_only_one_rank_writes_and_the_run_is_that_of_one_rank(tmp_path):
    pytest.importorskip("sklearn")
    (tmp_path / "tiny.yaml").write_text(TINY)
    command = ["train_paddle.py", "--cfg", tmp_path / "tiny.yaml", "--output"]
    for ranks, batch in ((2, 64), (1, 128)):
        done = launch(tmp_path, ranks, *command, tmp_path / str(ranks), "--batch-size", batch)
        assert done.returncode == 0, done.stdout[-3000:]
    rows = []
    for ranks in (2, 1):
        folder = tmp_path / str(ranks) / "inline_deit_digits" / "default"
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        rows.append([row for row in map(json.loads, lines) if "top1" in row])
        assert len(rows[-1]) == 2
        assert len(list((folder / "checkpoints").glob("update_*"))) == 2
        log = (folder / "train.log").read_text()
        assert f"{ranks} x cpu" in log and log.count("epoch 1:") == 1
    for two, one in zip(*rows):
        # float32: the runs drift apart by rounding; one image is 0.27%
        assert abs(two["top1"] - one["top1"]) < 1.5 and two["update"] == one["update"]
