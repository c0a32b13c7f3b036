"""A model of paddle_inline as an ONNX file by way of its twin in PyTorch: for Pythons that have no paddle2onnx.

`paddle_inline export --onnx` runs it in a process of its own, and holds the file against the model as any other.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .parity.models import create_pair

OPSET = 17  # as paddle_inline/inference/onnx_export.py


def write(
    weights: str | Path, path: str | Path, name: str, batch: int | None, overrides: dict[str, Any]
) -> None:
    """Write the ONNX file of a model's twin.

    Args:
        weights: a file of paddle_inline.
        path: the file to write.
        name: of the model.
        batch: the one batch size of the file; None: any.
        overrides: of `create_model`.
    """
    _, model = create_pair(name, weights, **overrides)
    images = torch.zeros([batch or 2, model.spec.in_chans, *model.img_size])
    names = {"input_names": ["image"], "output_names": ["logits"]}
    any_batch = None if batch else {"image": {0: "batch"}, "logits": {0: "batch"}}
    with warnings.catch_warnings(), torch.no_grad(), local_filter_by_products():
        warnings.simplefilter("ignore")  # about shapes that are the same for every image
        torch.onnx.export(
            model, (images,), str(path), opset_version=OPSET, dynamic_axes=any_batch, dynamo=False, **names
        )


@contextlib.contextmanager
def local_filter_by_products() -> Iterator[None]:
    """Let InLine's local residual be nine products while this lasts.

    A convolution whose filters are computed, one for each image and channel, would fix the batch.
    """
    from torch_ref.ops import inline_attention

    functional = inline_attention.F
    inline_attention.F = SimpleNamespace(**{**vars(functional), "conv2d": _products})
    try:
        yield
    finally:
        inline_attention.F = functional


def _products(x: Tensor, kernel: Tensor, padding: int, groups: int) -> Tensor:
    """Cross-correlate maps [1, G, H, W] with filters [G, 1, 3, 3], a group each, zero padding 1: [1, G, H, W]."""
    height, width = x.shape[2:]
    row = torch.zeros_like(x[:, :, :1])
    x = torch.cat([row, x, row], 2)
    column = torch.zeros_like(x[:, :, :, :1])
    x = torch.cat([column, x, column], 3)
    taps = kernel.reshape([1, -1, 9, 1])
    shifted = [
        x[:, :, i : i + height, j : j + width] * taps[:, :, 3 * i + j, None]
        for i in range(3)
        for j in range(3)
    ]
    return sum(shifted[1:], shifted[0])
