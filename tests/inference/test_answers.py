"""Which answer belongs to which picture: in any order, in any batch, with pictures between them that cannot be read.

The pictures are of one shade each, and the engine's answer is the shade that it sees: class 3 for the fourth.
"""

import argparse
import base64
import io
import itertools
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_inline import create_model
from paddle_inline.cli import predict as command
from paddle_inline.inference import predictor as module
from paddle_inline.inference.gallery import page
from paddle_inline.inference.predictor import Prediction, Predictor, softmax
from paddle_inline.training.checkpoint import save_weights

SHADES = [20 * number for number in range(10)]  # of classes 0 to 9
NAMES = [f"shade {shade}" for shade in SHADES]
TRANSFORM = {"img_size": 8, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "crop": False}
OVERRIDES = {"img_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 2}


def solid(shade):
    return Image.new("RGB", (12, 9), (shade,) * 3)


def see(images):
    """Answer as an engine does: the class of the shade, and its neighbours a little."""
    seen = np.rint(images.mean((1, 2, 3)) * 255 / 20)
    return -np.abs(np.arange(10.0)[None] - seen[:, None] - 0.1).astype("float32")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights that says how images are made."""
    path = tmp_path_factory.mktemp("weights") / "w.pdparams"
    model = create_model("inline_deit_digits", **OVERRIDES)
    described = {
        "format": 1,
        "model": model.name,
        "overrides": OVERRIDES,
        "transform": TRANSFORM,
        "classes": NAMES,
    }
    save_weights(path, model.state_dict(), described)
    return path


@pytest.fixture(scope="module")
def model(weights):
    return create_model(weights=weights)


@pytest.fixture(scope="module")
def predictor(model):
    """One whose engine sees shades; `calls` keeps the sizes of its batches."""
    predictor, calls = Predictor(model), []
    predictor._start = lambda images: lambda batch: calls.append(len(batch)) or see(batch)
    predictor.calls = calls
    return predictor


@pytest.fixture
def folder(tmp_path):
    """Ten pictures whose names are in another order than their shades, two of them damaged."""
    order = np.random.RandomState(1).permutation(10)
    for number in order:
        solid(SHADES[number]).save(tmp_path / f"{order[number]}_is_{number}.png")
    for name in ("3_damaged.png", "7_damaged.png"):
        (tmp_path / name).write_bytes(b"no picture")
    return tmp_path


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 10, 64])
@pytest.mark.parametrize("fixed", [None, 1, 4])
def test_answers_are_in_the_order_of_the_pictures(predictor, monkeypatch, batch_size, fixed):
    """Through an engine of any batch and of a fixed one, which takes padding whose answers are nobody's."""
    monkeypatch.setitem(predictor.card, "input", {"shape": [fixed, 3, 8, 8]})
    order = [3, 9, 0, 0, 7, 1, 2, 8, 5, 4, 6]
    del predictor.calls[:]
    answers = predictor([solid(SHADES[number]) for number in order], topk=1, batch_size=batch_size)
    assert [[(one.index, one.name) for one in row] for row in answers] == [[(i, NAMES[i])] for i in order]
    assert max(predictor.calls) == (fixed or min(batch_size, len(order)))


def test_every_kind_of_picture_has_its_own_answer(predictor, folder):
    path = next(folder.glob("*_is_6.png"))
    given = [solid(SHADES[2]), path, np.asarray(solid(SHADES[9])), str(path), solid(SHADES[0])]
    assert [row[0].index for row in predictor(given, batch_size=2)] == [2, 6, 9, 6, 0]
    assert [row[0].index for row in predictor(iter(given), batch_size=2)] == [2, 6, 9, 6, 0]


@pytest.mark.parametrize("topk", [1, 2, 5, 10, 11, 1000])
def test_the_likeliest_come_first_each_with_its_name_and_probability(predictor, topk):
    (row,) = predictor(solid(SHADES[4]), topk=topk)
    powers = np.exp(-np.abs(np.arange(10.0) - 4.1))
    assert [one.index for one in row] == [4, 5, 3, 6, 2, 7, 1, 8, 0, 9][:topk]
    for one in row:
        assert one.name == NAMES[one.index]
        assert one.probability == pytest.approx(powers[one.index] / powers.sum(), rel=1e-5)


@pytest.mark.parametrize("given", [dict(topk=0), dict(batch_size=0), dict(topk=-1)])
def test_less_than_one_is_refused(predictor, given):
    with pytest.raises(ValueError, match="both start at 1"):
        predictor(solid(0), **given)


def test_probabilities_of_any_logits():
    """Each row for itself: one of large logits neither overflows nor takes another's digits."""
    found = softmax(np.array([[1e4, 1e4 + 1, 0], [-1e4, -1e4, -1e4], [0, np.log(3), -800]], "float32"))
    e = np.exp(1.0)
    expected = [[1 / (1 + e), e / (1 + e), 0], [1 / 3] * 3, [0.25, 0.75, 0]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_names_that_are_given_are_taken_before_those_of_the_weights(model):
    given = [f"mine {number}" for number in range(10)]
    assert (Predictor(model).classes, Predictor(model, classes=given).classes) == (NAMES, given)
    assert Predictor(model, classes=given).name_of(3) == "mine 3"
    with pytest.raises(ValueError, match="9 class names for a model of 10 classes"):
        Predictor(model, classes=given[1:])


@pytest.mark.parametrize("device", ["gpux", "cpu:1", "gpu:", "", "xpu"])
def test_a_device_that_there_is_not_is_refused_before_the_first_picture(model, device):
    with pytest.raises(ValueError, match="must be cpu, gpu or gpu:N"):
        Predictor(model, device=device)


def test_what_is_assumed_is_a_warning(model, recwarn):
    assert Predictor(model).assumed is None and not recwarn
    bare = create_model("inline_deit_digits", **OVERRIDES)
    bare.description = {}
    with pytest.warns(UserWarning, match="do not say how their images are made") as said:
        predictor = Predictor(bare)
    assert [str(one.message) for one in said] == [predictor.assumed]


def test_a_copy_by_pickle_answers_and_describes_itself_alike(model):
    one = Predictor(model)
    again = pickle.loads(pickle.dumps(one))
    assert again._model.description == model.description and again._model.description["classes"] == NAMES
    assert (again.card, again.classes, again.options, again.engine) == (
        one.card,
        one.classes,
        one.options,
        one.engine,
    )
    picture = np.random.RandomState(0).randint(0, 256, (9, 9, 3)).astype(np.uint8)
    assert again(picture) == one(picture)
    assert Predictor(again._model).card == one.card


def call(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 12])
def test_the_command_gives_each_file_its_own_answer(
    predictor, folder, tmp_path, monkeypatch, capsys, batch_size
):
    """In JSON, in the table and on the page, whichever of its batch could not be read."""
    pages = []
    monkeypatch.setattr(command, "open_predictor", lambda arguments: predictor)
    monkeypatch.setattr(
        "paddle_inline.inference.gallery.page_pieces",
        lambda card, answers, count, unreadable: pages.append(list(answers)) or [],
    )
    outputs = "--json", tmp_path / "out.json", "--html", tmp_path / "out.html"
    code = call(folder, "--weights", "w", "--batch-size", batch_size, "--topk", 1, *outputs)
    printed = capsys.readouterr()
    assert code == 1
    assert all(f"{number}_damaged.png cannot be read" in printed.err for number in (3, 7))
    rows = json.loads((tmp_path / "out.json").read_text())["images"]
    assert len(rows) == 10 and sorted(row["image"] for row in rows) == [row["image"] for row in rows]
    for row in rows:
        number = int(re.search(r"_is_(\d)", row["image"])[1])
        assert [one["index"] for one in row["classes"]] == [number], row
        line = next(line for line in printed.out.splitlines() if Path(row["image"]).name in line)
        assert f"shade {SHADES[number]} " in line
    for path, image, classes in pages[0]:
        assert classes[0].index == int(path.stem[-1]) == SHADES.index(image.getpixel((0, 0))[0])
    assert len(pages[0]) == 10


def test_the_command_s_exit_code_says_whether_all_could_be_read(predictor, folder, monkeypatch, capsys):
    monkeypatch.setattr(command, "open_predictor", lambda arguments: predictor)
    whole = next(folder.glob("*_is_1.png"))
    assert call(whole) == 0
    assert call(whole, folder / "3_damaged.png") == 1
    assert call(folder / "3_damaged.png") == 1


OPTIONS = {"device": "gpu:1", "threads": 3, "precision": "bf16", "engine": "paddle"}


@pytest.mark.parametrize("source", ["export", "weights"])
def test_the_command_s_options_reach_the_predictor(weights, tmp_path, monkeypatch, source):
    seen = []
    monkeypatch.setattr(command, "Predictor", lambda source, **given: seen.append((source, given)) or exit_())
    monkeypatch.setattr("paddle.set_device", lambda name: seen.append(name))
    monkeypatch.setattr(command, "check_gpu", lambda device: None)
    (tmp_path / "names.txt").write_text("\n".join(map(str, range(10))))
    solid(0).save(tmp_path / "a.png")
    words = [word for key, value in OPTIONS.items() for word in (f"--{key}", value)]
    with pytest.raises(Stopped):
        call(tmp_path / "a.png", f"--{source}", weights, "--classes", tmp_path / "names.txt", *words)
    if source == "weights":
        assert seen.pop(0) == "gpu:1" and seen[0][0].name == "inline_deit_digits"
    assert seen[0][1] == {**OPTIONS, "classes": tuple(map(str, range(10))), "streams": 1}  # of one picture


class Stopped(Exception):
    """The predictor would run now."""


def exit_():
    raise Stopped


def test_a_page_shows_each_picture_with_its_own_answer():
    answers = [
        (Path(f"{number}.png"), solid(SHADES[number]), [Prediction(number, NAMES[number], 0.5)])
        for number in (4, 1, 7)
    ]
    text = page({"model": "m", "num_classes": 10, "preprocessing": {"img_size": 8}}, answers)
    figures = re.findall(r'base64,([^"]+)" alt="(\d)\.png".*?<span>shade (\d+)</span>', text, re.S)
    assert len(figures) == 3
    for (data, name, shade), number in itertools.zip_longest(figures, (4, 1, 7)):
        with Image.open(io.BytesIO(base64.b64decode(data))) as thumbnail:
            assert thumbnail.getpixel((0, 0))[0] == SHADES[number]
        assert (int(name), int(shade)) == (number, SHADES[number])


class Made(Exception):
    """An engine is made, with these arguments."""


@pytest.fixture
def export(tmp_path, model):
    """A folder with a card and no programs."""
    card = {
        "format": 1,
        "model": model.name,
        "num_classes": 10,
        "classes": None,
        "preprocessing": TRANSFORM,
        "input": {"shape": [None, 3, 8, 8]},
        "files": {"program": "model.json", "params": "model.pdiparams", "onnx": "model.onnx"},
        "onednn": True,
    }
    (tmp_path / "card.json").write_text(json.dumps(card))
    for name in card["files"].values():
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "name", "expected"),
    [
        (dict(engine="onnx", threads=3), "OnnxEngine", ("model.onnx", 3)),
        (dict(engine="openvino", threads=3), "OpenVinoEngine", ("model.onnx", 3, "fp32", dict(streams=1))),
        (
            dict(engine="openvino", precision="bf16", streams=2),
            "OpenVinoEngine",
            ("model.onnx", None, "bf16", dict(streams=2)),
        ),
        (
            dict(engine="paddle", threads=3, precision="bf16", device="gpu:1"),
            "PaddleEngine",
            ("model.json", "model.pdiparams", dict(device="gpu:1", threads=3, precision="bf16", onednn=True)),
        ),
        (
            dict(engine="paddle", onednn=False),
            "PaddleEngine",
            (
                "model.json",
                "model.pdiparams",
                dict(device="cpu", threads=None, precision="fp32", onednn=False),
            ),
        ),
    ],
)
def test_the_options_of_a_predictor_reach_its_engine(export, monkeypatch, options, name, expected):
    def engine(*given, **more):
        raise Made(*(each.name if isinstance(each, Path) else each for each in given), *filter(None, [more]))

    monkeypatch.setattr(module, name, engine)
    monkeypatch.setattr("paddle_inline.inference.backends.check_gpu", lambda device: None)
    monkeypatch.setattr(module, "lacks_bfloat16", lambda engine: False)
    with pytest.raises(Made) as made:
        Predictor(export, **options)(solid(0))
    assert made.value.args == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preprocessing": {**TRANSFORM, "crop_ratio": 7}}, "has crop_ratio 7"),
        ({"preprocessing": {**TRANSFORM, "std": [1.0, 1.0, 0.0]}}, "has std"),
        ({"preprocessing": {**TRANSFORM, "rotate": 9}}, "unknown entry 'rotate'"),
        ({"format": 0}, "has format 0, this version reads 1"),
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"files": {"program": "../model.json", "params": "p"}}, "must lie beside it"),
        ({"files": {"program": "model.json", "params": "/p"}}, "must lie beside it"),
    ],
)
def test_a_card_that_nobody_wrote_is_refused_by_the_predictor(export, change, message):
    card = {**json.loads((export / "card.json").read_text()), **change}
    (export / "card.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=re.escape(message)):
        Predictor(export)
