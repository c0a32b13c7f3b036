"""Weights of images of one or three channels made to fit models of other channels, as timm makes them fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .bfloat16 import from_bfloat16, to_bfloat16

FROM = (1, 3)  # channels that weights can be fitted from: grey and RGB


def other_channels(own: Sequence[int], found: Sequence[int], in_chans: int) -> bool:
    """Return whether two shapes are those of a model's first convolution and of weights for other channels.

    Args:
        own: of the model's tensor, [D, in_chans, height, width].
        found: of the file's.
        in_chans: of the model.
    """
    return (
        len(own) == len(found) == 4
        and own[1] == in_chans != found[1]
        and found[1] in FROM
        and (own[0], *own[2:]) == (found[0], *found[2:])
    )


def fit_convolution(weight: np.ndarray, channels: int) -> np.ndarray:
    """Return a convolution's weights [D, C, height, width] of C = 1 or 3 channels for another number of them.

    For one channel they are summed: on a grey picture the sum does what the three did on it in RGB. For more they are
    repeated in their order and multiplied by C / channels, so that the output stays of its size.

    Args:
        weight: floating-point numbers, bfloat16 in its uint16 form, which the result has too.
        channels: wanted.
    """
    is_bfloat16 = weight.dtype == np.uint16
    values = (from_bfloat16(weight) if is_bfloat16 else weight).astype(np.float64)
    given = values.shape[1]
    if channels == 1:
        values = values.sum(1, keepdims=True)
    else:
        values = np.tile(values, (1, -(-channels // given), 1, 1))[:, :channels] * (given / channels)
    return to_bfloat16(values) if is_bfloat16 else values.astype(weight.dtype)


def what_is_done(given: int, channels: int) -> str:
    """Return what `fit_convolution` does, for a message."""
    if channels == 1:
        return f"summed over its {given} input channels, for 1"
    return f"repeated from {given} to {channels} input channels, times {given}/{channels}"
