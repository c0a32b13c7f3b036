"""The transform and the class names of one run, in every file that is made of it and wherever one is used."""

import json

import numpy as np
import pytest
from PIL import Image

paddle = pytest.importorskip("paddle")
pytest.importorskip("torch")

import torch_ref  # noqa: E402
import train_paddle  # noqa: E402
from convert.checkpoint import ConversionOptions  # noqa: E402
from convert.conversion import convert  # noqa: E402
from convert.formats.source import open_source  # noqa: E402
from paddle_inline import Predictor, create_model  # noqa: E402
from paddle_inline.cli.main import main  # noqa: E402
from paddle_inline.data.transforms import eval_transform  # noqa: E402
from paddle_inline.inference import checks  # noqa: E402
from paddle_inline.inference.backends import PaddleEngine  # noqa: E402
from paddle_inline.inference.export import export_model  # noqa: E402
from paddle_inline.weights import open_weights  # noqa: E402

NAMES = sorted(map(str, range(12)))  # "10" and "11" before "2"
TRANSFORM = {
    "img_size": [40, 48],
    "mean": [0.9],
    "std": [0.1],
    "interpolation": "bilinear",
    "crop": True,
    "resize": "short",
    "crop_ratio": 0.8,
}
SETTINGS = {
    **{"data.dataset": "imagenet", "data.batch_size": 12, "data.num_workers": 0, "data.img_size": "[40, 48]"},
    **{"data.mean": "[0.9]", "data.std": "[0.1]", "data.interpolation": "bilinear", "model.in_chans": 1},
    **{"test.resize": "short", "test.crop_ratio": 0.8, "train.epochs": 1, "train.warmup_epochs": 0},
    **{"ema.decay": 0.5, "save_optimizer": "true", "visualdl": "false", "model.overrides.depth": 1},
    **{"model.overrides.embed_dim": 16, "model.overrides.num_heads": 2},
}
FILES = ["best_model", "best_model_ema", "final_model", "checkpoints/last/model", "checkpoints/last/ema"]
WAYS = [("pth", "pdparams"), ("safetensors", "safetensors"), ("pt", "pdparams")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in NAMES:
        for part, count in (("train", 2), ("val", 1)):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.random.RandomState(i).randint(0, 20, (50, 60, 3)) + 19 * int(name)
                Image.fromarray(pixels.astype("uint8")).save(folder / part / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("run")
    opts = [str(part) for pair in SETTINGS.items() for part in pair]
    arguments = ["--cfg", "configs/quickstart.yaml", "--data-path", str(data), "--output", str(output)]
    assert train_paddle.main([*arguments, "--opts", *opts]) == 0
    return output / "inline_deit_digits" / "default"


def says_it_all(description):
    return description["transform"] == TRANSFORM and description["classes"] == NAMES


@pytest.mark.parametrize("file", FILES)
def test_every_file_of_a_run_says_it(run, file):
    assert says_it_all(open_weights(run / f"{file}.pdparams")[1])


@pytest.mark.parametrize("there, back", WAYS)
@pytest.mark.parametrize("file", FILES[:2])
def test_it_crosses_to_pytorch_and_back(run, tmp_path, file, there, back):
    no_check = ConversionOptions(verify=False)
    convert(run / f"{file}.pdparams", tmp_path / f"t.{there}", "torch", no_check)
    assert says_it_all(open_source(tmp_path / f"t.{there}").description)
    assert torch_ref.create_model(weights=tmp_path / f"t.{there}").img_size == (40, 48)
    convert(tmp_path / f"t.{there}", tmp_path / f"p.{back}", "paddle", no_check)
    assert says_it_all(open_weights(tmp_path / f"p.{back}")[1])
    model = create_model(weights=tmp_path / f"p.{back}")
    assert says_it_all(model.description) and Predictor(model).classes == NAMES


def test_another_size_and_another_head_change_only_what_they_must(run, tmp_path):
    sized = ConversionOptions(verify=False, img_size=(80, 40))
    convert(run / "best_model.pdparams", tmp_path / "s.pdparams", "paddle", sized)
    description = open_weights(tmp_path / "s.pdparams")[1]
    assert description["transform"] == {**TRANSFORM, "img_size": [80, 40]} and description["classes"] == NAMES
    headed = ConversionOptions(verify=False, num_classes=3)
    convert(run / "best_model.pdparams", tmp_path / "h.pdparams", "paddle", headed)
    description = open_weights(tmp_path / "h.pdparams")[1]
    assert description["transform"] == TRANSFORM and "classes" not in description


def test_every_user_of_weights_follows_it(run, data, tmp_path, monkeypatch, capsys):
    def run_here(program, params, batches):
        engine = PaddleEngine(program, params)
        return [engine(images) for images in batches]

    monkeypatch.setattr(checks, "run_onednn_apart", run_here)
    model = create_model(weights=run)
    model.head.weight.set_value(paddle.zeros_like(model.head.weight))
    bias = np.zeros(12, "float32")
    bias[NAMES.index("2")] = 5
    model.head.bias.set_value(paddle.to_tensor(bias))
    card = export_model(model, tmp_path / "export", log=lambda line: None)
    assert card["preprocessing"] == TRANSFORM and card["classes"] == NAMES
    picture = data / "val" / "2" / "0.png"
    values = dict(TRANSFORM)
    expected = eval_transform(values.pop("img_size"), **values)(Image.open(picture).convert("L"), None)
    for predictor in (Predictor(model), Predictor(tmp_path / "export")):
        assert predictor(picture, topk=1)[0][0].name == "2"
        np.testing.assert_array_equal(predictor.transform(Image.open(picture)), expected)
    assert (
        main(["predict", str(picture), "--export", str(tmp_path / "export"), "--json", str(tmp_path / "j")])
        == 0
    )
    assert json.loads((tmp_path / "j").read_text())["images"][0]["classes"][0]["name"] == "2"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = max(row["top1"] for row in rows if "top1" in row)
    capsys.readouterr()
    assert train_paddle.main(["--eval", "--pretrained", str(run), "--data-path", str(data)]) == 0
    said = capsys.readouterr()
    assert f"top-1 {best:.2f}%" in said.out and "assumed" not in said.err
