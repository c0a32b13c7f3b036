"""What the settings say of the images of a run: their channels, and their transform at an evaluation."""

from __future__ import annotations

from typing import Any

from ..weights.description import fit_channels, plain_transform
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


def fit_to_channels(config: Config) -> list[str]:
    """Fit the mean and deviation of the settings to the model's channels, in place; return what was changed.

    Raises:
        UserError: they have neither one value for each channel nor numbers that can be fitted.
    """
    notes, channels = [], config.model.in_chans
    for key in ("mean", "std"):
        given = getattr(config.data, key)
        fitted = fit_channels(given, channels)
        if fitted != given:
            setattr(config.data, key, fitted)
            notes.append(
                f"data.{key} of {len(given)} channels, {given}, is {fitted} for model.in_chans {channels}"
            )
    return notes
