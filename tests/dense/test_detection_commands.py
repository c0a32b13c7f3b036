"""Two small detectors through the four commands: RetinaNet on InLine-PVT, Mask R-CNN on SOFT-Norm."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddle_inline.detection.run import main
from paddle_inline.toolkits.launcher import build_parser

CONFIGS = Path(__file__).parents[2] / "configs" / "detection"
SIZE = (64, 96)  # height and width of the pictures, and of the images
DETECTORS = {
    "retinanet": ("retinanet_soft_norm_tiny_1x", "inline_pvt_tiny"),
    "mask_rcnn": ("mask_rcnn_soft_norm_tiny_1x", "soft_norm_tiny"),
}
TRANSFORMS = (
    "[{Decode: {}}, {Resize: {target_size: [64, 96], keep_ratio: true, interp: 1}}, {NormalizeImage: {is_scale: true, "
    "mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}}, {Permute: {}}]"
)


def small(architecture, model, coco, output):
    """The settings that make a detector of the published ones that learns in seconds."""
    settings = [
        f"InLineBackbone.model={model}",
        "InLineBackbone.drop_path_rate=0.0",
        "InLineBackbone.options={depths: [1, 1, 1, 1], embed_dims: [16, 16, 32, 32], num_heads: [1, 1, 2, 2]}",
        "FPN.out_channel=16",
        "num_classes=2",
        "worker_num=0",
        "epoch=2",
        "log_iter=1",
        "LearningRate.base_lr=0.002",
        "LearningRate.schedulers=[{name: PiecewiseDecay, milestones: [8, 11]}, {name: LinearWarmup, steps: 1}]",
        f"save_dir={output}",
    ]
    for name, split in (("Train", "train"), ("Eval", "val"), ("Test", "val")):
        settings += [
            f"{name}Dataset.dataset_dir={coco}",
            f"{name}Dataset.anno_path=annotations/{split}.json",
            f"{name}Reader.sample_transforms={TRANSFORMS}",
        ]
    settings += ["TrainDataset.image_dir=train", "EvalDataset.image_dir=val"]
    if architecture == "retinanet":
        settings += [
            "RetinaHead.conv_feat.feat_in=16",
            "RetinaHead.conv_feat.feat_out=16",
            "RetinaHead.nms.score_threshold=0.001",
        ]
    else:
        settings += [
            "TwoFCHead.out_channel=32",
            "MaskFeat.out_channel=16",
            "MaskFeat.num_convs=1",
            "BBoxPostProcess.nms.keep_top_k=20",
            "BBoxPostProcess.nms.score_threshold=0.001",
            "RPNHead.train_proposal.post_nms_top_n=50",
            "RPNHead.test_proposal.post_nms_top_n=20",
        ]
    return settings


class Detector:
    """A detector's settings and the folder of its run."""

    def __init__(self, architecture, coco, output):
        self.config, model = DETECTORS[architecture]
        self.name, self.coco, self.output = architecture, coco, output
        self.settings = small(architecture, model, coco, output)
        self.folder = output / self.config

    def run(self, command, *options, settings=()):
        return main(
            [command, "--cfg", str(CONFIGS / f"{self.config}.yml"), *options, "-o", *self.settings, *settings]
        )


@pytest.fixture(scope="module", params=DETECTORS)
def trained(request, small_coco, tmp_path_factory):
    """A detector that was trained for two epochs, the first of them evaluated, in an empty working folder."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "empty")
        detector = Detector(request.param, small_coco, folder / "output")
        assert detector.run("train", "--eval") == 0
        yield detector
        assert not list((folder / "empty").iterdir())  # nothing is written into the working folder


def tensors(path):
    return {name: np.asarray(value) for name, value in paddle.load(str(path)).items()}


def test_training_writes_checkpoints_and_results(trained):
    for name in ("0", "model_final", "best_model"):
        assert (trained.folder / f"{name}.pdparams").is_file()
    rows = [json.loads(row) for row in (trained.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    state = tensors(trained.folder / "model_final.pdparams")
    first = tensors(trained.folder / "0.pdparams")
    assert "backbone.pos_embed1" in state
    assert np.abs(state["backbone.pos_embed1"] - first["backbone.pos_embed1"]).max() > 0


def test_a_resumed_run_is_the_run(trained, tmp_path):
    other = Detector(trained.name, trained.coco, tmp_path)
    assert other.run("train", "--resume", str(trained.folder / "0")) == 0
    straight, resumed = (tensors(d.folder / "model_final.pdparams") for d in (trained, other))
    for name, value in straight.items():
        np.testing.assert_array_equal(value, resumed[name], err_msg=name)


def coco_ap(annotations, answers, kind):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(annotations))
    measure = COCOeval(truth, truth.loadRes(str(answers)), kind)
    measure.evaluate()
    measure.accumulate()
    measure.summarize()
    return measure.stats


def test_average_precision_is_that_of_pycocotools(trained):
    assert trained.run("eval") == 0
    folder = trained.folder / "eval"
    found = json.loads((folder / "metrics.json").read_text())
    kinds = {"bbox": "bbox", "mask": "segm"} if trained.name == "mask_rcnn" else {"bbox": "bbox"}
    assert found.keys() == kinds.keys()
    for kind, style in kinds.items():
        stats = coco_ap(trained.coco / "annotations" / "val.json", folder / f"{kind}.json", style)
        for value, (name, given) in zip(stats, found[kind].items()):
            assert (given is None and value < 0) or given == pytest.approx(value, abs=1e-12), name
    assert found["bbox"]["AR100"] > 0


def test_pictures_are_drawn_and_their_objects_written(trained, tmp_path):
    threshold = ["--threshold", "0.01"]
    assert (
        trained.run("predict", "--images", str(trained.coco / "val"), "--output", str(tmp_path), *threshold)
        == 0
    )
    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert [Path(row["file"]).name for row in rows] == ["1.png", "2.png", "3.png"]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["1.png", "2.png", "3.png"]
    objects = [each for row in rows for each in row["objects"]]
    assert objects and {each["class"] for each in objects} <= {"red", "blue"}
    for each in objects:
        x, y, width, height = each["bbox"]
        assert each["score"] >= 0.01 and x >= 0 and y >= 0 and x + width <= SIZE[1] and y + height <= SIZE[0]
        assert ("segmentation" in each) == (trained.name == "mask_rcnn")


def test_an_exported_detector_gives_the_same_boxes(trained, tmp_path):
    from paddle_inline.detection import run
    from paddle_inline.detection.toolkit import register

    register()
    from ppdet.core.workspace import create

    assert trained.run("export", "--size", "64", "96", "--output", str(tmp_path)) == 0
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["classes"] == ["red", "blue"] and card["size"] == list(SIZE)
    arguments = build_parser("detection", "", run.COMMANDS).parse_args(
        ["predict", "--images", "x", "--cfg", str(CONFIGS / f"{trained.config}.yml"), "-o", *trained.settings]
    )
    trainer = run._detector(run._settings(arguments), "test")
    trainer.dataset.set_images([str(trained.coco / "val" / f"{i}.png") for i in (1, 2)])
    trainer.model.eval()
    program = paddle.jit.load(str(tmp_path / "model"))
    for batch in create("TestReader")(trainer.dataset, 0):
        with paddle.no_grad():
            own = trainer.model(batch)
        boxes, number, *masks = program(*(batch[name] for name in card["inputs"]))
        real = own["bbox"].numpy()[:, 1] > 0
        assert number.item() == boxes.shape[0] == real.sum() > 0
        np.testing.assert_allclose(boxes.numpy(), own["bbox"].numpy()[real], rtol=1e-4, atol=1e-3)
        if masks:
            assert (masks[0].numpy() != own["mask"].numpy()[real]).mean() < 1e-3


def test_two_ranks_measure_what_one_does(trained, tmp_path):
    if trained.name != "mask_rcnn":
        pytest.skip("boxes and masks are shared alike by all detectors")
    assert trained.run("eval", "--output", str(tmp_path / "one")) == 0
    program = Path(__file__).parents[2] / "paddle_inline" / "detection" / "__main__.py"
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path / "log")]
    command = ["eval", "--cfg", str(CONFIGS / f"{trained.config}.yml"), "--output", str(tmp_path / "two")]
    done = subprocess.run(
        [sys.executable, *launch, str(program), *command, "-o", *trained.settings],
        # (An empty CUDA_VISIBLE_DEVICES, which hides GPUs, is more than the launcher can take.)
        env={name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    logs = "".join(
        path.read_text(errors="replace")[-3000:] for path in (tmp_path / "log").glob("workerlog.*")
    )
    assert done.returncode == 0, done.stderr[-2000:] + logs
    for path in sorted((tmp_path / "one").glob("*.json")):
        assert json.loads(path.read_text()) == json.loads((tmp_path / "two" / path.name).read_text()), (
            path.name
        )
