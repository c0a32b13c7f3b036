"""The end of a recipe, done for a whole batch: 8-bit pixels become float32, are normalised, and erased boxes filled.

Workers hand over a quarter of the bytes, and a GPU does the arithmetic where one is used. The numbers are the same bits
as those of one image after the other. B images of C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle.utils.dlpack import from_dlpack


class Pixels(NamedTuple):
    """An image before its normalisation, and what is put in afterwards."""

    values: np.ndarray  # [C, H, W] uint8
    places: np.ndarray  # [n] int32, in the C * H * W numbers, each once
    filling: np.ndarray  # [n] float32, what stands there at the end


NOTHING = np.zeros(0, np.int32), np.zeros(0, np.float32)  # the places and the filling of an image as it is


def collate_pixels(images: Sequence[Pixels]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (values [B, C, H, W] uint8, places [N + 1] in all of them, filling [N + 1]).

    The last place lies outside and its filling is none: Paddle's shared memory takes no empty array.
    """
    values = np.stack([image.values for image in images])
    size, dtype = values[0].size, np.int32 if values.size < 1 << 31 else np.int64
    places = [image.places.astype(dtype) + i * size for i, image in enumerate(images)]
    filling = [image.filling for image in images]
    return (
        values,
        np.concatenate([*places, [values.size]], dtype=dtype),
        np.concatenate([*filling, np.zeros(1, np.float32)]),
    )


class Normalize:
    """8-bit values -> (value / 255 - mean) / std, float32, per channel.

    Args:
        mean, std: of the C channels, of values from 0 to 1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = (np.float32(values).reshape(-1, 1, 1) for values in (mean, std))
        self.tables: dict[str, Any] = {}  # by device

    def one(self, values: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return an image [C, H, W] uint8 as float32, in `out` where it is given."""
        out = np.divide(values, np.float32(255), out=out, dtype=np.float32)
        out -= self.mean
        out /= self.std
        return out

    def __call__(self, values: paddle.Tensor, places: paddle.Tensor, filling: paddle.Tensor) -> paddle.Tensor:
        """Return a batch as `collate_pixels` gives it, [B, C, H, W] float32, on the device where it is."""
        if not values.place.is_cpu_place():
            return self.by_table(values, places, filling)
        pixels = values.numpy()
        out = np.empty(pixels.shape, np.float32)
        for image, finished in zip(pixels, out):  # one at a time stays in the processor's cache
            self.one(image, finished)
        out.reshape(-1)[places.numpy()[:-1]] = filling.numpy()[:-1]
        return from_dlpack(
            out.__dlpack__()
        )  # the same memory: a copy takes longer than all that is done here

    def by_table(self, values: paddle.Tensor, places: paddle.Tensor, filling: paddle.Tensor) -> paddle.Tensor:
        """As a call, by looking every value up: the host's numbers, however a device divides."""
        device = str(values.place)
        if device not in self.tables:
            table = np.ascontiguousarray(self.one(self._every_value())[:, 0])
            first = np.arange(len(table), dtype=np.int32).reshape(-1, 1, 1) * 256
            self.tables[device] = paddle.to_tensor(table.reshape(-1)), paddle.to_tensor(first)
        table, first = self.tables[device]
        found = paddle.gather(table, (values.astype("int32") + first).reshape([-1]))
        if places.shape[0] > 1:
            found = paddle.scatter(found, places[:-1], filling[:-1])
        return found.reshape(values.shape)

    def _every_value(self):
        return np.broadcast_to(np.arange(256, dtype=np.uint8), (len(self.mean), 1, 256))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "tables": {}}
