"""Resuming over other pictures, classes, batches: refused with both numbers, forced at an epoch's border."""

import json
import random

import pytest
from PIL import Image

from paddle_inline.training import loop, program
from paddle_inline.training.checkpoint import check_checkpoint, newest_checkpoint
from paddle_inline.training.log import read_metrics
from paddle_inline.weights.atomic import sha256

SMALL = (
    "data.dataset=imagenet data.batch_size=4 data.img_size=8 data.num_workers=0 train.epochs=4 "
    "model.name=inline_deit_digits model.overrides.depth=1 model.overrides.embed_dim=16 "
    "model.overrides.num_heads=2 train.warmup_epochs=1 aug.auto_augment=none visualdl=false"
)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("show_samples", "finish"):
        monkeypatch.setattr(program.report, name, lambda *args, **kwargs: None)


def pictures(root, classes=("a", "b", "c"), first=0, count=8):
    for part in ("train", "val"):
        for number, name in enumerate(classes):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(first, first + count):
                Image.new("RGB", (9, 9), (50 * number, 7 * i % 256, 90)).save(root / part / name / f"{i}.png")


def run(tmp_path, *more):
    options = [word for setting in SMALL.split() for word in ("-o", setting)]
    places = ["--data-path", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    return program.main([*places, *options, *more])


def folder(tmp_path):
    return tmp_path / "out" / "inline_deit_digits" / "default"


def newest(tmp_path):
    return check_checkpoint(newest_checkpoint(folder(tmp_path) / "checkpoints")[0]).progress


def counted(patch):
    """Return a list that grows with every step taken."""
    taken, take = [], loop.train_step
    patch.setattr(loop, "train_step", lambda *args, **more: taken.append(1) or take(*args, **more))
    return taken


def killed_at(tmp_path, monkeypatch, step):
    """Run until this step, a checkpoint of which is left."""
    take, count = loop.train_step, []

    def dies(*args, **kwargs):
        count.append(1)
        if len(count) > step:
            raise OSError("the machine is gone")
        return take(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", dies)
        with pytest.raises(OSError, match="the machine is gone"):
            run(tmp_path, "--save-steps", "1")
    assert newest(tmp_path).step == step


def test_pictures_added_between(tmp_path, capsys, monkeypatch):
    pictures(tmp_path / "data")
    killed_at(tmp_path, monkeypatch, 9)  # of 6 an epoch
    pictures(tmp_path / "data", first=8)
    capsys.readouterr()
    assert run(tmp_path, "--resume", "auto") == 2
    err = capsys.readouterr().err
    assert "training images: 24 -> 48" in err and "steps an epoch: 6 -> 12" in err and "--force" in err
    assert run(tmp_path, "--resume", "auto", "--force") == 0
    progress = newest(tmp_path)
    assert (progress.epoch, progress.step) == (4, 48)
    out = capsys.readouterr().out
    assert "resumed from" in out and "epoch 1, step 12" in out and "epoch 2 begins anew" in out
    rows = read_metrics(folder(tmp_path))
    assert [row["epoch"] for row in rows if "top1" in row] == [1, 2, 3, 4]


def test_pictures_taken_away_or_added_without_another_step(tmp_path, capsys):
    """The number of steps stays; the order of the pictures does not."""
    pictures(tmp_path / "data")
    assert run(tmp_path, "--stop-after", "1") == 0
    (tmp_path / "data" / "train" / "a" / "extra.png").write_bytes(
        (tmp_path / "data" / "train" / "a" / "0.png").read_bytes()
    )
    assert run(tmp_path, "--resume", "auto") == 2
    err = capsys.readouterr().err
    assert "training images: 24 -> 25" in err and "steps an epoch" not in err


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        (["--batch-size", "12"], 2),
        (["--batch-size", "2"], 12),
        (["--accumulation-steps", "3"], 2),
        (["-o", "seed=3"], 6),
    ],
)
def test_forced_with_other_batches_no_epoch_is_empty(tmp_path, capsys, monkeypatch, changes, steps):
    pictures(tmp_path / "data")
    killed_at(tmp_path, monkeypatch, 15)
    taken = counted(monkeypatch)
    assert run(tmp_path, "--resume", "auto", *changes) == 2
    assert run(tmp_path, "--resume", "auto", "--force", *changes) == 0
    assert newest(tmp_path).step == 4 * steps
    assert len(taken) == 2 * steps  # the third epoch, which had begun, and the fourth


def test_forced_with_another_rate_goes_on_within_the_epoch(tmp_path, monkeypatch):
    pictures(tmp_path / "data")
    killed_at(tmp_path, monkeypatch, 15)
    taken = counted(monkeypatch)
    assert run(tmp_path, "--resume", "auto", "--force", "-o", "train.base_lr=1e-3") == 0
    assert len(taken) == 9


def test_other_classes(tmp_path, capsys):
    pictures(tmp_path / "data")
    assert run(tmp_path, "--stop-after", "1") == 0
    for part in ("train", "val"):
        (tmp_path / "data" / part / "b").rename(tmp_path / "data" / part / "z")
    assert run(tmp_path, "--resume", "auto") == 2
    assert "classes: 3 -> 3; no longer there: b; new: z" in capsys.readouterr().err
    assert run(tmp_path, "--resume", "auto", "--force", "--stop-after", "1") == 0


def test_any_change_of_the_data_is_refused_and_any_forced_run_has_whole_epochs(tmp_path, capsys, monkeypatch):
    """Variants drawn at random: numbers of pictures, batch, accumulation, and the step of the kill."""
    draw = random.Random(0)
    for trial in range(3):
        place = tmp_path / str(trial)
        first, more, batch = draw.randint(4, 9), draw.randint(1, 9), draw.choice([2, 4, 6])
        pictures(place / "data", count=first)
        killed_at(place, monkeypatch, draw.randint(3 * first // 4 + 1, 2 * (3 * first // 4)))
        done = newest(place).epoch
        pictures(place / "data", first=first, count=more)
        other = ["--resume", "auto", "--batch-size", str(batch)]
        assert run(place, *other) == 2
        assert f"training images: {3 * first} -> {3 * (first + more)}" in capsys.readouterr().err
        with monkeypatch.context() as patch:
            taken = counted(patch)
            assert run(place, *other, "--force") == 0
        steps = 3 * (first + more) // batch
        assert len(taken) == (4 - done) * steps and newest(place).step == 4 * steps


@pytest.mark.parametrize("change", ["renamed", "another in its place", "of another class"])
def test_as_many_pictures_in_another_order(tmp_path, capsys, change):
    """The order of an epoch follows from the names: step k would see other images."""
    pictures(tmp_path / "data")
    train = tmp_path / "data" / "train"
    assert run(tmp_path, "--stop-after", "1") == 0
    target = {
        "renamed": train / "a" / "zz.png",
        "another in its place": train / "a" / "00.png",
        "of another class": train / "b" / "00.png",
    }
    (train / "a" / "0.png").rename(target[change])
    assert run(tmp_path, "--resume", "auto") == 2
    said = "training images: 24 as before, but with other names, or of other classes"
    assert said in capsys.readouterr().err
    assert run(tmp_path, "--resume", "auto", "--force", "--stop-after", "1") == 0
    assert "epoch 2 begins anew" in capsys.readouterr().out


def test_a_data_set_that_has_moved_is_the_same(tmp_path):
    pictures(tmp_path / "data")
    assert run(tmp_path, "--stop-after", "1") == 0
    (tmp_path / "data").rename(tmp_path / "moved")
    assert run(tmp_path, "--resume", "auto", "--stop-after", "1", "--data-path", str(tmp_path / "moved")) == 0
    assert newest(tmp_path).epoch == 2


def test_a_checkpoint_that_does_not_know_its_names_is_continued(tmp_path):
    """As those of earlier versions."""
    pictures(tmp_path / "data")
    assert run(tmp_path, "--stop-after", "1") == 0
    found = newest_checkpoint(folder(tmp_path) / "checkpoints")[0]
    state = json.loads((found / "state.json").read_text())
    del state["image_names"]
    (found / "state.json").write_text(json.dumps(state))
    lines = (found / "SHA256SUMS").read_text().splitlines()
    lines = [f"{sha256(found / line[66:])}  {line[66:]}\n" for line in lines]
    (found / "SHA256SUMS").write_text("".join(lines))
    assert run(tmp_path, "--resume", "auto", "--stop-after", "1") == 0


def test_damaged_checkpoints_are_not_written_over(tmp_path, capsys):
    pictures(tmp_path / "data")
    assert run(tmp_path, "--stop-after", "1") == 0
    found = newest_checkpoint(folder(tmp_path) / "checkpoints")[0]
    best = (folder(tmp_path) / "best_model.pdparams").read_bytes()
    whole = (found / "SHA256SUMS").read_text()
    for damage in ("", whole.replace("model.pdparams", "other")):
        (found / "SHA256SUMS").write_text(damage)
        assert run(tmp_path, "--resume", "auto") == 2
        said = capsys.readouterr().err
        assert (
            f"{found} is damaged" in said and "Begin anew without --resume, which sets that run aside" in said
        )
    assert (folder(tmp_path) / "best_model.pdparams").read_bytes() == best and found.is_dir()
    assert run(tmp_path, "--stop-after", "0") == 0
    assert (folder(tmp_path).with_name("default.1") / "best_model.pdparams").read_bytes() == best


def test_lines_of_metrics_that_a_lost_disk_left(tmp_path):
    pictures(tmp_path / "data")
    assert run(tmp_path, "--stop-after", "1") == 0
    path = folder(tmp_path) / "metrics.jsonl"
    rows = read_metrics(folder(tmp_path))
    path.write_bytes(b"\0\0\xff\n3\n" + path.read_bytes() + b'{"step": 6, "lo')
    assert read_metrics(folder(tmp_path)) == rows
    assert run(tmp_path, "--resume", "auto", "--stop-after", "1") == 0
    assert [row["epoch"] for row in read_metrics(folder(tmp_path)) if "top1" in row] == [1, 2]


def test_a_run_that_goes_on_elsewhere_says_where_its_best_weights_are(tmp_path, capsys):
    pictures(tmp_path / "data")
    assert run(tmp_path, "--stop-after", "1") == 0
    capsys.readouterr()
    more = ["--resume", str(folder(tmp_path)), "--tag", "other", "--stop-after", "1"]
    assert run(tmp_path, *more) == 0
    assert (
        f"epoch 1) stay in {folder(tmp_path)}; this folder gets better ones only" in capsys.readouterr().out
    )
