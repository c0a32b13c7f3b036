"""Colour maps of pictures' classes, and the pictures with them laid over."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from PIL import Image

from ..utils.errors import FileAccessError, MissingFileError, UserError
from ..utils.paths import expand
from ..weights.atomic import atomic_write
from .inference import classes_of, in_eval_mode
from .mends import toolkit
from .settings import Settings

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
MAPS, OVERLAYS = "pseudo_color_prediction", "added_prediction"  # as the toolkit calls its folders
STRENGTH = 0.4  # of the colours over a picture


def find_images(paths: Sequence[str]) -> list[tuple[Path, Path]]:
    """Return (picture, its path below the folder that was given) of pictures and of folders of such.

    Raises:
        MissingFileError: no such path, or a folder without a picture.
    """
    found = []
    for given in paths:
        path = Path(expand(given))
        if path.is_file():
            found.append((path, Path(path.name)))
            continue
        if not path.is_dir():
            raise MissingFileError(f"there is no picture or folder {path}")
        inside = sorted(
            each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file()
        )
        inside = [each for each in inside if not each.name.startswith(".")]
        if not inside:
            raise MissingFileError(f"{path} has no picture ({', '.join(SUFFIXES)})")
        found += [(each, each.relative_to(path)) for each in inside]
    return found


def output_names(images: Sequence[tuple[Path, Path]]) -> list[Path]:
    """Return a path ending in .png for each picture, no two the same."""
    names = [inside.with_suffix(".png") for _, inside in images]
    names = [
        inside.with_name(f"{inside.name}.png") if names.count(name) > 1 else name
        for name, (_, inside) in zip(names, images)
    ]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"two pictures would be written as {name}: predict them into folders of their own"
            )
    return names


def palette(num_classes: int) -> np.ndarray:
    """Return the toolkit's colours [256, 3] uint8; UserError for more classes than a palette has."""
    if num_classes > 256:
        raise UserError(f"a colour map has 256 colours and the model {num_classes} classes")
    return np.array(toolkit("utils.visualize").get_color_map_list(256), np.uint8).reshape(-1, 3)[:256]


def predict(
    settings: Settings,
    model: paddle.nn.Layer,
    images: Sequence[str],
    output: str,
    rank: int = 0,
    world: int = 1,
) -> list[Path]:
    """Write a colour map and an overlay for each picture.

    Args:
        settings: whose `val_dataset.transforms` and `test_config` are used.
        model: the segmenter, with its weights.
        images: pictures and folders.
        output: gets `pseudo_color_prediction/NAME.png`, whose pixels are the classes behind a palette, and
            `added_prediction/NAME.png`.
        rank, world: this rank takes each `world`-th picture.

    Returns:
        The colour maps.

    Raises:
        UserError: a picture that is not there or cannot be read.
        FileAccessError: the output cannot be written.
    """
    found = find_images(images)
    colours = palette(getattr(model, "num_classes", 0))
    compose = toolkit("transforms").Compose(settings.transforms())
    written = []
    with in_eval_mode(model):
        for (path, _), name in list(zip(found, output_names(found)))[rank::world]:
            pixels = read_picture(path)
            classes = classes_of(model, compose({"img": pixels.copy()}), settings.test).astype(np.uint8)
            over = (1 - STRENGTH) * pixels[..., ::-1] + STRENGTH * colours[classes]
            mapped = Image.fromarray(classes, "P")
            mapped.putpalette(colours.ravel().tolist())
            for folder, picture in (
                (MAPS, mapped),
                (OVERLAYS, Image.fromarray(over.round().astype(np.uint8))),
            ):
                _write(Path(expand(output)) / folder / name, picture)
            written.append(Path(expand(output)) / MAPS / name)
    return written


def read_picture(path: str | os.PathLike[str]) -> np.ndarray:
    """Return a picture as the toolkit reads it: blue, green, red [H, W, 3] float32; UserError if that cannot be."""
    image = toolkit("transforms.transforms").cv2.imread(str(path))
    if image is None:
        raise UserError(f"{path} is not a picture that can be read")
    return image.astype("float32")


def _write(path: Path, picture: Any) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            picture.save(partial)
    except OSError as error:
        raise FileAccessError(f"{path} cannot be written: {error.strerror or error}") from None
