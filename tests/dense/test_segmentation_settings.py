"""Settings files of segmenters: each builds and takes a step; what a user gets wrong; the mends of PaddleSeg."""

import contextlib
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml

from paddle_inline import create_model
from paddle_inline.layers.basic import meta_init
from paddle_inline.layers.batch_norm import BatchNorm2d
from paddle_inline.segmentation import register
from paddle_inline.segmentation.cli import main
from paddle_inline.segmentation.data import TrainingSamples, open_dataset, read_sample
from paddle_inline.segmentation.mends import MENDS, toolkit
from paddle_inline.segmentation.settings import Settings
from paddle_inline.segmentation.training import Run
from paddle_inline.utils.errors import UserError

from .segmentation_toys import (
    BACKBONE,
    NORMALIZE,
    counted,
    make_ade20k,
    make_cityscapes,
    options,
    save,
    settings_of,
)

CONFIGS = Path(__file__).parents[2] / "configs" / "segmentation"


@pytest.fixture(scope="module", autouse=True)
def registered():
    return register()


@pytest.fixture(scope="module")
def ade(tmp_path_factory):
    return make_ade20k(tmp_path_factory.mktemp("ade"))


def test_the_toolkits_own_scores_are_ours_where_every_class_is_there(ade):
    """And where one is absent: PaddleSeg counts an IoU of 0 (2.8.0) or of 1 (git), we leave the class out."""
    metrics = toolkit("utils.metrics")
    rng = np.random.RandomState(0)
    predicted, labels = rng.randint(0, 4, (1, 1, 32, 32)), rng.randint(0, 4, (1, 1, 32, 32))
    labels[..., :4] = 255
    for classes, absent in ((4, 0), (5, 1)):
        areas = metrics.calculate_area(paddle.to_tensor(predicted), paddle.to_tensor(labels), classes)
        theirs, expected = metrics.mean_iou(*areas)[1], counted([(predicted, labels)], classes)
        of_absent = absent * (0 if toolkit().__version__ == "2.8.0" else 1)
        assert abs(theirs - (4 * expected[0] + of_absent) / classes) < 1e-6
        assert abs(metrics.class_measurement(*areas)[0] - expected[2]) < 1e-6


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Folders of both layouts, with pictures as large as the settings' crops need not be."""
    root = tmp_path_factory.mktemp("data")
    return {
        "ADE20K": make_ade20k(root / "ade", numbers=(2, 1)),
        "Cityscapes": make_cityscapes(root / "city", number=2),
    }


@pytest.mark.parametrize(
    "name", ["semantic_fpn_inline_pvt_tiny_40k", "semantic_fpn_inline_pvt_tiny_cityscapes_40k"]
)
def test_the_settings_own_transforms_make_crops(name, everything):
    root = everything["Cityscapes" if "cityscapes" in name else "ADE20K"]
    overrides = [f"{key}.dataset_root={root}" for key in ("train_dataset", "val_dataset")]
    settings = Settings(str(CONFIGS / f"{name}.yml"), overrides)
    samples = TrainingSamples(open_dataset(settings, "train_dataset"), seed=0)
    first, again, later = (samples.load(key) for key in ((0, 1), (0, 1), (1, 1)))
    assert first[0].shape == (3, 512, 1024 if "cityscapes" in name else 512)
    assert first[1].shape == first[0].shape[1:]
    assert first[0].dtype == np.float32
    assert set(np.unique(first[1])) <= {*range(settings.tree["model"]["num_classes"]), 255}
    assert all((a == b).all() for a, b in zip(first[:2], again[:2]))
    assert (first[0] != later[0]).any()
    sample = read_sample(open_dataset(settings, "val_dataset"), 0)
    assert min(sample["img"].shape[1:]) == (64 if "cityscapes" in name else 512)


MILLIONS = {  # with 150 classes (Cityscapes: 19)
    "semantic_fpn_inline_pvt_tiny_40k": 15.8,
    "upernet_inline_swin_tiny_160k": 60.9,
    "upernet_soft_norm_small_160k": 68.8,
    "upernet_soft_norm_medium_160k": 75.7,
}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yml")), ids=lambda path: path.stem)
def test_every_settings_file_takes_a_step_at_a_small_size(path, everything, tmp_path):
    kind = "Cityscapes" if "cityscapes" in path.stem else "ADE20K"
    settings = Settings(
        str(path),
        [
            f"train_dataset.dataset_root={everything[kind]}",
            f"val_dataset.dataset_root={everything[kind]}",
            f"train_dataset.transforms=[{{type: RandomPaddingCrop, crop_size: [64, 64]}}, {NORMALIZE}]",
            "model.backbone.depths=[1, 1, 1, 1]",
            "do_eval=false",
            "batch_size=2",
            *("model.channels=8", "model.auxiliary_channels=8")[: 2 if "upernet" in path.stem else 0],
        ],
    )
    run = Run(settings, rank=0, world=1)
    before = {name: p.numpy() for name, p in run.model.named_parameters() if not p.stop_gradient}
    assert np.isfinite(run.step(1, next(run.batches(0, 1)), 1e-3))
    still = [
        name
        for name, p in run.model.named_parameters()
        if name in before and (p.numpy() == before[name]).all()
    ]
    assert not still


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yml")), ids=lambda path: path.stem)
def test_every_settings_file_says_what_it_is_for(path):
    head = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert "launch --gpus 0,1,2,3,4,5,6,7 python -m paddle_inline.segmentation train" in "\n".join(head)
    assert f"--cfg configs/segmentation/{path.name}" in "\n".join(head)
    ours = "cswin" in path.stem or "cityscapes" in path.stem
    words = ("without a figure",) if ours else ("Published: ", "not verifiable")
    assert any(word in "\n".join(head) for word in words)


@pytest.mark.parametrize("name", MILLIONS)
def test_whole_segmenters_have_the_published_sizes(name):
    settings = Settings(str(CONFIGS / f"{name}.yml"))
    with meta_init():
        model = settings.model()
    size = sum(int(np.prod(p.shape)) for p in model.parameters() if not p.stop_gradient)
    assert round(size / 1e6, 1) == MILLIONS[name]


def test_norms_and_bias_tables_do_not_decay_and_the_rest_does():
    small = ["model.backbone.depths=[1, 1, 1, 1]", "model.backbone.embed_dim=12", "model.channels=8"]
    settings = Settings(str(CONFIGS / "upernet_inline_swin_tiny_160k.yml"), small)
    model = settings.model()
    optimizer = settings.optimizer(model)
    before = {name: p.numpy() for name, p in model.named_parameters() if not p.stop_gradient}
    for parameter in model.parameters():
        if not parameter.stop_gradient:
            (parameter * 0).sum().backward()
    optimizer.set_lr(0.5)
    optimizer.step()
    for name, parameter in model.named_parameters():
        if name in before:
            factor = 1 if "norm" in name or "relative_position_bias_table" in name else 1 - 0.5 * 0.01
            np.testing.assert_allclose(parameter.numpy(), factor * before[name], rtol=1e-6, err_msg=name)


def test_the_rates_are_those_of_the_recipes():
    rates = Settings(str(CONFIGS / "upernet_inline_swin_tiny_160k.yml")).rates(0)
    found = {}
    for step in range(3001):
        found[step] = rates()
        rates.step()
    assert found[0] < 1e-9
    assert abs(found[750] / 3e-5 - 1) < 1e-3
    assert abs(found[1500] / 6e-5 - 1) < 1e-3
    assert abs(found[3000] / (6e-5 * (1 - 1500 / 158500)) - 1) < 1e-3
    again = Settings(str(CONFIGS / "upernet_inline_swin_tiny_160k.yml")).rates(2000)
    assert again() == found[2000]


def test_backbone_weights_load_strictly(ade, tmp_path):
    settings = settings_of("SemanticFPN", ade)
    first = settings.model()
    file = tmp_path / "backbone.pdparams"
    paddle.save(first.backbone.state_dict(), str(file))
    second = settings_of("SemanticFPN", ade, f"model.backbone.pretrained={file}").model()
    for name, value in first.backbone.state_dict().items():
        assert (second.backbone.state_dict()[name] == value).all().item(), name
    small = yaml.safe_load(BACKBONE)
    classifier = create_model(small.pop("type"), num_classes=3, **small)
    paddle.save(classifier.state_dict(), str(file))
    with pytest.warns(UserWarning, match="head"):  # is left out
        third = settings_of("SemanticFPN", ade, f"model.backbone.pretrained={file}").model()
    for name, value in third.backbone.state_dict().items():
        assert (classifier.state_dict()[name] == value).all().item(), name
    with pytest.raises(UserError, match="names or shapes differ"):
        settings_of(
            "UperNet", ade, f"model.backbone.pretrained={file}", "model.backbone.mlp_ratios=[2, 2, 2, 2]"
        ).model()
    with pytest.raises(UserError, match="no weights file"):
        settings_of("UperNet", ade, "model.backbone.pretrained=nowhere").model()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["itters=3"], "unknown setting 'itters'; did you mean 'iters'"),
        (["iters=few"], "iters is 'few'; it takes a whole number"),
        (["batch_size=0"], "batch_size is 0; it counts from 1"),
        (["model.type=UperNett"], "knows no type 'UperNett'; did you mean UperNet?"),
        (["model.chanels=3"], "unexpected keyword argument 'chanels'; it takes"),
        (["model.backbone.deptsh=3"], "deptsh"),
        (
            ["train_dataset.dataset_root=nowhere"],
            "there is no folder nowhere; give it: -o train_dataset.dataset_root=",
        ),
        (["train_dataset.dataset_root=null"], "give its folder, -o train_dataset.dataset_root=FOLDER"),
        (
            ["test_config={is_slide: true}"],
            r"test_config.crop_size is None; a sliding window takes [width, height]",
        ),
        (["test_config={is_slide: true, crop_size: [8, 8], stride: [9, 8]}"], "is larger than crop_size"),
        (["loss.coef=[1, 1]"], "loss.coef has 2 numbers and SemanticFPN of inline_pvt_tiny gives 1 output"),
        (["precision=fp16"], "precision fp16 needs a GPU"),
        (
            ["lr_scheduler={_inherited_: false, type: ReduceOnPlateau, learning_rate: 0.1}"],
            "could not be resumed exactly",
        ),
        (["model.num_classes=7"], "num_classes"),
    ],
    ids=lambda value: value[0].partition("=")[0] if isinstance(value, list) else None,
)
def test_what_a_user_gets_wrong_is_one_line(more, message, ade, tmp_path, capsys):
    assert main(["train", *options("SemanticFPN", ade, tmp_path / "run", *more)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def broken(root, kind):
    if kind == "folder":
        shutil.rmtree(root / "annotations" / "training")
    elif kind == "labels":
        (root / "annotations" / "training" / "p1.png").unlink()
    elif kind == "picture":
        (root / "images" / "training" / "p1.jpg").write_bytes(b"no picture")
    elif kind == "size":
        save(root, "annotations/training/p1.png", np.ones((8, 8), np.uint8))
    elif kind == "class":
        save(root, "annotations/training/p1.png", np.full((56, 69), 200, np.uint8))
    elif kind == "colour":
        save(root, "annotations/training/p1.png", np.zeros((56, 69, 3), np.uint8))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("folder", "has no annotations/training: it is not ADE20K's folder"),
        ("labels", "annotations/training/p1.png"),
        ("picture", "p1.jpg is not a picture that can be read"),
        ("size", "p1.png is 8 x 8 pixels, its picture"),
        ("class", "p1.png has labels 199; classes are 0 to 149, and 255 is ignored"),
        ("colour", "labels are one number a pixel"),
    ],
)
def test_a_broken_data_set_is_named(kind, message, tmp_path, capsys):
    root = make_ade20k(tmp_path / "ade", numbers=(3, 1))
    broken(root, kind)
    assert main(["train", *options("SemanticFPN", root, tmp_path / "run", crop=32)]) == 2
    assert message in capsys.readouterr().err


def test_a_data_set_of_lists(tmp_path, capsys):
    root = make_ade20k(tmp_path / "own", numbers=(3, 2))
    for part, number in (("training", 3), ("validation", 2)):
        lines = [f"images/{part}/p{i}.jpg annotations/{part}/p{i}.png" for i in range(number)]
        (root / f"{part}.txt").write_text("\n".join(lines))
    own = "_inherited_: false, type: Dataset, num_classes: 6"
    sets = [
        f"train_dataset={{{own}, mode: train, train_path: {root}/training.txt}}",
        f"val_dataset={{{own}, mode: val, val_path: {root}/validation.txt}}",
        "model.num_classes=6",
    ]
    call = options("SemanticFPN", root, tmp_path / "run", *sets, "iters=1")
    more = [text for text in call if text.startswith(("train_dataset.", "val_dataset."))]
    more = [text for text in more if ".type=" not in text]
    call = [text for text in call if not text.startswith(("train_dataset.", "val_dataset."))] + more
    assert main(["train", *call]) == 0
    assert "mIoU" in capsys.readouterr().out
    (root / "training.txt").unlink()
    assert main(["train", *call, "save_dir=x"]) == 2
    assert "training.txt; give it: -o train_dataset.train_path=FILE" in capsys.readouterr().err


def test_cityscapes_without_its_labels_of_training_says_how_to_make_them(tmp_path):
    root = make_cityscapes(tmp_path)
    settings = settings_of("SemanticFPN", root, "train_dataset.type=Cityscapes")
    assert len(open_dataset(settings, "train_dataset")) == 2
    next(root.glob("gtFine/train/*/*")).unlink()
    with pytest.raises(UserError, match="csCreateTrainIdLabelImgs"):
        open_dataset(settings, "train_dataset")


def test_the_mends_hold_and_are_made_once(registered):
    assert not [mend.name for mend in MENDS if mend.faulty()]
    assert register() == []


def test_the_mended_loss_is_the_mean_over_labelled_pixels():
    loss = toolkit("models.losses.cross_entropy_loss").CrossEntropyLoss()
    logits = paddle.to_tensor(np.random.RandomState(0).standard_normal((1, 3, 2, 2)).astype("float32"))
    labels = paddle.to_tensor([[[0, 2], [255, 1]]])
    log = paddle.nn.functional.log_softmax(logits, 1).numpy()[0]
    expected = -(log[0, 0, 0] + log[2, 0, 1] + log[1, 1, 1]) / 3
    np.testing.assert_allclose(loss(logits, labels).item(), expected, rtol=1e-5)


def test_the_conversion_to_synchronised_norms_leaves_ours(monkeypatch):
    utils = toolkit("utils.utils")
    model = paddle.nn.Sequential(paddle.nn.Sequential(BatchNorm2d(2)), paddle.nn.BatchNorm2D(2))
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    with contextlib.suppress(Exception):
        utils.convert_sync_batchnorm(model, "gpu")
    assert isinstance(model[0][0], BatchNorm2d)
