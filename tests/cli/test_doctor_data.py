"""`doctor DATA` says what a run would make of a data set."""

import pytest

from paddle_inline.cli.main import main
from tests.data.test_layouts import cifar_files, tar
from tests.data.trees import picture, tree


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def test_a_good_data_set(tmp_path, capsys):
    tree(tmp_path, "abc", "bc")
    (tmp_path / "train" / "a" / "x.heic").touch()
    assert main(["doctor", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "data.dataset imagenet" in out and "train: 6 images, 3 classes: a, b, c" in out
    assert "images a class: 2 to 2" in out and "1 .heic" in out and "val has no image of a" in out
    assert "6 read: widths 8 to 8, heights 6 to 6, 0 broken" in out and "a run would start" in out


def test_other_classes_and_broken_images(tmp_path, capsys):
    tree(tmp_path, "ab", "ax")
    (tmp_path / "train" / "b" / "1.png").write_bytes(b"no image")
    assert main(["doctor", str(tmp_path), "--all"]) == 1
    out = capsys.readouterr().out
    assert (
        "b/1.png" in out and "val has images of x, which train does not know" in out and "2 problems" in out
    )


def test_images_alone_and_nothing(tmp_path, capsys):
    picture().save(tmp_path / "a.png")
    assert main(["doctor", str(tmp_path)]) == 0
    assert "1 image for `predict`" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main(["doctor", str(tmp_path / "empty")]) == 1
    assert main(["doctor", str(tmp_path / "none")]) == 1
    assert "no data set folder" in capsys.readouterr().out


def test_weights(tmp_path, capsys):
    from paddle_inline import create_model
    from paddle_inline.training.checkpoint import save_weights

    sizes = {"num_classes": 2, "depth": 1}
    model = create_model("inline_deit_digits", **sizes)
    about = {"model": "inline_deit_digits", "overrides": sizes, "classes": ["a", "b"]}
    save_weights(tmp_path / "w.pdparams", model.state_dict(), about)
    assert main(["doctor", str(tmp_path / "w.pdparams")]) == 0
    out = capsys.readouterr().out
    assert (
        "tensors of inline_deit_digits" in out
        and "classes: ['a', 'b']" in out
        and "transform: not said" in out
    )


def run(path, capsys, *options):
    code = main(["doctor", str(path), *options])
    return code, capsys.readouterr().out


def test_suffixes_and_the_transform(tmp_path, capsys):
    tree(tmp_path, "ab")
    picture().save(tmp_path / "train" / "a" / "9.JPG")
    (tmp_path / "metadata.csv").write_text("a")  # is no mark of CIFAR-100
    code, out = run(tmp_path, capsys)
    assert code == 0 and "of these 4 .png, 1 .jpg" in out
    assert "evaluation, unless the settings say otherwise: " in out and "img_size 224" in out


def test_files_that_a_list_names_and_that_are_not_there(tmp_path, capsys):
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        for i in range(2):
            picture(i).save(tmp_path / part / f"{i}.png")
        (tmp_path / f"{part}_list.txt").write_text(
            f"{part}/0.png 0\n{part}/1.png 1\n" + f"{part}/none.png 1\n" * 15
        )
    code, out = run(tmp_path, capsys)
    assert code == 1 and out.count("none.png: there is no such file") == 20 and "and 5 more" in out
    assert "2 read" in out and "30 problems" in out


def test_images_of_both_parts(tmp_path, capsys):
    for i in range(2):
        picture(i).save(tmp_path / f"{i}.png")
    (tmp_path / "train_list.txt").write_text("0.png 0\n1.png 1\n")
    (tmp_path / "val_list.txt").write_text("1.png 1\n")
    code, out = run(tmp_path, capsys)
    assert code == 0 and "train has 1 image of val: " in out


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"Train/a/0.png", "Val/a/0.png"}, "is it Train? Rename it to train"),
        ({"x/train/a/0.png"}, "x has one: give that folder"),
        ({"validation/a/0.png", "train/a/0.png"}, "is it validation? Rename it to val"),
        ({"a/0.png", "b/0.png"}, "2 images for `predict`"),
    ],
)
def test_other_levels_and_names(tmp_path, capsys, files, message):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(tmp_path / name)
    code, out = run(tmp_path, capsys)
    assert message in out and code == ("predict" not in message)


def test_single_files(tmp_path, capsys):
    picture().save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", capsys)[0] == 0
    (tmp_path / "b.png").write_bytes(b"<html>")
    code, out = run(tmp_path / "b.png", capsys)
    assert code == 1 and "b.png cannot be read as an image: it is a web page" in out
    (tmp_path / "c.pdf").write_bytes(b"%PDF")
    assert "is a file (a PDF), no data set folder" in run(tmp_path / "c.pdf", capsys)[1]


def test_cifar_under_any_name_and_the_weights_of_a_run(tmp_path, capsys):
    code, out = run(tar(tmp_path / "c10.tgz", cifar_files(), "w:gz"), capsys)
    assert code == 0 and "data.dataset cifar10" in out and "10 images, 10 classes" in out
    from paddle_inline import create_model
    from paddle_inline.training.checkpoint import save_weights

    sizes = {"num_classes": 2, "depth": 1}
    model = create_model("inline_deit_digits", **sizes)
    (tmp_path / "run").mkdir()
    about = {"model": "inline_deit_digits", "overrides": sizes, "classes": ["a", "b"]}
    save_weights(tmp_path / "run" / "best_model.pdparams", model.state_dict(), about)
    code, out = run(tmp_path / "run", capsys)
    assert code == 0 and "best_model.pdparams: " in out and "tensors of inline_deit_digits" in out


def test_one_folder_of_classes_is_said_to_be_trainable(tmp_path, capsys):
    for name, count in (("cat", 3), ("猫", 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            picture(i).save(tmp_path / name / f"{i}.png")
    assert main(["doctor", str(tmp_path)]) == 0
    assert "as 2 class folders (cat 3, 猫 2) with --dataset folder --val-split 0.1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (
            {"a": 3, "b": 3, "c": 0},
            ["4 to learn from, 2 held out", "WARN  {}: no image in the class folders c"],
        ),
        ({"a": 3}, ["as 1 class folders (a 3)", "WARN  {} holds one class folder, 'a'"]),
        (
            {"a": 3, "b": 1},
            ["3 to learn from, 1 held out", "WARN  too few images to share, learnt and never held out: b"],
        ),
        (
            {"a": 1, "b": 1},
            ["WARN  as 2 class folders", "a run would not start: {} has 2 images in 2 classes"],
        ),
    ],
)
def test_what_a_run_says_of_one_folder_of_classes_is_said_before(tmp_path, capsys, images, said):
    for name, count in images.items():
        (tmp_path / name).mkdir()
        for i in range(count):
            picture(i).save(tmp_path / name / f"{i}.png")
    assert main(["doctor", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert [line for line in said if line.format(tmp_path) not in out] == [] and "class by class" not in out
