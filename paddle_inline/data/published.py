"""How the published recipes make the images of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..weights.description import fit_channels, plain_transform

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def published_transform(model: str, img_size: int | Sequence[int], in_chans: int = 3) -> dict[str, Any]:
    """Return the evaluation transform of a model's published recipe, as arguments of `eval_transform`.

    It is what weights are taken to want that do not say. InLine's families resize images to a square, those of
    Swin-B at 384 pixels without a crop; SOFT resizes the short side and keeps 0.9 of it.

    Args:
        model: its name.
        img_size: pixels of the sides.
        in_chans: channels; for others than three ImageNet's mean and deviation are fitted (`fit_channels`).
    """
    short = model.startswith("soft_")
    return plain_transform(
        {
            "img_size": img_size,
            "mean": fit_channels(IMAGENET_MEAN, in_chans),
            "std": fit_channels(IMAGENET_STD, in_chans),
            "crop": model != "inline_swin_base_384",
            "resize": "short" if short else "square",
            "crop_ratio": 0.9 if short else 0.875,
        }
    )
