"""The card of an exported model, `card.json`: what it is, how its input is made, what was checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..utils.errors import MissingFileError, UserError
from ..weights.atomic import sha256

CARD = "card.json"
FORMAT = 1
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ENTRIES = (
    "model",
    "num_classes",
    "classes",
    "preprocessing",
    "input",
    "files",
    "onednn",
)  # that readers need


def default_preprocessing(name: str, side: int) -> dict[str, Any]:
    """Return ImageNet's evaluation recipe, as arguments of `data.transforms.eval_transform`.

    Args:
        name: the model's; those fine-tuned at 384 pixels resize their images to it, others crop the centre.
        side: pixels of the square image.
    """
    return {
        "img_size": side,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "interpolation": "bicubic",
        "crop": not name.endswith("_384"),
    }


def square_side(size: tuple[int, int]) -> int:
    """Return the side of a square size in pixels.

    Raises:
        UserError: another size, which the evaluation transform does not make.
    """
    if size[0] != size[1]:
        raise UserError(f"img_size {tuple(size)}: exported models take square images, as (224, 224)")
    return size[0]


def describe_file(path: str | Path | None) -> dict[str, str] | None:
    """Return {"file": name, "sha256": digest} of a file; None of None."""
    return None if path is None else {"file": Path(path).name, "sha256": sha256(path)}


def files_of(card: dict[str, Any]) -> list[str]:
    """Return the names of the files of a card's export, the card first."""
    return [CARD, *filter(None, card["files"].values())]


def read_card(directory: str | Path) -> dict[str, Any]:
    """Return the card of an exported model.

    Raises:
        MissingFileError: no card there.
        UserError: not a card that this version reads.
    """
    path = Path(directory) / CARD
    if not path.is_file():
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
    return card
