"""Shears and translations of a picture along one axis: Pillow's bicubic transform, of which most is left out.

Pillow interpolates among 4 x 4 pixels whatever the matrix is. Where pixels move along one axis alone, every place lies
in a row (or column) of theirs, and the other three rows are multiplied by zero. What is left is done as Pillow does it
(`src/libImaging/Geometry.c`, affine_transform and BICUBIC), in float64 and in its order, so that the bits are the same
where Pillow was compiled without fused multiply-adds: as its wheels for x86-64 are. Elsewhere Pillow does it all.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence

import numpy as np
from PIL import Image

SAME_BITS = platform.machine().lower() in ("x86_64", "amd64")


def shift(image: Image.Image, matrix: Sequence[float], fill: Sequence[int]) -> Image.Image | None:
    """Take each pixel (x, y) from (ax + by + c, dx + ey + f) where that is (x + by + c, y) or (x, dx + y + f).

    Args:
        image: RGB, H x W pixels.
        matrix: (a, b, c, d, e, f); places are those of the pixels' middles.
        fill: the colour of what comes from outside.

    Returns:
        What `image.transform` gives by Image.BICUBIC; None for another matrix, and where rounding sets neighbours a
        pixel apart.
    """
    a, b, c, d, e, f = matrix
    if (a, d, e, f) == (1, 0, 1, 0):
        axis, lean, offset = 1, b, c  # as numpy counts: 1 of x
    elif (a, b, c, e) == (1, 0, 0, 1):
        axis, lean, offset = 0, d, f
    else:
        return None
    shape = image.height, image.width
    own, other = np.arange(shape[axis]), np.arange(shape[1 - axis])
    own, other = (own, other[:, None]) if axis == 1 else (own[:, None], other)
    across = other if lean else np.zeros((1, 1))  # all rows, or columns, are alike where none leans
    at = (own + 0.5) + lean * (across + 0.5) + offset
    inside = (at >= 0) & (at < shape[axis])
    at -= 0.5
    pixel = np.floor(at)
    at -= pixel  # from here on the way from that pixel to the next
    pixel -= own
    first = pixel.take([0], axis)
    if (pixel != first).any():
        return None
    bands = [np.full(shape, colour, np.uint8) for colour in fill]
    used = np.flatnonzero(inside.any(1 - axis))
    if len(used):
        part = _slice(axis, used[0], used[-1] + 1)
        around = np.arange(used[0] - 1, used[-1] + 3)
        around = (around if axis == 1 else around[:, None]) + first.astype(int)
        along, beside = (3, 3 * image.width) if axis == 1 else (3 * image.width, 3)  # bytes to the next
        places = np.clip(around, 0, shape[axis] - 1) * along + other * beside
        values = np.asarray(image).reshape(-1)
        for i, band in enumerate(bands):
            found = _cubic(values[i:].take(places).astype(np.int16), at[part], axis)
            np.copyto(band[part], found, where=inside[part], casting="unsafe")
    return Image.merge("RGB", [Image.fromarray(band) for band in bands])


def _cubic(values: np.ndarray, way: np.ndarray, axis: int) -> np.ndarray:
    """Return numbers of 0 to 255: of each four values in a row along `axis`, the cubic between the middle two."""
    count = values.shape[axis] - 3
    a, b, c, d = (values[_slice(axis, i, i + count)] for i in range(4))
    once = a - b
    twice = once + (c - d)
    found = way * twice
    np.subtract(once + twice, found, out=found)
    found *= way
    found += c - a
    found *= way
    found += b
    return np.clip(found.astype(np.int16), 0, 255)


def _slice(axis: int, start: int, stop: int) -> tuple[slice, ...]:
    return (slice(None),) * axis + (slice(start, stop),)
