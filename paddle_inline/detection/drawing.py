"""Predictions drawn on their pictures, with Pillow's own letters."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw


def colour(index: int) -> tuple[int, ...]:
    """Return a class's colour; neighbours differ by the golden angle."""
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.8, 0.95))


def draw(picture: Image.Image, objects: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Return a picture with its objects: masks, boxes, names and scores.

    Args:
        picture: RGB, W x H.
        objects: each with `index` of its class, `class`, `bbox` (x, y, width, height), perhaps `score` and, of a mask,
            `pixels` [H, W].
    """
    pixels = np.asarray(picture, np.float32).copy()
    for each in objects:
        if each.get("pixels") is not None:
            inside = np.asarray(each["pixels"], bool)
            pixels[inside] += 0.4 * (np.float32(colour(each["index"])) - pixels[inside])
    drawn = Image.fromarray(np.rint(pixels).astype(np.uint8))
    pen = ImageDraw.Draw(drawn)
    for each in objects:
        x, y, width, height = each["bbox"]
        pen.rectangle([x, y, x + width, y + height], outline=colour(each["index"]), width=2)
        score = f" {each['score']:.2f}" if "score" in each else ""
        text = f"{each['class']}{score}".encode("latin-1", "replace").decode("latin-1")
        left, top, right, bottom = pen.textbbox((x + 2, max(y - 12, 0)), text)
        pen.rectangle([left - 1, top - 1, right + 1, bottom + 1], fill=colour(each["index"]))
        pen.text((x + 2, max(y - 12, 0)), text, fill=(0, 0, 0))
    return drawn
