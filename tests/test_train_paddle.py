"""The training program from its command line: runs, resumes, and what a user can get wrong."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import train_paddle
from paddle_inline import create_model, load_weights
from paddle_inline.engine.checkpoint import newest_checkpoint
from paddle_inline.engine.log import read_metrics

pytest.importorskip("sklearn")
ROOT = Path(__file__).parent.parent

TINY = """
model: {name: inline_deit_digits, drop_path_rate: 0.2,
        overrides: {depth: 2, embed_dim: 16, num_heads: 2}}
data: {dataset: digits, img_size: 8, batch_size: 128, num_workers: 0}
train: {epochs: 4, warmup_epochs: 1, base_lr: 4e-3, warmup_lr: 1e-4, min_lr: 1e-5, lr_batch: null}
aug: {auto_augment: none, color_jitter: 0, hflip: 0, mixup: 0.8, cutmix: 1.0}
ema: {decay: 0.9}
visualdl: false
print_freq: 5
"""


@pytest.fixture
def cfg(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return str(path)


def run(cfg, output, *arguments):
    return train_paddle.main(["--cfg", cfg, "--output", str(output), *arguments])


def folder_of(output, tag="default"):
    return Path(output) / "inline_deit_digits" / tag


def digest(output, tag="default"):
    """Of the weights, the average and the optimizer of a run's newest checkpoint, and its best files."""
    found, skipped = newest_checkpoint(folder_of(output, tag) / "checkpoints")
    assert not skipped
    files = [found / name for name in ("model.pdparams", "ema.pdparams", "optimizer.safetensors")]
    files += [folder_of(output, tag) / f"best_model{kind}.pdparams" for kind in ("", "_ema")]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An undisturbed run of four epochs."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(TINY)
    assert run(str(folder / "tiny.yaml"), folder) == 0
    return folder


def test_what_a_run_leaves(finished):
    folder = folder_of(finished)
    for name in ("curves.png", "predictions.png", "train.log", "config.yaml", "metrics.jsonl"):
        assert (folder / name).stat().st_size > 100, name
    rows = read_metrics(folder)
    assert rows[-1]["update"] == 44 and rows[-1]["epoch"] == 4
    state = json.loads((folder / "checkpoints" / "last" / "state.json").read_text())
    assert state["model"] == "inline_deit_digits" and state["progress"]["epoch"] == 4
    assert state["config"]["train"]["base_lr"] == 4e-3 and state["classes"] == list("0123456789")
    best = max(row["top1"] for row in rows if "top1" in row)
    assert state["progress"]["best_top1"] == best
    model = create_model(state["model"], **state["overrides"])
    load_weights(model, folder / "best_model.pdparams")


@pytest.mark.parametrize("stops", [["--stop-after", "2"], ["--stop-after", "3"]])
def test_two_and_two_epochs_equal_four_bit_for_bit(finished, cfg, tmp_path, stops):
    assert run(cfg, tmp_path, *stops) == 0
    assert digest(tmp_path) != digest(finished)
    assert run(cfg, tmp_path, "--resume", "auto") == 0
    assert digest(tmp_path) == digest(finished)
    ours, theirs = (
        [(r["update"], r.get("loss"), r.get("top1")) for r in read_metrics(folder_of(f))]
        for f in (tmp_path, finished)
    )
    assert ours == theirs


def test_evaluation_of_a_run(finished, cfg, tmp_path, capsys):
    best = max(row["top1"] for row in read_metrics(folder_of(finished)) if "top1" in row)
    weights = str(folder_of(finished) / "best_model.pdparams")
    assert run(cfg, tmp_path / "none", "--eval", "--pretrained", weights) == 0
    assert f"top-1 {best:.2f}%" in capsys.readouterr().out
    assert run(cfg, tmp_path / "none", "--eval", "--resume", str(folder_of(finished))) == 0
    assert not (tmp_path / "none").exists()


def test_throughput(cfg, tmp_path, capsys):
    assert run(cfg, tmp_path / "none", "--throughput", "--batch-size", "4") == 0
    assert "images/s, batch 4 of 8 x 8" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_flags_reach_the_settings(cfg):
    args = train_paddle.parse(
        f"-c {cfg} --batch-size 32 --tag 007 --accumulation-steps 2 --use-checkpoint --opts TRAIN.EPOCHS 9 "
        "seed 3 -o seed=4 -o output=/a=b --model-ema-decay 0.99 --amp --resume auto".split()
    )
    config = train_paddle.configure(args)
    assert (config.data.batch_size, config.tag, config.train.accumulation_steps) == (32, "007", 2)
    assert (config.train.use_checkpoint, config.train.epochs, config.seed) == (True, 9, 4)
    assert (config.output, config.ema.decay, config.amp.level) == ("/a=b", 0.99, "O1")
    assert config.model.resume == "auto"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "model.name=inline_diet_digits"], "did you mean 'inline_deit_digits'"),
        (["-o", "model.overrides.deph=3"], "did you mean 'depth'"),
        (["-o", "train.epoch=3"], "did you mean 'train.epochs'"),
        (["-o", "train.epochs=many"], "train.epochs is 'many'; it takes a whole number"),
        (["--batch-size", "x"], "data.batch_size is 'x'"),
        (["-o", "data.img_size=30"], "must divide by 4"),
        (["--batch-size", "7"], "must be even"),
        (["--batch-size", "2000"], "1433 training images are fewer"),
        (["-o", "model.num_classes=5"], "the data set has 10 classes"),
        (["-o", "aug.auto_augment=rnd-m9"], "is no policy"),
        (["--pretrained", "/none.pdparams"], "/none.pdparams"),
        (["--resume", "/none"], "no checkpoint /none"),
        (["--eval"], "--eval needs weights"),
        (["--cfg", "/none.yaml"], "/none.yaml: no such configuration file"),
        (["-o", "data.dataset=imagenet", "--data-path", "/none"], "/none"),
        (["-o", "data.dataset=imagenet"], "data.data_path"),
    ],
)
def test_mistakes_end_in_one_message(cfg, tmp_path, capsys, arguments, message):
    assert run(cfg, tmp_path / "out", *arguments) == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and "Traceback" not in err
    assert not list(tmp_path.glob("out/**/*.pdparams"))


def test_an_output_folder_that_cannot_be_written(cfg, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(cfg, tmp_path / "file") == 2
    assert "choose another with --output" in capsys.readouterr().err


def test_weights_of_another_model(finished, cfg, tmp_path, capsys):
    weights = str(folder_of(finished) / "best_model.pdparams")
    wider = ["-o", "model.overrides.embed_dim=32"]
    assert run(cfg, tmp_path / "out", "--pretrained", weights, *wider) == 2
    err = capsys.readouterr().err
    assert "- pos_embed [1, 5, 32]" in err and "+ pos_embed [1, 5, 16]" in err
    assert not (tmp_path / "out").exists()


def test_a_truncated_checkpoint(finished, cfg, tmp_path, capsys):
    run_folder = tmp_path / "copy" / "inline_deit_digits" / "default"
    subprocess.run(["cp", "-r", str(finished), str(tmp_path / "copy")], check=True)
    checkpoints = sorted((run_folder / "checkpoints").glob("update_*"))
    model = checkpoints[-1] / "model.pdparams"
    model.write_bytes(model.read_bytes()[:1000])
    assert run(cfg, tmp_path / "other", "--resume", str(checkpoints[-1])) == 2
    assert "model.pdparams is cut short or changed" in capsys.readouterr().err
    assert run(cfg, tmp_path / "copy", "--resume", "auto") == 0  # takes the one before
    out = capsys.readouterr().out
    assert "skipped: " in out and checkpoints[-1].name in out and "resumed from" in out
    assert digest(tmp_path / "copy") == digest(finished)


def test_changed_settings_are_shown_and_refused(finished, cfg, tmp_path, capsys):
    checkpoint = str(folder_of(finished) / "checkpoints" / "last")
    changed = ["--resume", checkpoint, "-o", "train.base_lr=1e-3", "-o", "print_freq=3", "--stop-after", "0"]
    assert run(cfg, tmp_path / "out", *changed) == 2
    err = capsys.readouterr().err
    assert "train.base_lr: 0.004 -> 0.001" in err and "print_freq" not in err and "--force" in err
    assert run(cfg, tmp_path / "out", *changed, "--force") == 0


def test_the_program_as_a_user_starts_it(cfg, tmp_path):
    """In its own process: the exit code, and no traceback."""
    command = [sys.executable, "train_paddle.py", "--cfg", cfg, "--output", str(tmp_path)]
    result = subprocess.run(
        [*command, "-o", "trian.epochs=1"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 2
    assert "did you mean 'train.epochs'" in result.stderr and "Traceback" not in result.stderr
    assert os.listdir(tmp_path) == ["tiny.yaml"]


def test_the_weights_are_those_of_the_averages(finished):
    """ema.pdparams is not model.pdparams under another name."""
    folder = folder_of(finished) / "checkpoints" / "last"
    kinds = []
    for name in ("model", "ema"):
        model = create_model("inline_deit_digits", img_size=8, depth=2, embed_dim=16, num_heads=2)
        load_weights(model, folder / f"{name}.pdparams")
        kinds.append(model.head.weight.numpy())
    assert 1e-5 < np.abs(kinds[0] - kinds[1]).max() < 1
