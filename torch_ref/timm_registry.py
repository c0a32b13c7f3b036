"""Offer the models to timm: after `register_with_timm()`, `timm.create_model("inline_deit_tiny")` works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .models import create_backbone, create_model, list_models
from .utils.errors import UserError

# What timm hands to every model about files that it would download.
TIMM_ONLY = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def register_with_timm() -> None:
    """Add every name of `list_models()` to timm's registry; timm must be installed (ImportError).

    timm's own arguments that the models share (num_classes, in_chans, img_size, drop_rate,
    drop_path_rate) and every override of `create_model` pass through. There are no pretrained weights to
    download: `pretrained=True` is a UserError that says how to load a file.

    With `features_only=True` the answer is `create_backbone`'s, for images of any size, with its arguments
    (`out_indices`, `out_norm`, ...) and timm's `feature_info`; maps are [B, C, H, W] in every family.
    """
    from timm.models import register_model

    for name in list_models():
        register_model(_builder(name))


def _builder(name: str) -> Callable[..., torch.nn.Module]:
    def build(pretrained: bool = False, **overrides: Any) -> torch.nn.Module:
        if pretrained:
            raise UserError(f"{name} has no weights to download; pass weights=FILE instead of pretrained")
        own = {k: v for k, v in overrides.items() if k not in TIMM_ONLY}
        return _features(name, **own) if own.pop("features_only", False) else create_model(name, **own)

    build.__name__ = name
    build.__module__ = __name__
    return build


def _features(name: str, **arguments: Any) -> torch.nn.Module:
    """Return a backbone that says what its maps are in timm's way."""
    from timm.models import FeatureInfo

    backbone = create_backbone(name, **arguments)
    rows = [
        {"num_chs": channels, "reduction": stride, "module": f"stages.{i}", "index": i}
        for i, channels, stride in zip(backbone.out_indices, backbone.out_channels, backbone.strides)
    ]
    backbone.feature_info = FeatureInfo(rows, tuple(range(len(rows))))
    return backbone
