"""A folder of one's own from the first step to `--eval`: one split all the way."""

import csv
import json
import shutil

import pytest

from paddle_inline.data.split import KEPT
from paddle_inline.training import program
from tests.data.trees import picture

SMALL = (
    "data.batch_size=4 data.img_size=8 data.num_workers=0 train.epochs=2 model.name=inline_deit_digits "
    "model.overrides.depth=1 model.overrides.embed_dim=16 model.overrides.num_heads=2 train.warmup_epochs=1 "
    "aug.auto_augment=none visualdl=false"
)
SHARED = ["--dataset", "folder", "--val-split", "0.25"]


def pictures(root, first=0, count=8):
    for number, name in enumerate(("cat", "dog", "猫")):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + count):
            picture(100 * number + i).save(root / name / f"{i}.png")
    return root


def train(place, *more):
    options = [word for setting in SMALL.split() for word in ("-o", setting)]
    places = ["--data-path", str(place / "flowers"), "--output", str(place / "out")]
    return program.main([*places, *options, *more])


def folder(place):
    return place / "out" / "inline_deit_digits" / "default"


def held_out(place):
    return json.loads((folder(place) / KEPT).read_text())["held_out"]


@pytest.fixture(autouse=True)
def quick(trained, monkeypatch):
    """All runs but the first draw nothing."""
    for name in ("show_samples", "finish"):
        monkeypatch.setattr(program.report, name, lambda *args, **kwargs: None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs over three classes of 8 pictures, 2 of each held out."""
    place = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        pictures(place / "flowers")
        assert train(place, *SHARED) == 0
    return place


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of it, to be changed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(trained, tmp_path / "own", symlinks=True)
    return tmp_path / "own"


def test_the_log_calls_the_data_by_its_name_and_says_how_they_are_shared(trained):
    log = (folder(trained) / "train.log").read_text(encoding="utf-8")
    path = trained / "flowers"
    assert f"flowers ({path}): 18 training and 6 held-out images, 3 classes" in log
    assert log.count("6 of 24 images are held out, class by class (data.val_split 0.25, seed 0)") == 1
    assert "imagenet" not in log and "top-1" in log and "of 6 images" in log


def test_the_run_keeps_what_it_holds_out(trained):
    assert sorted(name.split("/")[0] for name in held_out(trained)) == ["cat"] * 2 + ["dog"] * 2 + ["猫"] * 2


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_the_answers_of_the_best_weights_are_in_the_run_s_folder(trained):
    rows = table(folder(trained) / "classes.csv")
    assert [row[1:3] for row in rows[1:]] == [["cat", "2"], ["dog", "2"], ["猫", "2"]]
    right, mistakes = sum(int(row[3]) for row in rows[1:]), table(folder(trained) / "mistakes.csv")[1:]
    log = (folder(trained) / "train.log").read_text(encoding="utf-8")
    assert f"best_model.pdparams, over all held-out images: top-1 {100 * right / 6:.2f}%" in log
    assert f"best top-1 {100 * right / 6:.2f}% (epoch" in log and len(mistakes) == 6 - right
    held = {str(trained / "flowers" / name) for name in held_out(trained)}
    assert {row[0] for row in mistakes} <= held
    assert all(row[1] == row[0].split("/")[-2] != row[2] for row in mistakes)
    for name in ("confusion.png", "predictions.png", "curves.png", "samples.png"):
        assert (folder(trained) / name).is_file()


def test_an_evaluation_writes_the_same_report(run, capsys):
    evaluate(run, "--report", str(run / "report"))
    for name in ("classes.csv", "confusion.csv"):
        assert (run / "report" / name).read_bytes() == (folder(run) / name).read_bytes()
    assert (run / "report" / "confusion.png").is_file()
    out = capsys.readouterr().out
    assert f"the report is in {run / 'report'}" in out and "top-1" in out.splitlines()[0]


def test_a_run_that_is_finished_has_nothing_left_to_do(run, capsys):
    before = {path: path.stat().st_mtime_ns for path in folder(run).iterdir() if path.suffix == ".png"}
    assert train(run, *SHARED, "--resume", "auto") == 0
    out = capsys.readouterr().out
    assert "nothing is left to do after 2 epochs, best top-1" in out and "--epochs and --force" in out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def evaluate(place, *more, weights="best_model.pdparams"):
    given = ["--eval", "--pretrained", str(folder(place) / weights), "--data-path", str(place / "flowers")]
    metrics = place / "metrics.json"
    assert program.main([*given, "--metrics", str(metrics), "--opts", "data.num_workers", "0", *more]) == 0
    return json.loads(metrics.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "more, noted",
    [
        ([], ""),
        (SHARED, ""),
        (["--dataset", "folder", "--val-split", "0.5", "-o", "seed=4"], "data.val_split 0.5 is not used"),
    ],
)
def test_an_evaluation_is_over_the_same_images_also_when_others_have_come(run, capsys, more, noted):
    pictures(run / "flowers", first=8)
    found = evaluate(run, *more)
    assert found["images"] == 6 and [row["images"] for row in found["classes"]] == [2, 2, 2]
    err = capsys.readouterr().err
    assert f"as {KEPT} of the run says" in err and (noted in err if noted else "not used" not in err)


def test_a_checkpoint_of_the_run_and_its_settings_find_the_split_too(run):
    pictures(run / "flowers", first=8)
    assert evaluate(run, weights="checkpoints/last/model.pdparams")["images"] == 6
    assert evaluate(run, "--cfg", str(folder(run) / "config.yaml"))["images"] == 6


def test_weights_that_have_left_their_run_are_measured_on_a_split_of_the_settings(run, capsys):
    (folder(run) / KEPT).unlink()
    assert evaluate(run, *SHARED)["images"] == 6
    assert f"the images are shared anew, for there is no {KEPT} beside" in capsys.readouterr().err


def test_other_held_out_images_are_taken_as_they_are(run, capsys):
    for name in ("cat", "dog", "猫"):
        shutil.copytree(run / "flowers" / name, run / "flowers" / "val" / name)
    assert evaluate(run)["images"] == 24
    assert evaluate(run, *SHARED)["images"] == 24
    assert "data.val_split 0.25 is not used" in capsys.readouterr().err


def test_a_run_that_is_resumed_keeps_its_split(run, capsys):
    before = held_out(run)
    pictures(run / "flowers", first=8)
    assert train(run, *SHARED, "--resume", "auto") == 2
    assert "training images: 18 -> 42" in capsys.readouterr().err
    assert train(run, *SHARED, "--resume", "auto", "--epochs", "3", "--force") == 0
    assert held_out(run) == before
    assert "42 training and 6 held-out images" in (folder(run) / "train.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("changed", [["--val-split", "0.5"], ["-o", "seed=1"]])
def test_another_split_is_another_run(run, capsys, changed):
    before = held_out(run)
    assert train(run, *SHARED, "--resume", "auto", *changed) == 2
    assert "data.val_split: 0.25 -> 0.5" in (err := capsys.readouterr().err) or "seed: 0 -> 1" in err
    assert held_out(run) == before
    assert train(run, *SHARED, "--resume", "auto", "--force", "--epochs", "3", *changed) == 0
    assert held_out(run) != before


def test_an_image_that_has_gone_stays_held_out_for_when_it_comes_back(run):
    before = held_out(run)
    (run / "flowers" / before[0]).unlink()
    assert train(run, *SHARED, "--resume", "auto") == 0
    assert held_out(run) == before


def test_a_checkpoint_elsewhere_brings_its_split_along(run):
    before = held_out(run)
    assert train(run, *SHARED, "--resume", str(folder(run)), "--tag", "other") == 0
    other = json.loads((folder(run).with_name("other") / KEPT).read_text())
    assert other["held_out"] == before
