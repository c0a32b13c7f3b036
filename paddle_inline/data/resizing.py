"""Resizing images whose one side is many times the other."""

from __future__ import annotations

from typing import Any

from PIL import Image

from .filters import resize

LONGEST = 16  # times the other side; more of an image than that no crop in its middle needs


def resized(image: Image.Image, size: tuple[int, int], resample: Any) -> Image.Image:
    """Resize an image, one whose one side is above LONGEST times the other to the middle of the result alone.

    A strip of 1 x 40,000 pixels, a kilobyte in its file, would become 10 gigabytes, of which a square is kept. The
    pixels of the middle are the same, but for the rounding between the two directions, whose order Pillow chooses.

    Args:
        image: of any shape.
        size: of the whole result, (width, height).
        resample: a filter of PIL.
    """
    axis = int(size[1] > size[0])
    longest = LONGEST * size[1 - axis]
    longest += (size[axis] - longest) % 2  # as much is left out on either side
    if size[axis] <= longest:
        return resize(image, size, resample)
    scale = image.size[axis] / size[axis]
    start = (size[axis] - longest) // 2
    kept, box = list(size), [0.0, 0.0, float(image.width), float(image.height)]
    kept[axis], box[axis], box[axis + 2] = longest, start * scale, (start + longest) * scale
    return image.resize((kept[0], kept[1]), resample, box=(box[0], box[1], box[2], box[3]))
