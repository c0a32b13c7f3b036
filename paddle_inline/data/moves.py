"""Pictures rotated, sheared and shifted as Pillow does, bit for bit, by the loops of `pixel_loops` (see `filters`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from .filters import loops


def move(image: Image.Image, matrix: Sequence[float], fill: Sequence[int]) -> Image.Image | None:
    """Take each pixel (x, y) from (ax + by + c, dx + ey + f), `matrix` being (a, b, c, d, e, f).

    Args:
        image: RGB.
        fill: the colour of what comes from outside.

    Returns:
        What `image.transform` gives by Image.BICUBIC; None where there are no loops.
    """
    loop = loops()
    if loop is None:
        return None
    pixels = np.frombuffer(image.tobytes("raw", "RGBX"), np.uint32).reshape(image.height, image.width)
    out = np.empty(pixels.shape, np.uint32)
    colour = np.uint32(fill[0] | fill[1] << 8 | fill[2] << 16)
    loop.move(pixels, tuple(float(number) for number in matrix), colour, out)
    return Image.frombytes("RGB", image.size, out.data, "raw", "RGBX")


def rotation(size: tuple[int, int], degrees: float) -> tuple[float, ...]:
    """Return the matrix by which `image.rotate` turns a picture of (width, height) about its middle."""
    angle = -math.radians(degrees % 360)
    cos, sin, minus = (round(value, 15) for value in (math.cos(angle), math.sin(angle), -math.sin(angle)))
    x, y = size[0] / 2, size[1] / 2
    return cos, sin, cos * -x + sin * -y + x, minus, cos, minus * -x + cos * -y + y
