"""Writing a model as inference files that were checked against it.

A folder of one model:

    card.json                       what it is, how its input is made, what was checked
    model.json, model.pdiparams     program and weights for Paddle Inference (`.pdmodel` from Paddle 2)
    model.onnx                      both for OpenVINO and ONNX Runtime, on request
    model-int8.xml, model-int8.bin  both in int8 for OpenVINO, on request
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.errors import UserError, counted
from ..utils.paths import expand, home_for_libraries
from ..weights.atomic import move_files, sha256, work_folder
from ..weights.description import plain_transform
from .backends import input_spec
from .calibration import Calibration, check_max_drop
from .card import (
    CARD,
    FORMAT,
    check_channels,
    check_engine_path,
    describe_file,
    evaluation_of,
    files_of,
    read_card,
)
from .checks import TOLERANCE, ExportError, check_engines, try_bfloat16
from .int8 import BATCH, check_packages, write_int8
from .onnx_export import onnx_writer, write_onnx, write_onnx_by_torch

if TYPE_CHECKING:
    import paddle

__all__ = ["ExportError", "export_model", "read_card", "trace", "write_files"]


def export_model(
    model: paddle.nn.Layer,
    directory: str | Path,
    *,
    batch: int | None = None,
    onnx: bool = False,
    int8: Calibration | None = None,
    preprocessing: dict[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    top1: float | None = None,
    weights: str | Path | None = None,
    log: Callable[[str], Any] = print,
) -> dict[str, Any]:
    """Write a model's inference files and card, after comparing them with the model itself.

    The program runs through Paddle Inference without and with oneDNN and, where it was asked for, ONNX
    Runtime and OpenVINO (if that is installed), at two batch sizes (one of a fixed batch: twice, on other
    images). oneDNN is tried in a process of its own: where it crashes, the card and the log say so and
    `Predictor` leaves it off.

    Args:
        model: of `create_model`, with its weights; images are of the size and channels it was built for.
        directory: is made; files of an earlier export in it are replaced.
        batch: the one batch size of the program; None: any.
        onnx: also write an ONNX file.
        int8: also write that file in int8, calibrated and measured on these pictures (`calibration.calibration_of`).
        preprocessing: arguments of `data.transforms.eval_transform`; None: what the model's weights say of
            themselves, else its published recipe, with a line that says so.
        classes: their names; None: those that the weights name, if any.
        top1: measured accuracy in percent, or None.
        weights: the file that the model was loaded from, for the card.
        log: called with each line about the checks.

    Returns:
        The card.

    Raises:
        ExportError: a program differs from the model by more than TOLERANCE; no file is left.
        UserError: arguments do not fit the model, a picture for int8 cannot be read, int8 costs more accuracy than it
            may, or the folder cannot be written.
        MissingPackageError: ONNX was asked for, and onnxruntime is missing, or both paddle2onnx and PyTorch are; int8
            was, and NNCF or OpenVINO is missing.
    """
    transform, own_classes, assumed = evaluation_of(model)
    if assumed and preprocessing is None:
        log(assumed)
    if preprocessing is not None:
        check_channels(model, preprocessing)
        transform = preprocessing
    if classes is not None and len(classes) != model.spec.num_classes:
        raise UserError(
            f"{counted(len(classes), 'class name')} for a model of {counted(model.spec.num_classes, 'class')}"
        )
    if batch is not None and batch < 1:
        raise UserError(f"batch {batch} must be a positive number, or None for any")
    directory = Path(expand(directory))
    check_engine_path(directory)
    earlier = _earlier(directory)
    if int8 is not None:
        check_packages()
        check_max_drop(int8.max_drop)
        log(
            f"{counted(int8.training.count + int8.held_out.count, 'picture')} are read once, before the long work"
        )
        _check_pictures(model, int8)
        onnx = True
    writer = onnx_writer() if onnx else None
    if writer == "torch.onnx":
        log("paddle2onnx is not installed: PyTorch writes the ONNX file, from the model's twin")
    with work_folder(directory) as work:
        files = write_files(model, work, batch, onnx)
        checks = check_engines(model, work, files, batch, log)
        image = (model.spec.in_chans, *model.img_size)
        half = try_bfloat16(work / files["onnx"], image, batch, log) if files["onnx"] else None
        quantised = None
        if int8 is not None:
            more, quantised = write_int8(work / str(files["onnx"]), work, int8, batch, log)
            files.update(more)
        import paddle

        from ..data.pictures import picture_mode
        from ..models.factory import overrides_of  # Paddle is loaded here and no sooner

        card = {
            "format": FORMAT,
            "model": model.name,
            "overrides": overrides_of(model),
            "num_classes": model.spec.num_classes,
            "classes": list(classes) if classes is not None else own_classes,
            "top1": top1,
            "preprocessing": plain_transform(transform),
            "input": {
                "shape": [batch, model.spec.in_chans, *model.img_size],
                "dtype": "float32",
                "order": picture_mode(model.spec.in_chans),
            },
            "output": {"shape": [batch, model.spec.num_classes], "dtype": "float32", "meaning": "logits"},
            "files": files,
            "onnx_writer": writer,
            "sha256": {name: sha256(work / name) for name in files.values() if name},
            "onednn": not any("crash" in check for check in checks),
            "weights": describe_file(weights),
            "paddle": paddle.__version__,
            "tolerance": TOLERANCE,
            "checks": checks,
            "bf16": half,
            "int8": quantised,
        }
        (work / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        for name in earlier:  # remove what an earlier export wrote, and nothing else
            (directory / name).unlink(missing_ok=True)
        move_files(work, directory, CARD)
        return card


def _earlier(directory: Path) -> list[str]:
    """Return the names of the files of an earlier export in a folder; UserError where its card does not say."""
    if not (directory / CARD).is_file():
        return []
    try:
        return files_of(read_card(directory))
    except UserError as error:
        raise UserError(
            f"{directory} holds an export whose files are not known: {error}. Remove it, or give another folder"
        ) from None


def _check_pictures(model: paddle.nn.Layer, int8: Calibration) -> None:
    """Read all pictures once, before the long work: UserError for those made for another model, with both shapes.

    Raises:
        FileAccessError: of `Pictures.read`, one cannot be read.
    """
    takes = (model.spec.in_chans, *model.img_size)
    for part in (int8.training, int8.held_out):
        for images in part.batches(BATCH):
            made = images.shape[1:]
            if made != takes:
                raise UserError(
                    f"{part.source} are made as images of {list(made)}, {model.name} takes {list(takes)}: give "
                    "calibration_of the transform of this model (`card.evaluation_of`)"
                )


def write_files(
    model: paddle.nn.Layer, folder: Path, batch: int | None = None, onnx: bool = False
) -> dict[str, str | None]:
    """Trace a model for a batch size (None: any) into `folder`.

    Returns:
        {kind: file name}, as in the card: "program", "params", and "onnx" (None without it).
    """
    trace(model, folder / "model", batch)
    program = next(path for path in folder.iterdir() if path.suffix in (".json", ".pdmodel"))
    if onnx and onnx_writer() == "torch.onnx":
        write_onnx_by_torch(model, folder / "model.onnx", batch)
    elif onnx:
        write_onnx(program, folder / "model.pdiparams", folder / "model.onnx")
    return {"program": program.name, "params": "model.pdiparams", "onnx": "model.onnx" if onnx else None}


def trace(model: paddle.nn.Layer, path: Path, batch: int | None) -> None:
    """Write `paddle.jit.save`'s files for images of `batch` (None: any), traced in eval mode."""
    import paddle

    training = model.training
    model.eval()
    try:
        with warnings.catch_warnings(), home_for_libraries():
            warnings.simplefilter("ignore")  # about tensors without a place, by the tracer itself
            paddle.jit.save(model, str(path), input_spec=[input_spec(model, batch)])
    finally:
        if training:
            model.train()
    Path(f"{path}.pdiparams.info").unlink(missing_ok=True)  # Paddle 2's notes for further training
