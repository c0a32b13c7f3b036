"""Images to classes: the training's transform, any number of images, files that cannot be read."""

import argparse
import json

import numpy as np
import pytest
from PIL import Image

paddle = pytest.importorskip("paddle")

from paddle_inline import create_model  # noqa: E402
from paddle_inline.data.transforms import eval_transform  # noqa: E402
from paddle_inline.inference import predictor as predict  # noqa: E402
from paddle_inline.inference.backends import PaddleEngine  # noqa: E402
from paddle_inline.inference.export import export_model  # noqa: E402
from paddle_inline.inference.gallery import page  # noqa: E402
from paddle_inline.inference.predictor import Predictor, find_images, read_image  # noqa: E402

NAMES = ["zero", "<one>", *"23456789"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    model = create_model("inline_deit_digits", depth=1)
    export_model(model, folder / "any", classes=NAMES, log=lambda line: None)
    export_model(model, folder / "two", batch=2, log=lambda line: None)
    return model, folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for i, name in enumerate(("a.png", "b.JPG", "more/c.png")):
        pixels = np.random.RandomState(i).randint(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_an_export_and_its_model_answer_alike(exported, photos):
    model, folder = exported
    images = [read_image(path) for path in find_images([photos])]
    from_files, from_model = Predictor(folder / "any")(images), Predictor(model, classes=NAMES)(images)
    assert [[g.name for g in row] for row in from_files] == [[g.name for g in row] for row in from_model]
    for ours, theirs in zip(from_files, from_model):
        assert len(ours) == 5
        assert [g.probability for g in ours] == pytest.approx([g.probability for g in theirs], abs=1e-5)
        assert ours == sorted(ours, key=lambda g: -g.probability)


def test_the_transform_is_the_training_one(exported, photos):
    predictor = Predictor(exported[1] / "any")
    image = read_image(photos / "a.png")
    expected = eval_transform(32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))(image, None)
    np.testing.assert_array_equal(predictor.transform(image), expected)


def test_a_program_of_two_serves_any_number(exported):
    _, folder = exported
    images = np.random.RandomState(0).standard_normal((5, 3, 32, 32)).astype("float32")
    expected = Predictor(folder / "any").logits(images)
    np.testing.assert_allclose(Predictor(folder / "two").logits(images), expected, rtol=0, atol=1e-5)
    assert Predictor(folder / "two").logits(images[:0]).shape == (0, 10)


def test_onednn_that_fails_is_left_off_with_a_warning(exported, monkeypatch):
    _, folder = exported
    run = PaddleEngine.__call__
    made = []

    def fail_with_onednn(self, images):
        if made[-1]:
            raise RuntimeError("(Unimplemented) an attribute\n  [Hint: oneDNN]")
        return run(self, images)

    init = PaddleEngine.__init__
    monkeypatch.setattr(
        PaddleEngine,
        "__init__",
        lambda self, *a, onednn, **k: made.append(onednn) or init(self, *a, onednn=onednn, **k),
    )
    monkeypatch.setattr(PaddleEngine, "__call__", fail_with_onednn)
    with pytest.warns(UserWarning, match="left off.*Hint: oneDNN"):
        Predictor(folder / "any", onednn=True).logits(np.zeros((1, 3, 32, 32), "float32"))
    assert made == [True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "tensorrt"}, "unknown engine"),
        ({"engine": "onnx"}, "holds no ONNX files"),
        ({"engine": "openvino"}, "holds no ONNX files"),
        ({"classes": ["a", "b"]}, "2 class names for a model of 10"),
    ],
)
def test_what_an_export_does_not_have_is_refused(exported, options, message):
    with pytest.raises(ValueError, match=message):
        Predictor(exported[1] / "any", **options)


def test_the_fastest_engine_that_is_there_is_taken(exported, tmp_path, monkeypatch):
    _, folder = exported
    assert Predictor(folder / "any").engine == "paddle"  # no ONNX file
    card = json.loads((folder / "any" / "card.json").read_text())
    card["files"]["onnx"] = "model.onnx"
    (tmp_path / "card.json").write_text(json.dumps(card))
    for installed, in_float32, in_bfloat16 in (
        ({"openvino", "onnxruntime"}, "openvino", "openvino"),
        ({"onnxruntime"}, "onnx", "paddle"),
        ((), "paddle", "paddle"),
    ):
        monkeypatch.setattr(predict, "find_spec", installed.__contains__ if installed else lambda name: False)
        assert Predictor(tmp_path).engine == in_float32
        assert Predictor(tmp_path, precision="bf16").engine == in_bfloat16
        assert Predictor(tmp_path, device="gpu").engine == "paddle"
    with pytest.raises(ValueError, match="use engine paddle for gpu"):
        Predictor(tmp_path, engine="openvino", device="gpu")
    with pytest.raises(ValueError, match="use paddle or openvino for bf16"):
        Predictor(tmp_path, engine="onnx", precision="bf16")


def test_a_folder_without_a_card_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no card\.json"):
        Predictor(tmp_path)


def test_files_folders_and_patterns_are_found_once(photos):
    names = [path.name for path in find_images([photos, photos / "a.png", f"{photos}/**/*.png"])]
    assert names == ["a.png", "b.JPG", "c.png"]
    with pytest.raises(FileNotFoundError, match=r"no image .*nowhere"):
        find_images([photos / "nowhere"])


def call(*words):
    parser = argparse.ArgumentParser()
    run = predict.predict_command(parser)
    return run(parser.parse_args([str(word) for word in words]))


def test_the_command_writes_table_json_and_page(exported, photos, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_text("not an image")
    out, html = tmp_path / "o.json", tmp_path / "o.html"
    code = call(photos, bad, "--export", exported[1] / "any", "--topk", 2, "--json", out, "--html", html)
    said = capsys.readouterr()
    assert code == 1 and "bad.png cannot be read" in said.err
    assert "a.png" in said.out and "ReduceMean" not in said.out
    answers = json.loads(out.read_text())
    assert [len(row["classes"]) for row in answers["images"]] == [2, 2, 2]
    assert html.read_text().count("<figure>") == 3
    assert call(photos / "a.png", "--export", exported[1] / "any", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["model"] == "inline_deit_digits"


def test_the_command_wants_a_model(photos):
    with pytest.raises(ValueError, match="needs --export DIR, or --weights"):
        call(photos)


def test_the_page_escapes_names():
    guess = predict.Prediction(1, "<one>", 0.5)
    card = {"model": "<m>", "num_classes": 10, "preprocessing": {"img_size": 32}}
    from pathlib import Path

    text = page(card, [(Path('"x<.png'), Image.new("RGB", (8, 8)), [guess])])
    assert "&lt;one&gt;" in text and "<one>" not in text and "&lt;m&gt;" in text and "&#34;x&lt;.png" in text


def test_paddle_s_engine_prints_nothing(exported, capfd):
    _, folder = exported
    predictor = Predictor(folder / "any", engine="paddle")
    for batch in (1, 2):
        predictor.logits(np.zeros((batch, 3, 32, 32), "float32"))
    assert capfd.readouterr().out == ""
