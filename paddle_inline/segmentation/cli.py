"""python -m paddle_inline.segmentation COMMAND --cfg FILE -o KEY=VALUE: PaddleSeg's models on our backbones."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from ..toolkits.launcher import launch
from ..utils.errors import FileAccessError, UserError, counted
from ..utils.paths import expand
from ..weights.atomic import atomic_write


def prepare(arguments: argparse.Namespace) -> Any:
    """Register what the settings may name, choose the device, and return the settings."""
    import paddle

    from .registry import register
    from .settings import Settings

    mends = register()
    settings = Settings(arguments.cfg, arguments.o)
    if mends and (arguments.command == "train" or arguments.traceback):
        names = ", ".join(line.partition(":")[0] for line in mends)
        settings.notes.append(f"this PaddleSeg was mended in memory: {names}")
    for note in settings.notes:
        print(f"note: {note}", file=sys.stderr)
    device = settings.run["device"]
    if device:
        try:
            paddle.set_device(device)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"device {device}: {' '.join(str(error).split())}") from None
    return settings


def segmenter(settings: Any, arguments: argparse.Namespace) -> tuple[Any, str]:
    """Return the model with its weights, those of the run itself unless others are given, and their path.

    What `pretrained` names is not looked for.
    """
    from .weights import find_segmenter, load_segmenter

    weights = arguments.weights or settings.run["weights"]
    if not weights and not find_segmenter(settings.run["save_dir"]).is_file():
        raise UserError(
            f"there are no weights in {settings.run['save_dir']}: give --weights FILE, or a run's folder"
        )
    model = settings.model(pretrained=False)
    load_segmenter(model, weights or settings.run["save_dir"])
    return model, str(weights or settings.run["save_dir"])


def train(arguments: argparse.Namespace) -> int:
    """Train a segmenter, or go on with a run."""
    from ..training.diagnose import NotFinite
    from .training import train as run

    settings = prepare(arguments)
    try:
        folder = run(settings, arguments.resume, arguments.stop_after)
    except NotFinite as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"the run is in {folder}")
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """Print mIoU, mAcc and aAcc of weights over val_dataset."""
    from ..training import distributed
    from .data import open_dataset
    from .heads import name_of
    from .inference import evaluate as scores_of

    settings = prepare(arguments)
    rank, world = distributed.start()
    dataset = open_dataset(settings, "val_dataset")
    model, weights = segmenter(settings, arguments)
    scores = scores_of(model, dataset, settings.test, rank=rank, world=world)
    if rank == 0:
        print(f"{name_of(model)} with {weights}: {counted(len(dataset), 'picture')}, {scores}")
        if arguments.metrics:
            facts = {"model": name_of(model), "weights": weights, **scores.to_json()}
            _write_json(arguments.metrics, facts)
    return 0


def predict(arguments: argparse.Namespace) -> int:
    """Write colour maps and overlays of pictures."""
    from ..training import distributed
    from .predict import find_images
    from .predict import predict as write

    settings = prepare(arguments)
    rank, world = distributed.start()
    find_images(arguments.images)
    model, _ = segmenter(settings, arguments)
    output = expand(arguments.output or f"{settings.run['save_dir']}/predict")
    written = write(settings, model, arguments.images, output, rank, world)
    print(f"{counted(len(written), 'picture')}: {output}/{{pseudo_color_prediction,added_prediction}}")
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Write inference files for one size of pictures, checked against the model."""
    from .export import export as write

    settings = prepare(arguments)
    sides = arguments.size if len(arguments.size) == 2 else arguments.size * 2
    if len(sides) != 2:
        raise UserError(f"--size takes one side or height and width, not {len(arguments.size)} numbers")
    output = arguments.output or f"{settings.run['save_dir']}/export"
    folder = write(settings, segmenter(settings, arguments)[0], output, sides)
    print(f"{folder}: classes of pictures of {sides[0]} x {sides[1]} pixels, equal to the model's")
    return 0


def _write_json(path: str, facts: dict[str, Any]) -> None:
    try:
        with atomic_write(path, follow_links=True) as partial:
            partial.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise FileAccessError(f"--metrics {path} cannot be written: {error.strerror or error}") from None


def _weights(row: argparse.ArgumentParser) -> None:
    row.add_argument(
        "--weights",
        default="",
        metavar="FILE",
        help="of the segmenter, or a run's folder (default: this run's best)",
    )


def _train_arguments(row: argparse.ArgumentParser) -> None:
    row.add_argument(
        "--resume", default="", metavar="WHAT", help="a checkpoint, a run's folder, or auto: this run's"
    )
    row.add_argument(
        "--stop-after", type=int, metavar="N", help="stop after N more steps, to be resumed later"
    )


def _eval_arguments(row: argparse.ArgumentParser) -> None:
    _weights(row)
    row.add_argument("--metrics", metavar="FILE", help="write the scores of every class as JSON")


def _predict_arguments(row: argparse.ArgumentParser) -> None:
    _weights(row)
    row.add_argument(
        "--images", required=True, nargs="+", metavar="PATH", help="pictures, or folders of such"
    )
    row.add_argument("--output", default="", metavar="DIR", help="default: predict/ in the run's folder")


def _export_arguments(row: argparse.ArgumentParser) -> None:
    _weights(row)
    row.add_argument("--output", default="", metavar="DIR", help="default: export/ in the run's folder")
    row.add_argument(
        "--size", type=int, nargs="+", default=[512], metavar="N", help="height and width; default: 512"
    )


COMMANDS = {"train": train, "eval": evaluate, "predict": predict, "export": export}
for _name, _add in zip(COMMANDS, (_train_arguments, _eval_arguments, _predict_arguments, _export_arguments)):
    COMMANDS[_name].arguments = _add  # type: ignore[attr-defined]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    return launch("python -m paddle_inline.segmentation", str(__doc__), COMMANDS, argv)
