"""A detector's answers for pictures, one after the other."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import paddle
from PIL import Image, ImageOps

from ..utils.errors import UserError
from .imports import ppdet


def open_picture(path: str) -> Image.Image:
    """Return a picture as it is to be looked at: RGB, turned as its camera says.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except OSError as error:
        raise UserError(f"--images {path}: not a picture that can be read: {error}") from None


def predict(
    trainer: Any, files: Sequence[str], names: Mapping[int, str], threshold: float
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield (file, objects) of each picture, the surest object first.

    Args:
        trainer: the toolkit's, in test mode, its weights loaded.
        files: pictures.
        names: {id: name} of the classes.
        threshold: the lowest score.
    """
    sizes = [open_picture(file).size for file in files]  # a broken one is named before any is worked on
    trainer.dataset.set_images(list(files))
    trainer.model.eval()
    with paddle.no_grad():
        reader = ppdet("core.workspace").create("TestReader")
        for file, size, batch in zip(files, sizes, reader(trainer.dataset, 0)):
            yield file, objects(trainer.model(batch), names, threshold, size)


def objects(
    answer: Mapping[str, Any], names: Mapping[int, str], threshold: float, size: tuple[int, int]
) -> list[dict[str, Any]]:
    """Return one picture's objects from a detector's answer.

    Args:
        answer: `bbox` [N, 6] of class, score, x1, y1, x2, y2; perhaps `mask` [N, H, W].
        names: {id: name} of the classes.
        threshold: the lowest score.
        size: width and height of the picture, to which boxes are cut.

    Returns:
        For each `class`, `category_id`, `score`, `bbox` (x, y, width, height) and, with masks, `segmentation` (COCO's
        run lengths); besides `index` of the class and `pixels` [H, W] or None, for drawing.
    """
    boxes = np.asarray(answer["bbox"].numpy(), np.float64).reshape(-1, 6)
    masks = answer["mask"].numpy() if "mask" in answer else None
    found = []
    for i in np.argsort(-boxes[:, 1], kind="stable"):
        index, score, left, top, right, bottom = boxes[i].tolist()
        if index < 0 or score < max(threshold, 1e-6):  # the toolkit's box for none has score 0
            continue
        left, right = (min(max(x, 0.0), size[0]) for x in (left, right))
        top, bottom = (min(max(y, 0.0), size[1]) for y in (top, bottom))
        identity, name = list(names.items())[int(index)]
        each = {
            "class": name,
            "category_id": identity,
            "score": score,
            "bbox": [left, top, right - left, bottom - top],
            "index": int(index),
            "pixels": None,
        }
        if masks is not None:
            each["pixels"] = masks[i] > 0
            each["segmentation"] = run_lengths(each["pixels"])
        found.append(each)
    return found


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Return a mask [H, W] as COCO writes it."""
    coco: Any = importlib.import_module("pycocotools.mask")
    code = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode()}


def free_name(file: str, taken: Sequence[str]) -> str:
    """Return a name for a picture that is drawn of a file: its own, numbered where another has it."""
    stem, name, number = os.path.splitext(os.path.basename(file))[0], "", 1
    while not name or name in taken:
        name = f"{stem}.png" if number == 1 else f"{stem}-{number}.png"
        number += 1
    return name
