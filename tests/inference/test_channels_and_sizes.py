"""Models of grey, RGBA and rectangular images through every stage: training, --eval, Predictor, export, predict."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

paddle = pytest.importorskip("paddle")

import train_paddle  # noqa: E402
from paddle_inline import Predictor, create_model  # noqa: E402
from paddle_inline.cli.main import main  # noqa: E402
from paddle_inline.config.load import load_config  # noqa: E402
from paddle_inline.data.sources import open_source  # noqa: E402
from paddle_inline.inference import checks  # noqa: E402
from paddle_inline.inference.backends import PaddleEngine  # noqa: E402
from paddle_inline.inference.export import export_model  # noqa: E402
from paddle_inline.training.build import build_run  # noqa: E402
from paddle_inline.training.checkpoint import save_weights  # noqa: E402
from paddle_inline.utils.errors import UserError, WrongTypeError  # noqa: E402
from paddle_inline.weights import open_weights  # noqa: E402

SMALL = {"depth": 1, "embed_dim": 16, "num_heads": 2}
SETTINGS = ["data.num_workers", "0", "data.batch_size", "128", "visualdl", "false", "train.epochs", "1"]
SETTINGS += [part for key, value in SMALL.items() for part in (f"model.overrides.{key}", str(value))]
CASES = {
    "grey": (1, 16, []),
    "alpha": (4, 16, []),
    "wide": (3, [16, 24], []),
    "grey tall": (1, [24, 16], ["data.mean", "[0.3]", "data.std", "[0.4]"]),
}
WORDS = r"in_chans is 2; pictures have 1 channel \(grey\), 3 \(RGB\) or 4 \(RGB and alpha\)"


def run_training(output, *opts):
    arguments = ["--cfg", "configs/quickstart.yaml", "--output", str(output), "--opts", *SETTINGS, *opts]
    return train_paddle.main(arguments)


@pytest.fixture(scope="module", params=CASES)
def trained(request, tmp_path_factory):
    """(channels, size, mean, the run's folder) of a run on the digits."""
    channels, size, more = CASES[request.param]
    output = tmp_path_factory.mktemp("run")
    assert run_training(output, "model.in_chans", str(channels), "data.img_size", str(size), *more) == 0
    mean = {1: [0.449], 3: [0.485, 0.456, 0.406], 4: [0.485, 0.456, 0.406, 0.485]}[channels]
    return channels, size, [0.3] if more else mean, output / "inline_deit_digits" / "default"


@pytest.fixture
def in_process(monkeypatch):
    """The export's check with oneDNN without a process of its own."""

    def run(program, params, batches):
        engine = PaddleEngine(program, params)
        return [engine(images) for images in batches]

    monkeypatch.setattr(checks, "run_onednn_apart", run)


def best_of(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return max(row["top1"] for row in rows if "top1" in row)


def digits(count=40):
    source = open_source("digits", "", train=False)
    return [source[i][0] for i in range(count)]


def test_every_stage_takes_what_training_took(trained, tmp_path, in_process, capsys):
    channels, size, mean, run = trained
    sides = [size, size] if isinstance(size, int) else size
    description = open_weights(run / "best_model.pdparams")[1]
    assert description["transform"]["img_size"] == size and description["transform"]["mean"] == mean
    assert train_paddle.main(["--eval", "--pretrained", str(run), "--opts", "data.dataset", "digits"]) == 0
    assert f"top-1 {best_of(run):.2f}%" in capsys.readouterr().out

    model = create_model(weights=run)
    predictor = Predictor(model)
    assert predictor.mode == {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    assert predictor.transform(digits(1)[0]).shape == (channels, *sides)
    card = export_model(model, tmp_path / "export", log=lambda line: None)
    assert card["input"] == {"shape": [None, channels, *sides], "dtype": "float32", "order": predictor.mode}
    assert card["preprocessing"] == description["transform"]
    exported = Predictor(tmp_path / "export")
    expected = predictor(digits())
    for found in (exported(digits()), exported([np.asarray(image) for image in digits()])):
        assert [[one.name for one in row] for row in found] == [[one.name for one in row] for row in expected]

    digits(1)[0].save(tmp_path / "a.png")
    for source in (["--weights", str(run)], ["--export", str(tmp_path / "export")]):
        written = ["--json", str(tmp_path / "j"), "--html", str(tmp_path / "h.html")]
        assert main(["predict", str(tmp_path / "a.png"), *source, *written]) == 0
        found = json.loads((tmp_path / "j").read_text())["images"][0]["classes"][0]
        assert found["name"] == expected[0][0].name
        assert f"at {sides[0]} x {sides[1]} pixels" in (tmp_path / "h.html").read_text()


def test_a_batch_of_another_shape_is_refused_before_the_engine(trained, tmp_path, in_process):
    channels, size, _, run = trained
    export_model(create_model(weights=run), tmp_path / "export", log=lambda line: None)
    height, width = (size, size) if isinstance(size, int) else size
    for predictor in (Predictor(tmp_path / "export"), Predictor(create_model(weights=run))):
        for shape in (
            (1, channels, width, height + 8),
            (1, channels + 1, height, width),
            (channels, height, width),
            (0, channels, height + 4, width),
        ):
            with pytest.raises(UserError, match=rf"takes \[B, {channels}, {height}, {width}\]"):
                predictor.logits(np.zeros(shape, "float32"))
        assert predictor.logits(np.zeros((2, channels, height, width), "float32")).shape == (2, 10)
        for dtype in ("uint8", "int64", "complex64", "bool"):
            with pytest.raises(WrongTypeError, match=f"{dtype}.*floating-point"):
                predictor.logits(np.zeros((1, channels, height, width), dtype))


def test_arrays_are_taken_as_the_model_s_channels_are():
    grey, colour, alpha = (
        Predictor(create_model("inline_deit_digits", in_chans=channels, **SMALL)) for channels in (1, 3, 4)
    )
    pixels = np.random.RandomState(0).randint(0, 256, (20, 30, 4)).astype("uint8")
    image = Image.fromarray(pixels)
    assert grey(pixels[..., 0]) == grey(Image.fromarray(pixels[..., 0])) == grey(pixels[..., :1])
    assert grey([pixels[..., 0], pixels[..., 1]]) == grey(np.stack([pixels[..., :1], pixels[..., 1:2]]))
    assert grey(pixels[..., :3]) == grey(image.convert("RGB").convert("L"))
    assert alpha(pixels) == alpha(image) != alpha(image.convert("RGB"))
    assert colour(pixels[..., :3]) == colour(image.convert("RGB"))
    for predictor, wrong in (
        (colour, pixels[..., 0]),
        (colour, pixels),
        (grey, pixels),
        (alpha, pixels[..., 0]),
    ):
        with pytest.raises(WrongTypeError, match="a Predictor takes a path, an array of H x W"):
            predictor(wrong)


def test_channels_that_pictures_have_not_got_are_refused_with_the_same_words(tmp_path, capsys):
    model = create_model("inline_deit_digits", in_chans=2, **SMALL)
    weights = tmp_path / "w.pdparams"
    save_weights(weights, model.state_dict(), {"model": model.name, "overrides": {"in_chans": 2, **SMALL}})
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    calls = [
        lambda: run_training(tmp_path / "out", "model.in_chans", "2", "data.data_path", "/nowhere"),
        lambda: train_paddle.main(["--eval", "--pretrained", str(weights)]),
        lambda: main(["predict", str(tmp_path / "a.png"), "--weights", str(weights)]),
        lambda: main(["export", "--weights", str(weights), "--output", str(tmp_path / "export")]),
    ]
    for call in calls:
        assert call() == 2
        capsys.readouterr().err.index("in_chans is 2; pictures have 1 channel (grey)")
    for call in (lambda: Predictor(model), lambda: export_model(model, tmp_path / "export")):
        with pytest.raises(UserError, match=WORDS):
            call()
    assert not (tmp_path / "out").exists() and not (tmp_path / "export").exists()


def test_a_size_that_the_family_cannot_build_is_refused_before_the_data_are_looked_for(tmp_path, capsys):
    for size in ("[16, 18]", "30"):
        assert run_training(tmp_path / "out", "data.img_size", size, "data.dataset", "imagenet") == 2
        assert "must divide by 4 on both sides; try" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("channels", [1, 4])
def test_rgb_weights_train_on_as_other_channels_and_the_log_says_how(tmp_path, channels):
    rgb = create_model("inline_deit_digits", **SMALL)
    save_weights(tmp_path / "rgb.pdparams", rgb.state_dict(), None)
    pretrained = ["model.pretrained", str(tmp_path / "rgb.pdparams"), "data.img_size", "32"]
    config = load_config("configs/quickstart.yaml", [*SETTINGS, *pretrained, "model.in_chans", str(channels)])
    run = build_run(config, 0, 1)
    said = {1: "summed over its 3 input channels, for 1", 4: "repeated from 3 to 4 input channels, times 3/4"}
    assert f"{tmp_path}/rgb.pdparams: {said[channels]}: patch_embed.proj.weight" in run.notes
    assert sum("of 3 channels" in note for note in run.notes) == 2  # mean and deviation
    first, found = rgb.patch_embed.proj.weight.numpy(), run.components.model.patch_embed.proj.weight.numpy()
    expected = first.sum(1, keepdims=True) if channels == 1 else first[:, [0, 1, 2, 0]] * 0.75
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_grey_picture_is_the_same_to_rgb_weights_summed_for_one_channel(tmp_path):
    """With one mean and deviation for all channels, the sum over channels is exact."""
    half = {"img_size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    rgb = create_model("inline_deit_digits", **SMALL)
    description = {"model": rgb.name, "overrides": SMALL, "transform": half, "classes": list("abcdefghij")}
    save_weights(tmp_path / "rgb.pdparams", rgb.state_dict(), description)
    with pytest.warns(
        UserWarning, match="rgb.pdparams: summed over its 3 input channels, for 1: patch_embed"
    ):
        grey = create_model(weights=tmp_path / "rgb.pdparams", in_chans=1)
    assert grey.description["transform"]["mean"] == [0.5] and grey.description["classes"] == list(
        "abcdefghij"
    )
    pictures = [image.convert("L") for image in digits(8)]
    rgb = create_model(weights=tmp_path / "rgb.pdparams")
    a, b = Predictor(grey), Predictor(rgb)
    np.testing.assert_allclose(
        a.logits(np.stack([a.transform(image) for image in pictures])),
        b.logits(np.stack([b.transform(image) for image in pictures])),
        atol=1e-5,
    )


@pytest.mark.parametrize("size", [48, (32, 48)])
def test_weights_are_fitted_to_another_size_that_is_asked_for(tmp_path, size, capsys, in_process):
    model = create_model("inline_deit_digits", **SMALL)
    path = tmp_path / "w.pdparams"
    transform = {"img_size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    save_weights(path, model.state_dict(), {"model": model.name, "overrides": SMALL, "transform": transform})
    with pytest.warns(UserWarning, match="w.pdparams: pos_embed resized from 8 x 8 to"):
        other = create_model(weights=path, img_size=size)
    sides = [size, size] if isinstance(size, int) else list(size)
    assert Predictor(other).transform(Image.new("RGB", (9, 9))).shape == (3, *sides)
    opts = ["data.dataset", "digits", "data.img_size", str(list(sides))]
    assert train_paddle.main(["--eval", "--pretrained", str(path), "--opts", *opts]) == 0
    assert "pos_embed resized from 8 x 8" in capsys.readouterr().err
    out = ["--output", str(tmp_path / "e"), "--img-size", *map(str, sides)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["export", "--weights", str(path), *out]) == 0
    assert json.loads((tmp_path / "e" / "card.json").read_text())["input"]["shape"] == [1, 3, *sides]


def test_plain_weights_are_used_as_their_tensors_say(tmp_path, capsys, in_process):
    """Neither a name nor a description: class count, channels and input size are those of the tensors."""
    model = create_model("inline_deit_digits", num_classes=12, in_chans=1, img_size=48)
    state = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "plain.safetensors")
    paddle.save(model.state_dict(), str(tmp_path / "plain.pdparams"))
    digits(1)[0].save(tmp_path / "a.png")
    for name in ("plain.safetensors", "plain"):
        weights = ["--weights", str(tmp_path / name)]
        written = ["--json", str(tmp_path / "j"), "--topk", "20"]
        assert main(["predict", str(tmp_path / "a.png"), *weights, *written]) == 0
        assert len(json.loads((tmp_path / "j").read_text())["images"][0]["classes"]) == 12
        said = capsys.readouterr().err.splitlines()
        notes = [line for line in said if "by its tensors it is of inline_deit_digits" in line]
        assert len(notes) == 1 and notes[0].startswith("note: ")
        assert not [line for line in said if "UserWarning" in line]
        assert main(["export", *weights, "--output", str(tmp_path / "e")]) == 0
        card = json.loads((tmp_path / "e" / "card.json").read_text())
        assert card["input"]["shape"] == [1, 1, 48, 48] and card["preprocessing"]["mean"] == [0.449]
        capsys.readouterr()
        evaluate = ["--eval", "--pretrained", str(tmp_path / name), "--opts", "data.dataset", "digits"]
        assert train_paddle.main(evaluate) == 0
        said = capsys.readouterr()
        assert said.out.startswith("inline_deit_digits with ") and "published recipe" in said.err
