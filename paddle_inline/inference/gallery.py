"""A page of images and their likeliest classes, in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL.Image import Resampling

from ..utils.html import render_pieces
from ..weights.description import image_sides

if TYPE_CHECKING:
    from PIL import Image

    from .predictor import Prediction

    Answer = tuple[Path, Image.Image, Sequence[Prediction]]

TEMPLATE = Path(__file__).with_name("templates") / "gallery.html"
THUMBNAIL = 224  # pixels of the longer side
SMALL = 64  # thumbnails up to this many pixels are kept without loss


def page(card: Mapping[str, Any], answers: Sequence[Answer]) -> str:
    """Make the page of some classified images.

    Args:
        card: describes the model, as `read_card` gives it.
        answers: of each image its path, itself and its likeliest classes, likeliest first.

    Returns:
        The page as HTML text.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    return "".join(page_pieces(card, answers, len(answers)))


def page_pieces(
    card: Mapping[str, Any], answers: Iterable[Answer], count: int, unreadable: Sequence[str | Path] = ()
) -> Iterator[str]:
    """Make a page as `page` does, piece by piece, each image taken and forgotten in its turn.

    Args:
        count: images in all.
        unreadable: those among them that could not be read; looked at after the last answer.
    """
    return render_pieces(
        TEMPLATE,
        model=card["model"],
        num_classes=card["num_classes"],
        size=" x ".join(map(str, image_sides(card["preprocessing"]["img_size"]))),
        count=count,
        answers=((path.name, _data_url(image), predictions) for path, image, predictions in answers),
        unreadable=(Path(path).name for path in unreadable),
    )


def thumbnail(image: Image.Image) -> Image.Image:
    """Return an image no larger than the page shows it."""
    scale = THUMBNAIL / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Resampling.BICUBIC, reducing_gap=2.0)


def _data_url(image: Image.Image) -> str:
    """An image's thumbnail as a URL that holds it."""
    image = thumbnail(image).convert("RGB")
    kind = "png" if max(image.size) <= SMALL else "jpeg"
    file = io.BytesIO()
    image.save(file, kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
