"""Evaluating weights as they say of themselves: their model, their transform, their classes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import paddle

from ..config.evaluation import evaluation_transform
from ..config.load import Config, model_name
from ..models.factory import create_model
from ..utils.errors import FileAccessError, UserError
from ..weights.atomic import atomic_write
from ..weights.description import plain_transform
from ..weights.load import find_weights, load_weights, open_weights
from ..weights.told import shown_sizes
from . import build
from .checkpoint import find_checkpoint
from .evaluate import Accuracy

# setting -> entry of a transform
SETTINGS = {
    "data.img_size": "img_size",
    "data.mean": "mean",
    "data.std": "std",
    "data.interpolation": "interpolation",
    "test.crop": "crop",
    "test.resize": "resize",
    "test.crop_ratio": "crop_ratio",
}


def weights_in(folder: str | os.PathLike[str], prefer_best: bool) -> str:
    """Return the weights file that a run's or a checkpoint's folder means.

    Args:
        folder: that exists.
        prefer_best: of a run's folder, its best weights; else those of its newest checkpoint.

    Raises:
        UserError: there are none.
    """
    if prefer_best and any(
        (Path(folder) / name).exists() for name in ("best_model.pdparams", "model.pdparams")
    ):
        return str(find_weights(folder))
    return str(find_checkpoint(folder) / "model.pdparams")


def follow(config: Config, weights: str, given: Collection[str], named: bool) -> list[str]:
    """Put the transform that weights were evaluated with into the settings, in place.

    Args:
        config: the settings.
        weights: a file.
        given: keys that were set on the command line; they stay, with a note where the weights say otherwise.
        named: whether the settings name a model: it must be that of the weights.

    Returns:
        Notes on what was assumed or differs.

    Raises:
        UserError: the settings name another model than the weights.
    """
    description = open_weights(weights)[1]
    if description is None:
        return [f"{weights} does not say how its images are made: assumed is what the settings say"]
    name = model_name(config.model.name)
    if (named or "model.name" in given) and name != description["model"]:
        raise UserError(
            f"{weights} is of {description['model']}, the settings name {name}: leave model.name out, or give "
            "weights of that model"
        )
    config.model.name = description["model"]
    transform = description.get("transform")
    if transform is None:
        return [f"{weights} does not say how its images are made: assumed is what the settings say"]
    notes = []
    own = plain_transform(evaluation_transform(config))
    for key, entry in SETTINGS.items():
        if own[entry] == transform[entry]:
            continue
        if key in given:
            notes.append(
                f"{key} is {own[entry]}, as you say; the weights were evaluated with {transform[entry]}"
            )
        else:
            section, field = key.split(".")
            setattr(getattr(config, section), field, transform[entry])
    return notes


def check_metrics_file(path: str) -> None:
    """Refuse a file for an evaluation's numbers that cannot be written, before minutes are spent on them.

    Raises:
        FileAccessError: naming it.
    """
    folder = Path(path).parent
    if Path(path).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        why = "it is a folder" if Path(path).is_dir() else f"{folder} is no folder that can be written"
        raise FileAccessError(f"--metrics {path} cannot be written: {why}")


def write_metrics(path: str, accuracy: Accuracy, classes: Sequence[str], **facts: Any) -> None:
    """Write an evaluation's numbers as JSON, those of every class too.

    Args:
        classes: names of the data set's, by the model's numbers.
        facts: what was evaluated.

    Raises:
        FileAccessError: it cannot be written.
    """
    names = [*classes, *[None] * (len(accuracy.per_class) - len(classes))]
    each = [
        {"class": number, "name": name, "images": images, "correct": right, "top1": top1}
        for number, (name, (images, right), top1) in enumerate(
            zip(names, accuracy.per_class, accuracy.class_top1)
        )
        if name is not None or images
    ]
    loss = accuracy.loss if math.isfinite(accuracy.loss) else str(accuracy.loss)
    found = {"top1": accuracy.top1, "top5": accuracy.top5, "loss": loss, "images": accuracy.images}
    text = json.dumps({**facts, **found, "bad_images": accuracy.bad, "classes": each}, indent=1)
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise FileAccessError(f"--metrics {path} cannot be written: {error.strerror or error}") from None


def build_model(config: Config, weights: str, classes: int, notes: list[str]) -> paddle.nn.Layer:
    """Build the model of a weights file, with its weights.

    Args:
        config: the settings; they decide what a file without a description does not show.
        weights: the file.
        classes: of the data set.
        notes: gets a line where outputs have no names and are more than the classes.

    Raises:
        UserError: the weights do not fit the settings, or have fewer classes.
    """
    description = open_weights(weights)[1]
    if description is None:
        if config.model.num_classes is None:
            config.model.num_classes = shown_sizes(weights).get("num_classes")
        model = build.build_model(config, classes)
        load_weights(model, weights)
        return _with_note(model, classes, notes)
    overrides: dict[str, Any] = {}
    if description["overrides"].get("img_size", config.data.img_size) != config.data.img_size:
        overrides["img_size"] = config.data.img_size
    model = create_model(weights=weights, **overrides)
    if model.spec.num_classes < classes:
        raise UserError(f"{weights} has {model.spec.num_classes} classes; the data set has {classes}")
    return _with_note(model, classes, notes)


def _with_note(model, classes, notes):
    if classes < model.spec.num_classes and "classes" not in model.description:
        notes.append(
            f"the model has {model.spec.num_classes} outputs and no names of them; its first {classes} are taken to be "
            "the classes of the data"
        )
    return model
