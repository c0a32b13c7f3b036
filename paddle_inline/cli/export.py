"""Write inference files that are checked against the model in every engine, or nothing."""

from __future__ import annotations

import argparse
import sys

from ..data.classes import read_class_names
from ..data.split import kept_split, run_of
from ..inference.calibration import MAX_DROP, calibration_of, check_max_drop
from ..inference.card import evaluation_of
from ..inference.export import ExportError, export_model
from ..inference.int8 import check_packages
from ..inference.serving import add_to_ovms, add_to_triton
from ..utils.errors import UserError
from .output import SIZE_HELP, size_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `export`."""
    add = parser.add_argument
    add("--model", metavar="NAME", help="a model of `list`; not needed if the weights name it")
    add("--weights", metavar="FILE", required=True, help="its weights")
    add("--output", metavar="DIR", required=True, help="the folder to write")
    add("--img-size", type=int, nargs="+", metavar="N", help=SIZE_HELP)
    add("--num-classes", type=int, metavar="N", help="classes, if the weights do not say; default: 1000")
    add("--dynamic-batch", action="store_true", help="for any batch size")
    add("--batch-size", type=int, default=1, metavar="N", help="for batches of this size; default: 1")
    add("--onnx", action="store_true", help="also write a file for OpenVINO and ONNX Runtime")
    add(
        "--int8",
        action="store_true",
        help="also write a program in int8 for OpenVINO, which takes --calibrate",
    )
    add(
        "--calibrate",
        metavar="PICTURES",
        help="pictures for --int8, a folder (of train and val, of classes, or of pictures alone) or digits: half are "
        "for the ranges of its numbers, or train; its accuracy is measured on the others",
    )
    add(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help=f"refuse int8 if its top-1 is so much below that of float32; default: {MAX_DROP}",
    )
    add("--classes", metavar="FILE", help="class names, one a line, or a JSON list")
    add("--top1", type=float, metavar="PERCENT", help="measured accuracy, for the card")
    add("--triton", metavar="DIR", help="also add it to a model repository of Triton Inference Server")
    add("--ovms", metavar="DIR", help="also add it to a folder of models for OpenVINO Model Server")
    add("--name", metavar="NAME", help="with these two: served under this name; default: the model's")
    add("--no-crop", action="store_true", help="the model is evaluated without the centre crop")


def run(arguments: argparse.Namespace) -> int:
    """Export a model; 1 where the files differ from the model."""
    from ..models import create_model
    from ..weights.load import find_weights

    servers = [
        (add, place)
        for add, place in ((add_to_triton, arguments.triton), (add_to_ovms, arguments.ovms))
        if place
    ]
    if arguments.name is not None and not servers:
        raise UserError("--name goes with --triton or --ovms")
    check_int8(arguments)
    sizes = {"img_size": size_of(arguments.img_size), "num_classes": arguments.num_classes}
    sizes = {name: value for name, value in sizes.items() if value is not None}
    model = create_model(arguments.model, weights=arguments.weights, **sizes)
    preprocessing = None
    if arguments.no_crop:
        preprocessing = {**evaluation_of(model)[0], "crop": False}
    classes = read_class_names(arguments.classes) if arguments.classes else None
    weights = find_weights(arguments.weights)
    calibration = None
    if arguments.int8:
        transform, names, _ = evaluation_of(model)
        calibration = calibration_of(
            arguments.calibrate,
            transform=preprocessing or transform,
            num_classes=model.spec.num_classes,
            classes=classes or names,
            max_drop=MAX_DROP if arguments.max_drop is None else arguments.max_drop,
            split=kept_split(run_of(weights)),
        )
    try:
        export_model(
            model,
            arguments.output,
            batch=None if arguments.dynamic_batch else arguments.batch_size,
            onnx=bool(arguments.onnx or servers),
            int8=calibration,
            preprocessing=preprocessing,
            classes=classes,
            top1=arguments.top1,
            weights=weights,
        )
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{model.name} -> {arguments.output}")
    for add, place in servers:
        print(f"{model.name} -> {add(arguments.output, place, arguments.name)}")
    if servers and arguments.int8:
        print("model servers get the float32 program: int8 is for a Predictor")
    return 0


def check_int8(arguments: argparse.Namespace) -> None:
    """Refuse options of int8 without the others, before anything is loaded: UserError, MissingPackageError."""
    if arguments.int8 and arguments.calibrate is None:
        raise UserError(
            "--int8 needs --calibrate PICTURES, a folder of pictures or digits: it is measured on them"
        )
    if not arguments.int8:
        for name, value in (("--calibrate", arguments.calibrate), ("--max-drop", arguments.max_drop)):
            if value is not None:
                raise UserError(f"{name} goes with --int8")
        return
    if arguments.max_drop is not None:
        check_max_drop(arguments.max_drop)
    check_packages()
