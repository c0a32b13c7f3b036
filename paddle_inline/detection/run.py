"""Train, evaluate and use detectors of PaddleDetection with the backbones of this package.

    python -m paddle_inline.detection train --cfg configs/detection/X.yml -o TrainDataset.dataset_dir=COCO ...
    python -m paddle.distributed.launch paddle_inline/detection/__main__.py train --cfg ...

Exit code 0: done; 2: a mistake in the call or in what it names, as one line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from ..toolkits.launcher import launch
from ..utils.errors import UserError, counted
from ..utils.paths import expand
from ..weights.atomic import atomic_write


def train(arguments: argparse.Namespace) -> None:
    """Train a detector."""
    import paddle

    from ..training.distributed import start
    from ..weights.load import find_weights
    from .data import check_coco
    from .training import run_folder

    config = _settings(arguments)
    rank, _ = start()
    for name in ("TrainDataset", *(["EvalDataset"] if arguments.eval else [])):
        check_coco(config, name)
    config["amp"] = config["amp"] or arguments.amp
    if config["amp"] and not config["use_gpu"]:
        raise UserError("--amp: mixed precision needs a GPU; leave it out")
    if arguments.resume or config["weights"]:
        config["InLineBackbone"]["pretrained"] = None  # whose weights the detector's own would replace
    if arguments.resume and config["weights"]:
        raise UserError(
            "--resume and -o weights=FILE are both given: weights begin a run, a checkpoint goes on with one"
        )
    for weights in (config["weights"], config["InLineBackbone"]["pretrained"]):
        if weights:
            find_weights(weights)  # before the data set is read
    folder = run_folder(config)
    os.makedirs(folder, exist_ok=True)
    config["output_eval"] = folder  # of evaluations in between
    # A checkpoint knows the optimizer's averages by names that count up: from 0 in every run.
    with paddle.utils.unique_name.guard():
        _train(config, expand(arguments.resume), arguments.eval, rank)
    if rank == 0:
        print(f"trained: {os.path.join(folder, 'model_final.pdparams')}")


def _train(config: Any, checkpoint: str | None, validate: bool, rank: int) -> None:
    from .training import callbacks, keep_in, load_detector, resume, run_folder, seed_everything

    seed_everything(config["seed"])
    trainer = _trainer(config, "train")
    keep_in(trainer, run_folder(config))
    if len(trainer.loader) == 0:
        raise UserError(
            f"TrainDataset has {counted(len(trainer.dataset), 'image')}: that makes no batch of "
            f"{config['TrainReader']['batch_size']} on each device: give -o TrainReader.batch_size=N"
        )
    if config["weights"]:
        load_detector(trainer, config["weights"])
    if checkpoint:
        resume(trainer, checkpoint)
    trainer.register_callbacks(callbacks(trainer, config["seed"], rank))
    trainer.train(validate=validate)


def _train_arguments(row: argparse.ArgumentParser) -> None:
    row.add_argument(
        "-r", "--resume", metavar="FILE", help="go on from a checkpoint, FILE.pdparams and FILE.pdopt"
    )
    row.add_argument(
        "--eval", action="store_true", help="evaluate after each epoch and keep the best weights"
    )
    row.add_argument("--amp", action="store_true", help="mixed precision, on a GPU")


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure a detector: COCO's average precision of boxes and masks."""
    from ..training.distributed import start
    from . import evaluation
    from .data import check_coco

    config = _settings(arguments)
    rank, world = start()
    check_coco(config, "EvalDataset")
    folder = expand(arguments.output) or os.path.join(config["save_dir"], config["filename"], "eval")
    found = evaluation.evaluate(_detector(config, "eval"), folder, rank, world)
    for kind, values in found.items():
        shown = [f"{name} {100 * value:.1f}" for name, value in values.items() if value is not None]
        print(f"{kind}: {', '.join(shown)}")
    if rank == 0:
        print(f"written: {os.path.join(folder, 'metrics.json')}")


def predict(arguments: argparse.Namespace) -> None:
    """Find objects in pictures; write them as JSON and draw them."""
    from . import prediction
    from .data import class_names, pictures
    from .drawing import draw

    config = _settings(arguments)
    files, names = pictures(arguments.images), class_names(config)
    folder = expand(arguments.output) or os.path.join(config["save_dir"], config["filename"], "predict")
    os.makedirs(folder, exist_ok=True)
    trainer = _detector(config, "test")
    rows: list[dict[str, Any]] = []
    for file, objects in prediction.predict(trainer, files, names, arguments.threshold):
        picture = prediction.open_picture(file)
        name = prediction.free_name(file, [row["picture"] for row in rows])
        drawn = draw(picture, objects)
        with atomic_write(os.path.join(folder, name)) as partial:
            drawn.save(partial)
        found = [
            {key: value for key, value in each.items() if key not in ("pixels", "index")} for each in objects
        ]
        rows.append({"file": file, "picture": name, "objects": found})
    path = os.path.join(folder, "predictions.json")
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(
        f"{counted(sum(len(row['objects']) for row in rows), 'object')} in {counted(len(rows), 'picture')}: {path}"
    )


def _predict_arguments(row: argparse.ArgumentParser) -> None:
    row.add_argument(
        "--images", nargs="+", required=True, metavar="PATH", help="picture files or folders of them"
    )
    row.add_argument(
        "--threshold", type=float, default=0.5, metavar="P", help="the lowest score (default: 0.5)"
    )
    row.add_argument("--output", default="", metavar="DIR", help="for pictures and predictions.json")


def export(arguments: argparse.Namespace) -> None:
    """Write a detector as a program for pictures of one size."""
    from . import export as exporting
    from .data import class_names

    config = _settings(arguments)
    size = tuple(arguments.size)
    if any(side < 32 or side % 32 for side in size):
        raise UserError(
            f"--size {size[0]} {size[1]}: both must divide by 32, as the images that detectors are given do"
        )
    names = class_names(config)
    trainer = _detector(config, "test")
    folder = expand(arguments.output) or os.path.join(config["save_dir"], config["filename"], "export")
    os.makedirs(folder, exist_ok=True)
    trainer.model.eval()
    inputs = exporting.save(trainer.model, os.path.join(folder, "model"), size)
    card = {
        "architecture": config["architecture"],
        "backbone": config["InLineBackbone"]["model"],
        "inputs": inputs,
        "size": size,
        "classes": list(names.values()),
        "transforms": config["TestReader"]["sample_transforms"],
        "mkldnn": False,  # Paddle Inference fails with it on these programs
    }
    with atomic_write(os.path.join(folder, "card.json")) as partial:
        partial.write_text(json.dumps(card, indent=1), encoding="utf-8")
    print(f"exported for pictures of {size[0]} x {size[1]}: {os.path.join(folder, 'model.json')}")


def _export_arguments(row: argparse.ArgumentParser) -> None:
    row.add_argument(
        "--size",
        nargs=2,
        type=int,
        default=(800, 1344),
        metavar=("H", "W"),
        help="of the images (default: 800 1344)",
    )
    row.add_argument("--output", default="", metavar="DIR", help="for the program and card.json")


def _eval_arguments(row: argparse.ArgumentParser) -> None:
    row.add_argument("--output", default="", metavar="DIR", help="for bbox.json, mask.json and metrics.json")


COMMANDS: dict[str, Any] = {"train": train, "eval": evaluate, "predict": predict, "export": export}
for _command, _arguments in (
    ("train", _train_arguments),
    ("eval", _eval_arguments),
    ("predict", _predict_arguments),
    ("export", _export_arguments),
):
    COMMANDS[_command].arguments = _arguments


def _settings(arguments: argparse.Namespace) -> Any:
    from .settings import load_settings
    from .toolkit import register

    mends = register()
    if arguments.traceback:
        for mend in mends:
            print(f"note: mended in memory: {mend}", file=sys.stderr)
    return load_settings(arguments)


def _trainer(config: Any, mode: str) -> Any:
    """Return the toolkit's Trainer."""
    from .imports import ppdet

    return ppdet("engine").Trainer(config, mode=mode)


def _detector(config: Any, mode: str) -> Any:
    """Return a Trainer whose model has the weights of the settings, those of the run itself unless others are given."""
    from ..weights.load import find_weights
    from .training import load_detector, run_folder

    weights = config["weights"] or os.path.join(run_folder(config), "model_final.pdparams")
    try:
        find_weights(weights)
    except UserError as error:
        raise type(error)(f"{error}; give a detector's weights with -o weights=FILE") from None
    config["InLineBackbone"]["pretrained"] = None
    config["TestReader"]["batch_size"] = 1
    trainer = _trainer(config, mode)
    load_detector(trainer, weights)
    return trainer


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    return launch("python -m paddle_inline.detection", str(__doc__), COMMANDS, argv)
