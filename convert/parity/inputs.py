"""Test weights without files: each tensor is a function of its name, its PyTorch shape and a seed.

Every tensor gets values that matter (no zeros, no ones), so that a swapped, missing or transposed one
cannot hide, and both frameworks draw the same numbers on any machine.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

BACKBONE_SIZE = (
    133,
    77,
)  # pixels of a backbone's images: padding, windows and stripes all have to be made up
READ_OUT = 5  # classes of the logits that are read out of a backbone's maps


def rule_tensor(name: str, shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Return the float64 values of the tensor with this PyTorch name and shape."""
    random = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    z = random.standard_normal(math.prod(shape)).reshape(shape)
    own_name = name.rsplit(".", 1)[-1]
    if own_name == "running_var":
        return 1 + 0.1 * np.abs(z)
    if own_name == "running_mean":
        return 0.1 * z
    if len(shape) < 2:
        return 1 + 0.1 * z if own_name == "weight" else 0.1 * z
    return z / math.sqrt(math.prod(shape[1:])) if own_name == "weight" else 0.1 * z


def rule_weights(template: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    """Return {PyTorch name: array} for a {PyTorch name: array} template.

    Integer tensors and `attn_mask`, which follow from the model's sizes, keep the template's values.
    """
    return {
        name: np.array(value)
        if value.dtype.kind in "iu" or name.rsplit(".", 1)[-1] == "attn_mask"
        else rule_tensor(name, value.shape, seed)
        for name, value in template.items()
    }


def draw_images(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Return standard normal images of this shape, float64."""
    return np.random.RandomState(1000 + seed).standard_normal(tuple(shape))


def draw_labels(batch: int, num_classes: int) -> np.ndarray:
    """Return labels [batch], int64, spread over the classes."""
    return (7 * np.arange(batch) + 3) % max(num_classes, 1)


def draw_read_out(place: int, channels: int, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what makes logits of a backbone's map: weights of its pixels [pixels, 1] and of its channels [channels,
    READ_OUT]; `place`: of the map among the backbone's. All of the map's numbers then have gradients of their own."""
    random = np.random.RandomState(2000 + place)
    rows = random.standard_normal((pixels, 1)) / math.sqrt(pixels)
    return rows, random.standard_normal((channels, READ_OUT)) / math.sqrt(channels)


def rule_batch(
    spec: Any, batch: int | None = None, seed: int = 0, backbone_size: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return images [batch, in_chans, H, W] and labels [batch] for a model's spec, of its own img_size; for a backbone
    of `backbone_size`, with labels of its read-out.

    By default two images of 224 pixels and more; of smaller ones as many as have as many pixels, but 32 at
    most: how far rounding carries a result is a matter of luck, which many pixels even out.
    """
    size = backbone_size or (
        (spec.img_size, spec.img_size) if isinstance(spec.img_size, int) else spec.img_size
    )
    if batch is None:
        batch = min(max(2, 2 * 224 * 224 // math.prod(size)), 32)
    num_classes = READ_OUT if backbone_size else spec.num_classes
    return draw_images((batch, spec.in_chans, *size), seed), draw_labels(batch, num_classes)
