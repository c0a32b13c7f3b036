"""What the settings say of the images of an evaluation."""

from __future__ import annotations

from typing import Any

from ..weights.description import plain_transform
from .schema import Config


def evaluation_transform(config: Config) -> dict[str, Any]:
    """Return the settings' evaluation transform, as arguments of `eval_transform`."""
    data, test = config.data, config.test
    return plain_transform(
        {
            "img_size": data.img_size,
            "mean": data.mean,
            "std": data.std,
            "interpolation": data.interpolation,
            "crop": test.crop,
            "resize": test.resize,
            "crop_ratio": test.crop_ratio,
        }
    )
