"""The training program from its command line: runs, resumes, and what a user can get wrong."""

import errno
import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image
from safetensors.numpy import load_file

import train_paddle
from paddle_inline import create_model, load_weights
from paddle_inline.training import checkpoint, loop, program, resume
from paddle_inline.training.checkpoint import newest_checkpoint
from paddle_inline.training.log import read_metrics
from paddle_inline.training.optim import decay_groups, make_optimizer

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
    assert rows[-1]["step"] == 44 and rows[-1]["epoch"] == 4
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
        [(r["step"], r.get("loss"), r.get("top1")) for r in read_metrics(folder_of(f))]
        for f in (tmp_path, finished)
    )
    assert ours == theirs


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step"])
def test_a_smoke_run_is_shorter_than_its_warm_up(cfg, tmp_path, schedule):
    """It trains, at rates of the warm-up alone, and says so; an average that it is too short for, too."""
    short = [
        "-o",
        "train.epochs=1",
        "-o",
        "train.warmup_epochs=20",
        "-o",
        f"train.lr_scheduler.name={schedule}",
    ]
    assert run(cfg, tmp_path, *short, "--model-ema-decay", "0.9996", "-o", "print_freq=1") == 0
    log = (folder_of(tmp_path) / "train.log").read_text()
    assert log.count("the warm-up of 20 epochs (train.warmup_epochs) is not finished in the 1 of") == 1
    assert "of train.epochs: the learning rate stays below train.base_lr" in log
    assert log.count("train.min_lr is not used") == (schedule == "linear")
    assert "after this run's 11 steps 100 % of the averaged weights are still those of the beginning" in log
    rates = [row["lr"] for row in read_metrics(folder_of(tmp_path)) if "lr" in row]
    assert rates == pytest.approx([1e-4 + max(k - 1, 0) * (4e-3 - 1e-4) / 220 for k in range(11)])


def test_keys_of_the_authors_files_that_are_not_used_are_in_the_log(tmp_path):
    (tmp_path / "upper.yaml").write_text(TINY + "DATA: {PIN_MEMORY: True}\nTEST: {SHUFFLE: False}\n")
    assert run(str(tmp_path / "upper.yaml"), tmp_path, "--stop-after", "0") == 0
    expected = (
        "settings not used: DATA.PIN_MEMORY (the loader decides), TEST.SHUFFLE (evaluation is always sequ"
    )
    assert expected in (folder_of(tmp_path) / "train.log").read_text()


def test_evaluation_of_a_run(finished, cfg, tmp_path, capsys):
    best = max(row["top1"] for row in read_metrics(folder_of(finished)) if "top1" in row)
    weights = str(folder_of(finished) / "best_model.pdparams")
    assert run(cfg, tmp_path / "none", "--eval", "--pretrained", weights) == 0
    said = capsys.readouterr().out
    assert f"top-1 {best:.2f}%" in said
    assert run(cfg, tmp_path / "none", "--eval", "--resume", str(folder_of(finished))) == 0
    assert not (tmp_path / "none").exists()

    metrics = tmp_path / "metrics.json"
    assert run(cfg, tmp_path / "none", "--eval", "--pretrained", weights, "--metrics", str(metrics)) == 0
    found = json.loads(metrics.read_text())
    row = max(
        (row for row in read_metrics(folder_of(finished)) if "top1" in row), key=lambda row: row["top1"]
    )
    assert (found["top1"], found["images"], found["weights"]) == (best, 364, weights)
    assert f"loss {found['loss']:.4f}" in said and found["loss"] == pytest.approx(
        row["held_out_loss"], rel=1e-6
    )
    assert [each["top1"] for each in found["classes"]] == row["class_top1"]
    assert sum(each["correct"] for each in found["classes"]) == round(best * 3.64)
    assert [each["name"] for each in found["classes"]] == [str(digit) for digit in range(10)]


def test_which_weights_an_evaluation_is_of(finished, cfg, tmp_path, capsys):
    """What a run began with (model.pretrained of its file) is not what `--resume` asks for."""
    folder = folder_of(finished)
    began = tmp_path / "began.pdparams"
    shutil.copy(folder / "best_model.pdparams", began)
    at_first = ["-o", f"model.pretrained={began}"]
    newest = str(folder / "checkpoints" / "last")
    for arguments, expected in (
        (at_first, str(began)),
        ([*at_first, "--resume", newest], str(Path(newest).resolve())),
        ([*at_first, "-o", f"model.resume={newest}"], str(Path(newest).resolve())),
        (["-o", f"model.resume={newest}", "--pretrained", str(began)], str(began)),
        ([*at_first, "--resume", "auto"], str(Path(newest).resolve())),
        (["-o", "train.auto_resume=true"], str(Path(newest).resolve())),
    ):
        assert run(cfg, finished, "--eval", *arguments) == 0
        assert f" with {expected}" in capsys.readouterr().out
    assert run(cfg, tmp_path / "none", "--eval", "--resume", "auto") == 2
    assert "there is no run" in capsys.readouterr().err


def test_a_file_of_metrics_that_cannot_be_written_is_refused_at_once(cfg, tmp_path, capsys):
    gone = str(tmp_path / "gone" / "a.json")
    for arguments, message in (
        (["--eval", "--metrics", gone], f"--metrics {gone} cannot be written"),
        (["--eval", "--metrics", str(tmp_path)], "it is a folder"),
        (["--metrics", "a.json"], "--metrics goes with --eval"),
    ):
        assert run(cfg, tmp_path / "none", *arguments) == 2
        assert message in capsys.readouterr().err


def test_throughput(cfg, tmp_path, capsys):
    assert run(cfg, tmp_path / "none", "--throughput", "--batch-size", "4") == 0
    assert "images/s, batch 4 of 8 x 8" in capsys.readouterr().out
    assert run(cfg, tmp_path / "none", "--throughput", "--batch-size", "2", "-o", "model.in_chans=1") == 0
    assert not (tmp_path / "none").exists()


def test_flags_reach_the_settings(cfg):
    args = program.parse(
        f"-c {cfg} --batch-size 32 --tag 007 --accumulation-steps 2 --use-checkpoint --opts TRAIN.EPOCHS 9 "
        "seed 3 -o seed=4 -o output=/a=b --model-ema-decay 0.99 --amp --resume auto".split()
    )
    config = program.configure(args)
    assert (config.data.batch_size, config.tag, config.train.accumulation_steps) == (32, "007", 2)
    assert (config.train.use_checkpoint, config.train.epochs, config.seed) == (True, 9, 4)
    assert (config.output, config.ema.decay, config.amp.level) == ("/a=b", 0.99, "O1")
    assert config.model.resume == "auto"
    args = program.parse(f"-c {cfg} --opts TRAIN.EPOCHS=9 seed=3".split())
    config = program.configure(args)
    assert (config.train.epochs, config.seed) == (9, 3) and {"train.epochs", "seed"} <= args.given


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "model.name=inline_diet_digits"], "did you mean 'inline_deit_digits'"),
        (["-o", "model.overrides.deph=3"], "did you mean 'depth'"),
        (["-o", "train.epoch=3"], "did you mean 'train.epochs'"),
        (["-o", "train.epochs=many"], "train.epochs is 'many'; it takes a whole number"),
        (["--batch-size", "x"], "error: --batch-size: data.batch_size is 'x'; it takes a whole number"),
        (["-o", "data.batch_size=x"], "error: -o: data.batch_size is 'x'; it takes a whole number"),
        (
            ["--dataset", "pets"],
            "data.dataset is 'pets'; it is one of imagenet, cifar10, cifar100, digits, folder",
        ),
        (["--val-split", "0.1"], "data.val_split is 0.1 and data.dataset digits, which has held-out images"),
        (["--val-split", "1"], "data.val_split is 1.0; it must be at least 0 and below 1"),
        (["-o", "data.img_size=30"], "must divide by 4"),
        (["--batch-size", "7"], "must be even"),
        (["--batch-size", "2000"], "1433 training images are fewer"),
        (["-o", "model.num_classes=5"], "the data set has 10 classes"),
        (["-o", "aug.auto_augment=rnd-m9"], "is no policy"),
        (["--pretrained", "/none.pdparams"], "/none.pdparams"),
        (["--resume", "/none"], "no checkpoint /none: there is no such file or folder; give a run's folder"),
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
    checkpoints = sorted((run_folder / "checkpoints").glob("step_*"))
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


def matmul_of_wrong_shapes():
    return paddle.ones([2, 3]) @ paddle.ones([2, 3])


def fault_of_the_device():
    raise OSError("(External) CUDA error(719), unspecified launch failure.")


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [(matmul_of_wrong_shapes, ValueError, "InvalidArgument"), (fault_of_the_device, OSError, "CUDA error")],
)
def test_a_fault_of_the_code_or_the_machine_keeps_its_traceback(
    cfg, tmp_path, monkeypatch, fault, error, message
):
    """Paddle raises ValueError for wrong shapes and OSError for a device's faults: no mistakes of a user's."""
    monkeypatch.setattr(loop, "train_step", lambda *args, **kwargs: fault())
    with pytest.raises(error, match=message):
        run(cfg, tmp_path)
    text = (folder_of(tmp_path) / "errors" / "rank0.txt").read_text()
    assert f"in {fault.__name__}" in text and "in train_rank" in text and message in text


def test_out_of_memory_shows_its_traceback_and_a_hint(cfg, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "train_step", lambda *args, **kwargs: paddle.zeros([1 << 46]))
    assert run(cfg, tmp_path) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and "ResourceExhausted" in err and "in train_rank" in err
    assert err.splitlines()[-1].startswith("hint: out of memory. Try a smaller data.batch_size")
    assert "hint: out of memory" in (folder_of(tmp_path) / "errors" / "rank0.txt").read_text()


def test_a_shape_bug_in_a_model_as_a_user_meets_it(cfg, tmp_path):
    """In a process of its own: the stack down to the layer, and exit code 1."""
    code = (
        "import sys, train_paddle\n"
        "from paddle_inline.models import inline_deit\n"
        "forward = inline_deit.Block.forward\n"
        "def planted_bug(self, x, *more): return forward(self, x[:, :, 1:], *more)\n"
        "inline_deit.Block.forward = planted_bug\n"
        f"sys.exit(train_paddle.main(['--cfg', {cfg!r}, '--output', {str(tmp_path)!r}]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    report = (folder_of(tmp_path) / "errors" / "rank0.txt").read_text()
    for text in (done.stderr, report):
        assert (
            "Traceback" in text and "in planted_bug" in text and "in train_step" in text and "Error" in text
        )


def test_a_full_disk_ends_the_run_and_loses_nothing(finished, cfg, tmp_path, capsys, monkeypatch):
    save, count = checkpoint.save_file, []

    def full(*args):
        count.append(1)
        if len(count) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*args)

    monkeypatch.setattr(checkpoint, "save_file", full)
    assert run(cfg, tmp_path) == 2
    err = capsys.readouterr().err
    assert "step_00000033 cannot be written: No space left on device; earlier checkpoints are" in err
    found, skipped = newest_checkpoint(folder_of(tmp_path) / "checkpoints")
    assert found.name == "step_00000022" and not skipped
    assert run(cfg, tmp_path, "--resume", "auto") == 0
    assert digest(tmp_path) == digest(finished)


def test_a_vanished_output_folder_is_made_again(finished, cfg, tmp_path, monkeypatch):
    save, count = checkpoint.save_checkpoint, []

    def vanishing(*args, **kwargs):
        count.append(1)
        if len(count) == 3:
            shutil.rmtree(folder_of(tmp_path))
        return save(*args, **kwargs)

    monkeypatch.setattr(resume, "save_checkpoint", vanishing)
    assert run(cfg, tmp_path) == 0
    ours, theirs = (newest_checkpoint(folder_of(f) / "checkpoints")[0] for f in (tmp_path, finished))
    for name in ("model.pdparams", "ema.pdparams", "optimizer.safetensors"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    assert {row["epoch"] for row in read_metrics(folder_of(tmp_path))} == {4}


def test_a_new_run_sets_an_earlier_one_aside(finished, cfg, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    before = digest(tmp_path / "copy")
    assert run(cfg, tmp_path / "copy", "--stop-after", "1") == 0
    assert "an earlier run was here: it is now in " in capsys.readouterr().out
    assert digest(tmp_path / "copy", "default.1") == before
    ours = newest_checkpoint(folder_of(tmp_path / "copy") / "checkpoints")[0]
    assert ours.name == "step_00000011"
    assert {row["epoch"] for row in read_metrics(folder_of(tmp_path / "copy"))} == {1}


def test_a_run_killed_before_its_first_checkpoint_begins_again(cfg, tmp_path, monkeypatch, capsys):
    def dies(*args, **kwargs):
        raise OSError("the machine is gone")

    with monkeypatch.context() as patch:
        patch.setattr(resume, "save_checkpoint", dies)
        with pytest.raises(OSError, match="the machine is gone"):
            run(cfg, tmp_path)
    assert read_metrics(folder_of(tmp_path))[-1]["step"] == 11
    assert run(cfg, tmp_path, "--resume", "auto", "--stop-after", "1") == 0
    assert "training from the beginning" in capsys.readouterr().out
    assert [row["step"] for row in read_metrics(folder_of(tmp_path))] == [5, 10, 11, 11]


def jpegs(root, broken):
    """Two classes of 8 training images and 4 held-out ones, some of them cut short."""
    for part, count in (("train", 8), ("val", 4)):
        for label in ("cat", "dog"):
            (root / part / label).mkdir(parents=True)
            for i in range(count):
                path = root / part / label / f"{i}.jpg"
                Image.new("RGB", (9, 9), (20 * i, 200 if label == "cat" else 0, 90)).save(path)
                if f"{part}/{label}/{i}" in broken:
                    path.write_bytes(path.read_bytes()[:200])
    return [
        "-o",
        "data.dataset=imagenet",
        "--data-path",
        str(root),
        "--batch-size",
        "4",
        "-o",
        "ema.decay=null",
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_counted_or_end_the_run(cfg, tmp_path, capfd, monkeypatch, workers):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small = jpegs(tmp_path / "data", {"train/cat/3", "train/dog/0", "val/dog/2"})
    small += ["-o", f"data.num_workers={workers}", "-o", "train.epochs=2", "--save-steps", "3"]
    assert run(cfg, tmp_path / "fail", *small, "--on-bad-image", "fail") == 1
    err = capfd.readouterr().err
    assert ".jpg cannot be read" in err and "data.on_bad_image=skip" in err
    assert run(cfg, tmp_path / "skip", *small, "--on-bad-image", "skip") == 0
    out, err = capfd.readouterr()
    assert (
        "train/cat/3.jpg cannot be read" in err and "replaced 2 training images that could not be read" in out
    )
    rows = [row for row in read_metrics(folder_of(tmp_path / "skip")) if "top1" in row]
    assert [(row["bad_images"], row["bad_held_out_images"]) for row in rows] == [(2, 1), (2, 1)]
    assert "of 7 images (1 more cannot be read)" in out


def test_a_stop_within_an_epoch_forgets_no_broken_image(cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small = [*jpegs(tmp_path / "data", {"train/cat/3", "train/dog/0"}), "--on-bad-image", "skip"]
    small += ["-o", "train.epochs=2", "--save-steps", "1"]
    step, count = loop.train_step, []

    def dies(*args, **kwargs):
        count.append(1)
        if len(count) == 4:
            raise OSError("the machine is gone")
        return step(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", dies)
    with pytest.raises(OSError, match="the machine is gone"):
        run(cfg, tmp_path, *small)
    assert run(cfg, tmp_path, *small, "--resume", "auto") == 0
    rows = [row for row in read_metrics(folder_of(tmp_path)) if "top1" in row]
    assert [row["bad_images"] for row in rows] == [2, 2]


def cifar_archive(path, count=20):
    """An archive of CIFAR-10's form, with a few random images."""
    rng = np.random.RandomState(0)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    files = {
        name: {
            b"data": rng.randint(0, 256, (count, 3072), np.uint8),
            b"labels": rng.randint(0, 10, count).tolist(),
        }
        for name in names
    }
    files["batches.meta"] = {b"label_names": [b"class %d" % i for i in range(10)]}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            data = pickle.dumps(content, protocol=2)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def test_the_cifar_recipe_leaves_the_notebook_s_files(tmp_path, capsys):
    """The recipe as it stands, but for a small model, small images and two epochs."""
    archive = cifar_archive(tmp_path / "cifar-10-python.tar.gz")
    small = (
        "model.name=inline_deit_digits data.img_size=40 data.batch_size=50 data.num_workers=0 train.epochs=2"
    )
    options = [word for setting in small.split() for word in ("-o", setting)]
    cfg = str(ROOT / "configs" / "cifar10_deit_t.yaml")
    assert run(cfg, tmp_path, "--data-path", archive, "-o", "visualdl=false", *options) == 0
    folder = folder_of(tmp_path)
    wanted = {"best_model.pdparams", "best_optimizer.pdopt", "final_model.pdparams", "final_optimizer.pdopt"}
    assert wanted | {"curves.png", "predictions.png", "samples.png"} <= set(os.listdir(folder))
    last = folder / "checkpoints" / "last"
    assert (folder / "final_model.pdparams").read_bytes() == (last / "model.pdparams").read_bytes()
    # In Paddle's own form: it goes into an optimizer of the same model as any user would put it.
    model = create_model("inline_deit_digits", img_size=40)
    load_weights(model, folder / "final_model.pdparams")
    optimizer = make_optimizer("adam", model, decay_groups(model, 1e-5))
    stored = paddle.load(str(folder / "final_optimizer.pdopt"))
    moments = load_file(last / "optimizer.safetensors")["head.weight/moment1"]
    assert any(
        value.shape == list(moments.shape) and np.array_equal(value.numpy(), moments)
        for value in stored.values()
        if isinstance(value, paddle.Tensor)
    )
    optimizer.set_state_dict(stored)
    log = (folder / "train.log").read_text()
    assert "weight decay 1e-05" in log and "10 classes, 50 images per step" in log


def test_visualdl_shows_images_scalars_and_histograms(cfg, tmp_path):
    visualdl = pytest.importorskip("visualdl")
    shown = ["-o", "visualdl=true", "-o", "histogram_freq=1", "-o", "train.epochs=2", "--stop-after", "1"]
    assert run(cfg, tmp_path, *shown) == 0
    assert (folder_of(tmp_path) / "samples.png").stat().st_size > 1000
    (file,) = (folder_of(tmp_path) / "visualdl").iterdir()
    tags = visualdl.LogReader(file_path=str(file)).get_tags()
    scalars = {"train/loss", "train/lr", "train/grad_norm", "system/images_per_s", "system/memory_mb"}
    assert {*scalars, "eval/top1", "eval/ema_top1", "eval/held_out_loss"} <= set(tags["scalar"])
    assert not {"epoch", "system/bad_images", "system/bad_held_out_images"} & set(tags["scalar"])
    assert "augmented images" in str(tags["image"]) and "weights/head.weight" in str(tags["histogram"])


@pytest.mark.parametrize("fault", ["missing", "broken"])
def test_a_run_without_a_working_visualdl(cfg, tmp_path, capsys, monkeypatch, fault):
    class Broken:
        def __init__(self, logdir):
            pass

        def __getattr__(self, name):
            raise OSError(f"no {name} today")

    module = None if fault == "missing" else type("visualdl", (), {"LogWriter": Broken})
    monkeypatch.setitem(sys.modules, "visualdl", module)
    shown = ["-o", "visualdl=true", "-o", "histogram_freq=1", "-o", "train.epochs=2", "--stop-after", "1"]
    assert run(cfg, tmp_path, *shown) == 0
    said = "VisualDL is not used" if fault == "missing" else "VisualDL failed and is not used from here on"
    assert capsys.readouterr().out.count(said) == 1
    assert read_metrics(folder_of(tmp_path))[-1]["top1"] > 0


def test_weight_decay_groups_are_named_at_the_start(finished):
    log = (folder_of(finished) / "train.log").read_text()
    assert "weight decay 0: " in log and "vectors and biases" in log
    assert " cls_token, pos_embed\n" in log and "weight decay 0.05: " in log
    assert ", blocks.*.attn.qkv.weight, " in log


def test_a_run_that_explodes_says_where_and_keeps_its_checkpoint(cfg, tmp_path, capsys):
    assert run(cfg, tmp_path, "--stop-after", "1") == 0
    capsys.readouterr()
    wild = ["--resume", "auto", "--force", "-o", "train.base_lr=1e36", "-o", "train.clip_grad=null"]
    assert run(cfg, tmp_path, *wild) == 1
    out, err = capsys.readouterr()
    assert out.count("not finite; the step is skipped") == 3
    assert "at step" in err and "rank 0" in err and "first layer whose output is not finite: " in err
    assert "first layer whose output is not finite: none" not in err and "train.base_lr" in err
    batch = np.load(folder_of(tmp_path) / "bad_batch_rank0.npz")
    assert batch["images"].shape == (128, 3, 8, 8) and np.isfinite(batch["images"]).all()
    found, skipped = newest_checkpoint(folder_of(tmp_path) / "checkpoints")
    assert found.name == "step_00000011" and not skipped


def test_an_average_that_is_not_continued_is_said(cfg, tmp_path, capsys):
    """As of a converted run whose settings keep no average."""
    assert run(cfg, tmp_path, "--stop-after", "1") == 0
    arguments = ("--resume", "auto", "--force", "--stop-after", "1", "-o", "ema.decay=null")
    assert "averaged weights are left out" not in capsys.readouterr().out
    assert run(cfg, tmp_path, *arguments) == 0
    assert "averaged weights are left out, for the settings keep none" in capsys.readouterr().out
