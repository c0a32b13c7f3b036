"""What a run knows travels with its weights: the same transform and names wherever they are used."""

import json
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

paddle = pytest.importorskip("paddle")

import train_paddle  # noqa: E402
from paddle_inline import Predictor, create_model  # noqa: E402
from paddle_inline.cli.main import main  # noqa: E402
from paddle_inline.data.sources import open_source  # noqa: E402
from paddle_inline.data.transforms import eval_transform  # noqa: E402
from paddle_inline.inference.export import export_model  # noqa: E402
from paddle_inline.training.checkpoint import save_weights  # noqa: E402
from paddle_inline.weights import open_weights  # noqa: E402

SMALL = ["visualdl", "false", "train.warmup_epochs", "0", "model.overrides.depth", "1"]
SMALL += ["model.overrides.embed_dim", "16", "model.overrides.num_heads", "2"]


def train(output, *opts):
    arguments = ["--cfg", "configs/quickstart.yaml", "--output", str(output), "--opts", *SMALL, *opts]
    assert train_paddle.main(arguments) == 0
    return output / "inline_deit_digits" / "default"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with another mean and deviation than ImageNet's, on the digits."""
    folder = tmp_path_factory.mktemp("run")
    normalised = ["data.mean", "[0.9, 0.9, 0.9]", "data.std", "[0.1, 0.1, 0.1]"]
    return train(folder, *normalised, "train.epochs", "2", "train.base_lr", "1e-2", "save_optimizer", "true")


def test_a_predictor_of_the_best_weights_reaches_the_accuracy_of_the_run(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = max(row["top1"] for row in rows if "top1" in row)
    source = open_source("digits", "", train=False)
    predictor = Predictor(create_model(weights=run / "best_model.pdparams"))
    images, labels = zip(*(source[i] for i in range(len(source))))
    answers = predictor(list(images), topk=1, batch_size=64)
    right = sum(row[0].name == source.classes[label] for row, label in zip(answers, labels))
    assert best > 15 and 100 * right / len(source) == pytest.approx(best)


@pytest.mark.parametrize("file", ["best_model", "final_model", "checkpoints/last/model"])
def test_every_file_of_a_run_says_how_it_was_evaluated(run, file):
    description = open_weights(run / f"{file}.pdparams")[1]
    assert description["transform"]["mean"] == [0.9, 0.9, 0.9]
    assert description["transform"]["std"] == [0.1, 0.1, 0.1]
    assert description["classes"] == [*"0123456789"]


def test_eval_uses_what_the_weights_say(run, capsys):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = max(row["top1"] for row in rows if "top1" in row)
    evaluate = ["--eval", "--opts", "data.dataset", "digits", "data.num_workers", "0"]
    for weights in (run, run / "best_model.pdparams", run / "best_model"):  # without any settings of the run
        assert train_paddle.main(["--pretrained", str(weights), *evaluate]) == 0
        assert f"top-1 {best:.2f}%" in capsys.readouterr().out
    given = [*evaluate, "data.mean", "[0.5, 0.5, 0.5]"]
    assert train_paddle.main(["--pretrained", str(run), *given]) == 0
    assert "data.mean is [0.5, 0.5, 0.5], as you say" in capsys.readouterr().err
    assert train_paddle.main(["--cfg", "configs/soft_digits.yaml", "--pretrained", str(run), *evaluate]) == 2
    assert "is of inline_deit_digits, the settings name soft_digits" in capsys.readouterr().err


def picture(folder, name, value):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(value).randint(0, 20, (40, 50, 3)) + np.array(
        [20 * value, 0, 255 - 20 * value]
    )
    Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(folder / name)


def test_the_names_are_the_folders_and_not_their_places(tmp_path):
    """Folders "0" to "11" sort as text: "10" and "11" come before "2"."""
    names = [str(i) for i in range(12)]
    for name in names:
        for split, count in (("train", 4), ("val", 1)):
            for i in range(count):
                picture(tmp_path / "data" / split / name, f"{i}.png", int(name))
    data = ["data.dataset", "imagenet", "data.data_path", str(tmp_path / "data"), "data.batch_size", "12"]
    best = train(tmp_path / "out", *data, "train.epochs", "1") / "best_model.pdparams"
    predictor = Predictor(create_model(weights=best))
    assert sorted(predictor.classes) == sorted(names)
    model = create_model(weights=best)
    paddle.seed(0)
    model.head.weight.set_value(paddle.zeros_like(model.head.weight))
    bias = np.zeros(12, "float32")
    bias[sorted(names).index("2")] = 5  # the output of folder 2's pictures
    model.head.bias.set_value(paddle.to_tensor(bias))
    assert Predictor(model)(tmp_path / "data/val/2/0.png", topk=1)[0][0].name == "2"
    card = export_model(model, tmp_path / "export", log=lambda line: None)
    assert card["classes"] == sorted(names)
    assert Predictor(tmp_path / "export")(tmp_path / "data/val/2/0.png", topk=1)[0][0].name == "2"
    assert (
        main(
            [
                "predict",
                str(tmp_path / "data/val/2/0.png"),
                "--weights",
                str(best),
                "--json",
                str(tmp_path / "j"),
            ]
        )
        == 0
    )
    found = json.loads((tmp_path / "j").read_text())["images"][0]["classes"]
    assert {row["name"] for row in found} <= set(names) and found[0]["name"] == sorted(names)[
        found[0]["index"]
    ]


def test_old_weights_load_with_one_line_on_what_is_assumed(tmp_path, capsys):
    model = create_model("inline_deit_digits", depth=1)
    save_weights(
        tmp_path / "old.pdparams", model.state_dict(), {"model": model.name, "overrides": {"depth": 1}}
    )
    with pytest.warns(UserWarning, match="do not say how their images are made.*published recipe"):
        predictor = Predictor(create_model(weights=tmp_path / "old.pdparams"))
    assert "\n" not in predictor.assumed and predictor.classes is None
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    assert main(["predict", str(tmp_path / "a.png"), "--weights", str(tmp_path / "old.pdparams")]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "do not say" in line]
    assert len(notes) == 1 and notes[0].startswith("note: ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Predictor(model)  # fresh weights have nothing to say


def test_an_export_and_its_copy_carry_the_runs_transform(run, tmp_path):
    model = create_model(weights=run / "best_model.pdparams")
    card = export_model(model, tmp_path / "export", log=lambda line: None)
    assert card["preprocessing"] == open_weights(run / "best_model.pdparams")[1]["transform"]
    assert create_model(card["model"], **card["overrides"]).spec == model.spec
    shutil.move(str(tmp_path / "export"), str(tmp_path / "moved"))
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 50, 3), np.uint8))
    found = Predictor(tmp_path / "moved")(image)[0]
    expected = Predictor(model)(image)[0]
    assert [one.name for one in found] == [one.name for one in expected]


def test_soft_keeps_the_aspect_of_its_images():
    """The short side to floor(224 / 0.9) = 248 and the centre, as SOFT's own evaluation; measured on 60 x 90."""
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (60, 90, 3), np.uint8))
    predictor = Predictor(create_model("soft_tiny", depths=(1, 1, 1, 1)))
    resized = image.resize((372, 248), Image.BICUBIC).crop((74, 12, 298, 236))
    expected = eval_transform(224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop=False)(
        resized, None
    )
    np.testing.assert_array_equal(predictor.transform(image), expected)
