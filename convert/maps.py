"""Backbones of both frameworks on the same image, compared sublayer by sublayer and map by map."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from .parity.result import Report
from .parity.run import compare_models

if TYPE_CHECKING:
    import paddle
    import torch

SIZE = (133, 77)  # pixels, which no stride, window or stripe divides
MAPS = "maps"  # what the sublayers that stand for the maps are called


def compare_backbones(paddle_model: paddle.nn.Layer, torch_model: torch.nn.Module) -> Report:
    """Run two backbones in eval mode, in float64, on an image of SIZE.

    Returns:
        The Report; its rows MAPS.0, MAPS.1, ... are the maps, its logits their means over H x W, one behind the other.
    """
    return compare_models(_paddle(paddle_model), _torch(torch_model), backward=False, batch=1)


def _spec(model: Any) -> Any:
    """What images and labels are drawn for."""
    return dataclasses.replace(model.spec, img_size=SIZE, num_classes=sum(model.out_channels))


def _paddle(model: paddle.nn.Layer) -> paddle.nn.Layer:
    from paddle import concat, nn

    class Means(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.name, self.spec = model.name, _spec(model)
            self.backbone = model
            self.maps = nn.LayerList([nn.Identity() for _ in model.out_channels])

        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            maps = [same(found) for same, found in zip(self.maps, self.backbone(x))]
            return concat([found.mean(axis=(2, 3)) for found in maps], axis=1)

    means = Means()
    means.eval()
    return means


def _torch(model: torch.nn.Module) -> torch.nn.Module:
    from torch import cat, nn

    class Means(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = model
            self.maps = nn.ModuleList([nn.Identity() for _ in model.out_channels])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            maps = [same(found) for same, found in zip(self.maps, self.backbone(x))]
            return cat([found.mean(dim=(2, 3)) for found in maps], dim=1)

    return Means().eval()
