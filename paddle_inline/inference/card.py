"""The card of an exported model, `card.json`: what it is, how its input is made, what was checked."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.errors import MissingFileError, UserError, counted
from ..utils.paths import expand
from ..utils.streams import escaped
from ..weights.atomic import sha256
from ..weights.description import check_transform, plain_size
from ..weights.lazy_array import WeightsFileError

if TYPE_CHECKING:
    import paddle

CARD = "card.json"
FORMAT = 1
ENTRIES = (
    "model",
    "num_classes",
    "classes",
    "preprocessing",
    "input",
    "files",
    "onednn",
)  # that readers need


def evaluation_of(
    model: paddle.nn.Layer,
) -> tuple[dict[str, Any], list[str] | None, str | None]:
    """Return how a model's images are made and what its outputs are called, by the description of its weights.

    Args:
        model: of `create_model`.

    Returns:
        (transform, classes, assumed): arguments of `eval_transform`, for the model's own input size; the names or
        None; and a line on what was assumed where the weights that were loaded do not say, else None.

    Raises:
        UserError: pictures have no such number of channels as the model takes, the transform makes another, or there
            are more names than outputs.
    """
    from ..data.pictures import picture_mode
    from ..data.published import published_transform

    channels, size = model.spec.in_chans, plain_size(model.img_size)
    picture_mode(channels)
    description = getattr(model, "description", None)
    known = (description or {}).get("transform")
    transform = {**known, "img_size": size} if known else published_transform(model.name, size, channels)
    check_channels(model, transform)
    assumed = None
    if description is not None and not known:
        rule = (
            f"{transform['resize']} resize, crop {transform['crop_ratio']}"
            if transform["crop"]
            else "no crop"
        )
        assumed = (
            f"the weights of {model.name} do not say how their images are made: assumed is the published recipe "
            f"({shown_size(size)} pixels, {transform['interpolation']}, {rule}, ImageNet's mean and std)"
        )
    classes = (description or {}).get("classes")
    if classes is not None and len(classes) > model.spec.num_classes:
        raise UserError(
            f"the weights name {counted(len(classes), 'class')}, but {model.name} has "
            f"{counted(model.spec.num_classes, 'output')}"
        )
    return transform, classes, assumed


def check_channels(model: paddle.nn.Layer, transform: Mapping[str, Any]) -> None:
    """Refuse a transform that does not make images of a model's channels: UserError with both numbers."""
    made = len(transform["mean"])
    if made != model.spec.in_chans:
        raise UserError(
            f"the transform of {model.name} has mean and std of {counted(made, 'channel')}, the model takes "
            f"{model.spec.in_chans}"
        )


def shown_size(size: Any) -> str:
    """Return a size in pixels as messages show it: 224, or 192 x 640 (height, width)."""
    return str(size) if isinstance(size, int) else " x ".join(map(str, size))


def check_engine_path(directory: str | Path) -> None:
    """Check that inference engines can open files in a folder.

    Raises:
        UserError: its name is no UTF-8, which is all that they take.
    """
    if not str(directory).isascii() and re.search("[\ud800-\udfff]", str(directory)):
        raise UserError(
            f"{escaped(directory)} has bytes in its name that are no UTF-8, and inference engines cannot open it: "
            "rename the folder, or use another"
        )


def describe_file(path: str | Path | None) -> dict[str, str] | None:
    """Return {"file": name, "sha256": digest} of a file; None of None."""
    return None if path is None else {"file": Path(path).name, "sha256": sha256(path)}


def files_of(card: dict[str, Any]) -> list[str]:
    """Return the names of the files of a card's export, the card first."""
    return [CARD, *filter(None, card["files"].values())]


def check_file(path: Path, digest: str | None) -> None:
    """Check a file of an export against the digest in its card; exports of 0.1 have none.

    Raises:
        MissingFileError, UserError: it is not there; it is damaged.
    """
    if not path.is_file():
        raise MissingFileError(f"no program file {path}: copy the whole export, or export the model again")
    if digest is not None and sha256(path) != digest:
        raise UserError(
            f"{path} is damaged, or of another export (its SHA-256 is not the one in {CARD}): copy the export again"
        )


def read_card(directory: str | Path) -> dict[str, Any]:
    """Return the card of an exported model.

    Raises:
        MissingFileError: no card there.
        UserError: not a card that this version reads.
    """
    directory = expand(directory)
    check_engine_path(directory)
    path = Path(directory) / CARD
    if os.path.isfile(directory) or "://" in str(directory):
        what = "is a file" if os.path.isfile(directory) else "is an address"
        raise MissingFileError(
            f"{directory} {what}: a Predictor takes the folder that `python -m paddle_inline export --weights FILE "
            "--output DIR` writes, or a model of create_model(weights=FILE)"
        )
    if not os.path.isfile(path):
        raise MissingFileError(f"no {CARD} in {directory}: `python -m paddle_inline export` writes it")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        found, names = card["format"], [Path(name) for name in files_of(card)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not the card of an exported model: {error}") from None
    if found != FORMAT:
        raise UserError(f"{path} has format {found}, this version reads {FORMAT}: export the model again")
    for name in names:
        if name.name != str(name):
            raise UserError(f"{path} names the file {str(name)!r}, but its files must lie beside it")
    missing = [entry for entry in ENTRIES if entry not in card]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}: export the model again")
    try:
        card["preprocessing"] = check_transform(card["preprocessing"])
    except WeightsFileError as error:
        raise UserError(f"{path}: {error}") from None
    return card
