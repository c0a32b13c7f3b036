"""`doctor DATA` says what a run would make of a data set."""

import pytest

from paddle_inline.cli.main import main
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
    assert "1 images for `predict`" in capsys.readouterr().out
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
