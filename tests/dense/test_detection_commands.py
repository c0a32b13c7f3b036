"""Two small detectors through the four commands: RetinaNet on InLine-PVT, Mask R-CNN on SOFT-Norm.

Cascade Mask R-CNN, which differs in its heads alone, is exported untrained.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_inline.detection import run
from paddle_inline.detection.run import main
from paddle_inline.toolkits.launcher import build_parser

CONFIGS = Path(__file__).parents[2] / "configs" / "detection"
SIZE = (64, 96)  # height and width of the pictures, and of the images
DETECTORS = {
    "retinanet": ("retinanet_soft_norm_tiny_1x", "inline_pvt_tiny"),
    "mask_rcnn": ("mask_rcnn_soft_norm_tiny_1x", "soft_norm_tiny"),
    "cascade": ("cascade_mask_rcnn_inline_swin_tiny_3x", "inline_pvt_tiny"),
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
            f"{'CascadeTwoFCHead' if architecture == 'cascade' else 'TwoFCHead'}.out_channel=32",
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
        return main(self.command(command, *options, settings=settings))

    def command(self, command, *options, settings=()):
        cfg = str(CONFIGS / f"{self.config}.yml")
        return [command, "--cfg", cfg, *options, "-o", *self.settings, *settings]

    def on_two_ranks(self, folder, *command, settings=()):
        """Run a command in two processes, which have to end well."""
        program = Path(__file__).parents[2] / "paddle_inline" / "detection" / "__main__.py"
        launch = [
            "-m",
            "paddle.distributed.launch",
            "--nproc_per_node",
            "2",
            "--log_dir",
            str(folder / "log"),
        ]
        done = subprocess.run(
            [sys.executable, *launch, str(program), *self.command(*command, settings=settings)],
            # (An empty CUDA_VISIBLE_DEVICES, which hides GPUs, is more than the launcher can take.)
            env={name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"},
            cwd=folder,
            capture_output=True,
            text=True,
        )
        logs = [path.read_text(errors="replace")[-3000:] for path in (folder / "log").glob("workerlog.*")]
        assert done.returncode == 0, done.stderr[-2000:] + "".join(logs)


@pytest.fixture(scope="module", params=("retinanet", "mask_rcnn"))
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
    assert other.run("train", "--eval", "--resume", str(trained.folder / "0")) == 0
    straight, resumed = (tensors(d.folder / "model_final.pdparams") for d in (trained, other))
    for name, value in straight.items():
        np.testing.assert_array_equal(value, resumed[name], err_msg=name)
    rows = (trained.folder / "metrics.jsonl").read_text().splitlines()
    assert (other.folder / "metrics.jsonl").read_text().splitlines() == rows[1:]


def test_weights_without_their_optimizer_are_not_gone_on_from(trained, tmp_path, capsys):
    (tmp_path / "0.pdparams").symlink_to(trained.folder / "0.pdparams")
    assert trained.run("train", "--resume", str(tmp_path / "0")) == 2
    assert "0.pdopt; a checkpoint has FILE.pdparams and FILE.pdopt" in capsys.readouterr().err


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


@pytest.fixture(scope="module")
def cascade(small_coco, tmp_path_factory):
    """A Cascade Mask R-CNN with weights that were drawn."""
    detector = Detector("cascade", small_coco, tmp_path_factory.mktemp("cascade"))
    detector.folder.mkdir()
    paddle.seed(0)
    trainer = detector_of(detector, run._trainer)
    paddle.save(trainer.model.state_dict(), str(detector.folder / "model_final.pdparams"))
    return detector


def detector_of(detector, build):
    """The toolkit's trainer in test mode, by one of the two functions that our commands have for it."""
    parser = build_parser("detection", "", run.COMMANDS)
    return build(run._settings(parser.parse_args(detector.command("predict", "--images", "x"))), "test")


def exports_the_same(detector, folder):
    """Export a detector, load the program, and compare its answers for two pictures with the detector's own."""
    from ppdet.core.workspace import create

    assert detector.run("export", "--size", "64", "96", "--output", str(folder)) == 0
    card = json.loads((folder / "card.json").read_text())
    assert card["classes"] == ["red", "blue"] and card["size"] == list(SIZE)
    trainer = detector_of(detector, run._detector)
    trainer.dataset.set_images([str(detector.coco / "val" / f"{i}.png") for i in (1, 2)])
    trainer.model.eval()
    program = paddle.jit.load(str(folder / "model"))
    for batch in create("TestReader")(trainer.dataset, 0):
        with paddle.no_grad():
            own = trainer.model(batch)
        boxes, number, *masks = program(*(batch[name] for name in card["inputs"]))
        real = own["bbox"].numpy()[:, 1] > 0
        assert number.item() == boxes.shape[0] == real.sum() > 0
        np.testing.assert_allclose(boxes.numpy(), own["bbox"].numpy()[real], rtol=1e-4, atol=1e-3)
        assert len(masks) == (detector.name != "retinanet")
        for each in masks:
            assert (each.numpy() != own["mask"].numpy()[real]).mean() < 1e-3


def test_an_exported_detector_gives_the_same_boxes(trained, tmp_path):
    exports_the_same(trained, tmp_path)


def test_an_exported_cascade_gives_the_same_boxes(cascade, tmp_path):
    exports_the_same(cascade, tmp_path)


def test_two_ranks_measure_what_one_does(trained, tmp_path):
    if trained.name != "mask_rcnn":
        pytest.skip("boxes and masks are shared alike by all detectors")
    assert trained.run("eval", "--output", str(tmp_path / "one")) == 0
    trained.on_two_ranks(tmp_path, "eval", "--output", str(tmp_path / "two"))
    for path in sorted((tmp_path / "one").glob("*.json")):
        assert json.loads(path.read_text()) == json.loads((tmp_path / "two" / path.name).read_text()), (
            path.name
        )


def test_two_ranks_learn_what_one_does(small_coco, tmp_path):
    """Their losses are means over objects, so that all pictures have the same boxes and differ in colours alone."""
    tree = json.loads((small_coco / "annotations" / "train.json").read_text())
    with Image.open(small_coco / "train" / "1.png") as picture:
        pixels = np.asarray(picture)
    boxes = [each for each in tree["annotations"] if each["image_id"] == 1]
    tree.update(images=tree["images"][:4], annotations=[])
    for image in tree["images"]:
        i = image["id"]
        Image.fromarray(np.roll(pixels, i, axis=2) // i).save(tmp_path / image["file_name"])
        tree["annotations"] += [{**each, "id": 10 * i + each["id"], "image_id": i} for each in boxes]
    (tmp_path / "train.json").write_text(json.dumps(tree))
    # Adam's first steps make as much of a gradient's rounding as of the gradient
    settings = [
        "TrainDataset.image_dir=.",
        f"TrainDataset.dataset_dir={tmp_path}",
        "TrainDataset.anno_path=train.json",
        "OptimizerBuilder.optimizer={type: Momentum, momentum: 0.9}",
        "LearningRate.base_lr=0.01",
    ]
    one, two = (Detector("retinanet", small_coco, tmp_path / name) for name in ("one", "two"))
    assert one.run("train", settings=[*settings, "TrainReader.batch_size=2"]) == 0
    two.on_two_ranks(tmp_path, "train", settings=[*settings, "TrainReader.batch_size=1"])
    whole, shared = (tensors(detector.folder / "model_final.pdparams") for detector in (one, two))
    first = tensors(one.folder / "0.pdparams")
    for name, value in whole.items():
        np.testing.assert_allclose(shared[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    assert max(np.abs(value - first[name]).max() for name, value in whole.items()) > 1e-3
