"""`--eval` takes the classes that weights know: labels are their numbers, other classes are refused."""

import json

import paddle
import pytest

import train_paddle
from paddle_inline import create_model
from paddle_inline.training.checkpoint import save_weights
from tests.data.trees import tree

OVERRIDES = {"num_classes": 3, "embed_dim": 16, "depth": 1, "num_heads": 1}


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Weights that answer the third of their classes, fox, whatever the image."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def save(**description):
        model = create_model("inline_deit_digits", **OVERRIDES)
        model.head.weight.set_value(paddle.zeros_like(model.head.weight))
        model.head.bias.set_value(paddle.to_tensor([0.0, 0.0, 9.0]))
        path = tmp_path / "run" / "best_model.pdparams"
        save_weights(
            path,
            model.state_dict(),
            {"model": "inline_deit_digits", "overrides": OVERRIDES, **description},
        )
        return path

    return save


def evaluate(root, weights):
    options = [
        f"-o=model.overrides.{key}={value}" for key, value in OVERRIDES.items() if key != "num_classes"
    ]
    given = [
        "--cfg",
        "configs/quickstart.yaml",
        "--data-path",
        str(root),
        "--eval",
        "--pretrained",
        str(weights),
    ]
    return train_paddle.main([*given, *options, "-o=data.dataset=imagenet"])


def test_labels_are_the_numbers_of_the_weights_classes(tmp_path, weights, capsys):
    tree(tmp_path / "data", [], ["dog", "fox"])  # fox is the second folder, and the weights' third class
    assert evaluate(tmp_path / "data", weights(classes=["cat", "dog", "fox"])) == 0
    out, err = capsys.readouterr()
    assert "top-1 50.00%, top-5 - of 4 images" in out and "val has no image of cat" in err


def test_other_classes_are_refused_with_both_lists(tmp_path, weights, capsys):
    tree(tmp_path / "data", [], ["aa", "cat", "dog"])
    assert evaluate(tmp_path / "data", weights(classes=["cat", "dog", "fox"])) == 2
    error = capsys.readouterr().err
    assert "val has images of aa" in error and ": 3, cat, dog, fox; val: 3, aa, cat, dog" in error


def test_a_run_of_0_1_says_its_classes_in_its_state(tmp_path, weights, capsys):
    path = weights()
    (path.parent / "checkpoints" / "last").mkdir(parents=True)
    state = path.parent / "checkpoints" / "last" / "state.json"
    state.write_text(json.dumps({"classes": ["cat", "dog", "fox"]}))
    tree(tmp_path / "data", [], ["aa", "cat", "dog"])
    assert evaluate(tmp_path / "data", path) == 2
    assert "the run of" in capsys.readouterr().err


def test_without_either_the_training_folder_is_asked(tmp_path, weights, capsys):
    tree(tmp_path / "data", ["cat", "dog", "fox"], ["dog", "fox"])
    assert evaluate(tmp_path / "data", weights()) == 0
    out, err = capsys.readouterr()
    assert "top-1 50.00%" in out and "does not name its classes: taken to be those of" in err
