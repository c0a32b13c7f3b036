"""Evaluating weights as they say of themselves: their model, their transform, their classes."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import paddle

from ..config.evaluation import evaluation_transform
from ..config.load import Config, model_name
from ..data.pictures import picture_mode
from ..data.published import published_transform
from ..models.factory import create_model, model_of_tensors, model_spec
from ..utils.errors import FileAccessError, UserError, counted
from ..weights.atomic import atomic_write
from ..weights.description import fit_channels, plain_size, plain_transform
from ..weights.load import find_weights, open_weights
from ..weights.resize import load_fitted
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
    """Put the model, the channels and the transform of weights into the settings, in place.

    They are what the file says of itself; of one that says nothing, what its tensors show.

    Args:
        config: the settings.
        weights: a file.
        given: keys that were set on the command line; they stay, with a note where the weights say otherwise.
        named: whether the settings are those of a file: their model must be that of the weights, and of weights that
            do not say how their images are made they do.

    Returns:
        Notes on what was assumed or differs.

    Raises:
        UserError: the settings name another model than the weights, or neither names one; images that the model
            cannot take.
    """
    arrays, description = open_weights(weights)
    shapes, name = {key: array.shape for key, array in arrays.items()}, model_name(config.model.name)
    named_model = named or "model.name" in given
    notes = []
    if description is None:
        if not named_model:
            name = model_of_tensors(weights, shapes)
            notes.append(f"{weights} does not name its model: by its tensors it is of {name}")
        sizes: dict[str, Any] = shown_sizes(shapes)
    else:
        if named_model and name != description["model"]:
            raise UserError(
                f"{weights} is of {description['model']}, the settings name {name}: leave model.name out, or give "
                "weights of that model"
            )
        name = description["model"]
        spec = model_spec(name, **description["overrides"])
        sizes = {"in_chans": spec.in_chans, "num_classes": spec.num_classes, "img_size": spec.img_size}
    config.model.name = name
    if "model.in_chans" not in given:
        config.model.in_chans = sizes.get("in_chans", config.model.in_chans)
    picture_mode(config.model.in_chans)
    if "model.num_classes" not in given and description is None:
        config.model.num_classes = sizes.get("num_classes", config.model.num_classes) or None
    transform = (description or {}).get("transform")
    if transform is not None:
        fitted = {key: fit_channels(transform[key], config.model.in_chans) for key in ("mean", "std")}
        transform = {**transform, **fitted}
    else:
        size = sizes.get("img_size", config.data.img_size)
        assumed = "what the settings say" if named else f"the published recipe of {name}"
        notes.append(f"{weights} does not say how its images are made: assumed is {assumed}")
        if named:
            transform = {**evaluation_transform(config), "img_size": plain_size(size)}
        else:
            transform = published_transform(name, size, config.model.in_chans)
    notes += _follow_transform(config, transform, given)
    if description is None:
        return notes + build.check_images(config)
    return notes + build.check_images(config, {**description["overrides"], **_changes(config, description)})


def _follow_transform(config: Config, transform: Mapping[str, Any], given: Collection[str]) -> list[str]:
    """Put a transform into the settings where they were not given; return notes on those that were and differ."""
    notes, own = [], plain_transform(evaluation_transform(config))
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


def check_report_folder(path: str) -> None:
    """Make the folder for an evaluation's report, before minutes are spent on it.

    Raises:
        FileAccessError: it cannot be written, naming it.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileAccessError(f"--report {path} cannot be made: {error.strerror or error}") from None
    if not os.access(path, os.W_OK):
        raise FileAccessError(f"--report {path} cannot be written: choose another folder")


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


def _changes(config: Config, description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides with which the settings ask for another model than weights are described to be of."""
    spec, size = model_spec(description["model"], **description["overrides"]), config.data.img_size
    changes: dict[str, Any] = {}
    if config.model.in_chans != spec.in_chans:
        changes["in_chans"] = config.model.in_chans
    if size != plain_size(spec.img_size):
        changes["img_size"] = size if isinstance(size, int) else tuple(size)
    return changes


def build_model(config: Config, weights: str, classes: int, notes: list[str]) -> paddle.nn.Layer:
    """Build the model of a weights file, with its weights.

    Args:
        config: the settings, as `follow` left them; they decide what a file without a description does not show.
        weights: the file.
        classes: of the data set.
        notes: gets a line on what was changed to fit another input size or other channels, and where outputs have no
            names and are more than the classes.

    Raises:
        UserError: the weights do not fit the settings, or have fewer classes.
    """
    description = open_weights(weights)[1]
    if description is None:
        model = build.build_model(config, classes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if description is None:
            load_fitted(model, weights)
        else:
            model = create_model(weights=weights, **_changes(config, description))
    if model.spec.num_classes < classes:
        raise UserError(
            f"{weights} has {counted(model.spec.num_classes, 'class')}; the data set has {classes}"
        )
    notes += [str(warning.message) for warning in caught if warning.category is UserWarning]
    if classes < model.spec.num_classes and "classes" not in model.description:
        notes.append(
            f"the model has {counted(model.spec.num_classes, 'output')} and no names of them; its first {classes} are "
            "taken to be the classes of the data"
        )
    return model
