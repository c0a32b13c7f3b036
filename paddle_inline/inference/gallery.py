"""A page of images and their likeliest classes, in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.html import render_page

if TYPE_CHECKING:
    from PIL import Image

    from .predictor import Prediction

TEMPLATE = Path(__file__).with_name("templates") / "gallery.html"
THUMBNAIL = 224  # pixels of the longer side
SMALL = 64  # thumbnails up to this many pixels are kept without loss


def page(card: Mapping[str, Any], answers: Sequence[tuple[Path, Image.Image, Sequence[Prediction]]]) -> str:
    """Make the page of some classified images.

    Args:
        card: describes the model, as `read_card` gives it.
        answers: of each image its path, itself and its likeliest classes, likeliest first.

    Returns:
        The page as HTML text.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    return render_page(
        TEMPLATE,
        model=card["model"],
        num_classes=card["num_classes"],
        img_size=card["preprocessing"]["img_size"],
        answers=[(path.name, _data_url(image), predictions) for path, image, predictions in answers],
    )


def _data_url(image: Image.Image) -> str:
    """An image's thumbnail as a URL that holds it."""
    image = image.copy()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    kind = "png" if max(image.size) <= SMALL else "jpeg"
    file = io.BytesIO()
    image.save(file, kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
