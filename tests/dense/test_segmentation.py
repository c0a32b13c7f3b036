"""Small segmenters through train, eval, predict and export; mIoU against counts of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_inline import segmentation
from paddle_inline.segmentation import load_exported, register
from paddle_inline.segmentation.cli import main
from paddle_inline.segmentation.data import open_dataset, read_sample
from paddle_inline.segmentation.inference import classes_of, evaluate, in_eval_mode
from paddle_inline.segmentation.settings import Settings
from paddle_inline.segmentation.weights import load_segmenter
from paddle_inline.utils.errors import UserError

from .segmentation_toys import BACKBONE, SMALL, counted, make_ade20k, options, settings_of

heads = pytest.mark.parametrize("head", SMALL)


@pytest.fixture(scope="module", autouse=True)
def registered():
    return register()


@pytest.fixture(scope="module")
def ade(tmp_path_factory):
    return make_ade20k(tmp_path_factory.mktemp("ade"))


@pytest.fixture(scope="module")
def runs(ade, tmp_path_factory):
    """{head: folder of a run of four steps}."""
    folders = {head: tmp_path_factory.mktemp(head) / "run" for head in SMALL}
    for head, folder in folders.items():
        assert main(["train", *options(head, ade, folder)]) == 0
    return folders


def loaded(head, ade, run, *more):
    settings = settings_of(head, ade, *more)
    model = settings.model(pretrained=False)
    load_segmenter(model, run)
    return settings, model


@heads
def test_a_run_leaves_its_checkpoints_its_best_weights_and_its_numbers(runs, head):
    folder = runs[head]
    assert sorted(path.name for path in folder.iterdir()) == [
        *("best_model", "checkpoints", "config.yml", "metrics.jsonl", "train.log")
    ]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert Settings(str(folder / "config.yml")).run["iters"] == 4
    best = json.loads((folder / "best_model" / "scores.json").read_text())
    assert best["miou"] == max(row["miou"] for row in rows if "miou" in row)


@heads
@pytest.mark.parametrize(
    "test",
    [
        {},
        {"is_slide": True, "crop_size": [48, 32], "stride": [32, 24]},
        {"aug_eval": True, "scales": [1.0, 1.5], "flip_horizontal": True},
    ],
    ids=["whole", "window", "scales"],
)
def test_eval_counts_what_the_model_says(runs, head, ade, test, tmp_path, capsys):
    more = [f"test_config={json.dumps(test)}"] if test else []
    path = tmp_path / "scores.json"
    call = ["eval", *options(head, ade, "x", *more), "--weights", str(runs[head]), "--metrics", str(path)]
    assert main(call) == 0
    found = json.loads(path.read_text())
    settings, model = loaded(head, ade, runs[head], *more)
    dataset, pairs = open_dataset(settings, "val_dataset"), []
    with in_eval_mode(model):
        for i in range(len(dataset)):
            labels = np.asarray(Image.open(ade / f"annotations/validation/p{i}.png")) - np.uint8(1)
            pairs.append((classes_of(model, read_sample(dataset, i), settings.test), labels))
    expected = counted(pairs, 150)
    np.testing.assert_allclose([found[key] for key in ("miou", "macc", "aacc")], expected, rtol=1e-12)
    assert f"mIoU {100 * expected[0]:.2f}" in capsys.readouterr().out
    assert found["pixels"] == sum((labels != 255).sum() for _, labels in pairs)


def test_a_sliding_window_averages_the_logits_of_its_windows(runs, ade):
    _, model = loaded("UperNet", ade, runs["UperNet"])
    image = np.random.RandomState(0).standard_normal((3, 40, 70)).astype("float32")
    test = {"is_slide": True, "crop_size": [48, 40], "stride": [30, 40]}
    with in_eval_mode(model), paddle.no_grad():
        found = classes_of(model, {"img": image, "trans_info": []}, test)
        logits, counts = np.zeros((150, 40, 70)), np.zeros(70)
        for left in (0, 22):  # of 48 pixels each, the last one at the right border
            window = paddle.to_tensor(image[np.newaxis, :, :, left : left + 48])
            logits[..., left : left + 48] += model(window)[0].numpy()[0]
            counts[left : left + 48] += 1
    assert (found == (logits / counts).argmax(0)).all()


def test_two_ranks_count_what_one_counts(runs, ade, monkeypatch):
    settings, model = loaded("SemanticFPN", ade, runs["SemanticFPN"])
    dataset = open_dataset(settings, "val_dataset")
    whole = evaluate(model, dataset, settings.test)
    parts = []
    monkeypatch.setattr(
        "paddle_inline.segmentation.inference.all_reduce_sum",
        lambda counts, world: parts.append(counts) or sum(parts),
    )
    for rank in range(2):
        scores = evaluate(model, dataset, settings.test, rank=rank, world=2)
    assert (scores.counts == whole.counts).all()
    assert all(part.any() for part in parts)


def test_two_processes_train_and_evaluate_as_one(ade, tmp_path):
    """The statistics of batch norms are those of all ranks, the losses those of the whole batch, the counts the sum."""
    more = ["iters=3", "save_interval=3", "model.dropout=0.0", "lr_scheduler.warmup_iters=1"]
    program = Path(segmentation.__file__).with_name("__main__.py")
    launcher = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    call = ["train", *options("UperNet", ade, tmp_path / "two", "batch_size=1", *more)]
    # (An empty CUDA_VISIBLE_DEVICES, which hides GPUs, is more than the launcher can take.)
    clean = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    words = [*launcher, "--log_dir", str(tmp_path / "log"), str(program), *call]
    done = subprocess.run(words, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert main(["train", *options("UperNet", ade, tmp_path / "one", *more)]) == 0
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    losses = [[row["loss"] for row in of if "loss" in row] for of in rows]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    scores = tmp_path / "scores.json"
    weights = str(tmp_path / "two" / "checkpoints" / "step_00000003")
    assert main(["eval", *options("UperNet", ade, "x"), "--weights", weights, "--metrics", str(scores)]) == 0
    found = json.loads(scores.read_text())
    assert {key: rows[1][-1][key] for key in ("miou", "macc", "aacc")}.items() <= found.items()


@heads
def test_a_run_that_was_stopped_goes_on_to_the_bit(runs, head, ade, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", *options(head, ade, out), "--stop-after", "2"]) == 0
    assert main(["train", *options(head, ade, out)]) == 2
    assert "holds a run already: continue it with --resume auto" in capsys.readouterr().err
    assert main(["train", *options(head, ade, out), "--resume", "auto"]) == 0
    for name in ("model.pdparams", "optimizer.safetensors"):
        files = [folder / "checkpoints" / "step_00000004" / name for folder in (out, runs[head])]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    kept = [(folder / "best_model" / "scores.json").read_bytes() for folder in (out, runs[head])]
    assert kept[0] == kept[1]
    assert main(["train", *options(head, ade, out, "batch_size=1"), "--resume", "auto"]) == 2
    assert (
        "was trained with batch_size x devices and seed [2, 0], and is to go on with [1, 0]"
        in capsys.readouterr().err
    )
    assert (
        main(["train", *options(head, ade, out, "iters=5", "optimizer.weight_decay=0.0"), "--resume", "auto"])
        == 0
    )
    assert "changed since the checkpoint: optimizer: " in capsys.readouterr().out


def test_workers_change_nothing(runs, ade, tmp_path):
    assert main(["train", *options("SemanticFPN", ade, tmp_path / "run", "num_workers=1")]) == 0
    name = "checkpoints/step_00000004/model.pdparams"
    assert (tmp_path / "run" / name).read_bytes() == (runs["SemanticFPN"] / name).read_bytes()


@heads
def test_predict_writes_classes_behind_a_palette_and_overlays(runs, head, ade, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(ade / "images" / "validation", images / "a")
    with Image.open(images / "a" / "p0.jpg") as image:
        image.save(images / "a" / "p0.png")  # the same name but for its suffix
    out = tmp_path / "out"
    call = ["predict", *options(head, ade, "x"), "--weights", str(runs[head]), "--images", str(images)]
    assert main([*call, "--output", str(out)]) == 0
    names = ["p0.jpg.png", "p0.png.png", "p1.png", "p2.png"]
    for folder in ("pseudo_color_prediction", "added_prediction"):
        assert sorted(path.name for path in (out / folder / "a").iterdir()) == names
    settings, model = loaded(head, ade, runs[head])
    dataset = open_dataset(settings, "val_dataset")
    with in_eval_mode(model):
        expected = classes_of(model, read_sample(dataset, 1), {})
    mapped = Image.open(out / "pseudo_color_prediction" / "a" / "p1.png")
    assert mapped.mode == "P"
    assert (np.asarray(mapped) == expected).all()
    colours = np.asarray(mapped.convert("RGB"), float)
    image = np.asarray(Image.open(images / "a" / "p1.jpg"), float)
    over = np.asarray(Image.open(out / "added_prediction" / "a" / "p1.png"), float)
    assert np.abs(over - (0.6 * image + 0.4 * colours)).max() < 3  # two decoders of JPEG


@heads
def test_an_export_gives_the_models_classes(runs, head, ade, tmp_path, capsys):
    call = ["export", *options(head, ade, "x"), "--weights", str(runs[head]), "--output", str(tmp_path)]
    assert main([*call, "--size", "64", "96"]) == 0
    _, model = loaded(head, ade, runs[head])
    images = np.random.RandomState(1).standard_normal((1, 3, 64, 96)).astype("float32")
    with in_eval_mode(model), paddle.no_grad():
        logits = model(paddle.to_tensor(images))[0].numpy()
    run = load_exported(tmp_path)
    assert (run(images) == logits.argmax(1)).all()
    with pytest.raises(UserError, match=r"this export takes \[1, 3, 64, 96\]"):
        run(images[..., :64])


def test_the_toolkits_own_heads_take_our_backbones(ade, tmp_path):
    head = "_inherited_: false, type: UPerNet, backbone_indices: [0, 1, 2, 3], channels: 8, num_classes: 150"
    call = options(
        "UperNet",
        ade,
        tmp_path / "run",
        f"model={{{head}, backbone: {BACKBONE}}}",
        "iters=1",
        "loss.coef=[1]",
    )
    call = [
        text for text in call if not text.startswith(("model.channels", "model.auxiliary", "model.backbone"))
    ]
    assert main(["train", *call]) == 0
    images = str(ade / "images" / "validation" / "p0.jpg")
    weights = ["--weights", str(tmp_path / "run"), "--output", str(tmp_path / "out")]
    assert main(["predict", *call, *weights, "--images", images]) == 0
    mapped = Image.open(tmp_path / "out" / "pseudo_color_prediction" / "p0.png")
    assert mapped.size == Image.open(images).size


def test_weights_and_pictures_that_are_missing_are_named(ade, runs, tmp_path, capsys):
    call = options("SemanticFPN", ade, "x")
    assert main(["eval", *call]) == 2
    assert "error: there are no weights in x: give --weights FILE" in capsys.readouterr().err
    assert main(["eval", *options("SemanticFPN", ade, runs["SemanticFPN"])]) == 0
    assert f"with {runs['SemanticFPN']}: 3 pictures" in capsys.readouterr().out
    assert main(["eval", *call, "weights=nowhere.pdparams"]) == 2
    assert "no weights file nowhere.pdparams" in capsys.readouterr().err
    assert main(["predict", *call, "--weights", str(runs["SemanticFPN"]), "--images", "nowhere"]) == 2
    assert "there is no picture or folder nowhere" in capsys.readouterr().err
    assert main(["eval", *options("UperNet", ade, "x"), "--weights", str(runs["SemanticFPN"])]) == 2
    assert "names or shapes differ" in capsys.readouterr().err
