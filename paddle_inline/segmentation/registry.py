"""Our backbones and heads under their names in PaddleSeg's registries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..toolkits.mends import apply_mends
from .heads import Path, SemanticFPN, UperNet
from .mends import MENDS, toolkit

HEADS = (SemanticFPN, UperNet)


def backbones() -> list[str]:
    """Return the names of the models that give maps of four strides: all but DeiT."""
    from ..models import list_models

    return [name for name in list_models() if "deit" not in name]


def backbone_builder(name: str) -> Callable[..., Any]:
    """Return a function that builds a backbone as PaddleSeg's heads, its own and ours, use one.

    Its arguments are `pretrained`, a file of weights that is loaded strictly; `in_channels`; and those of
    `create_backbone`. The layer has `feat_channels`, as the toolkit calls `out_channels`.
    """

    def build(pretrained: Path = None, in_channels: int = 3, **options: Any) -> Any:
        from .. import create_backbone

        options = {"in_chans": in_channels, "crop": True, **options}
        layer = create_backbone(name, weights=pretrained or None, **options)
        layer.feat_channels = list(layer.out_channels)
        return layer

    build.__name__ = build.__qualname__ = name
    return build


def register() -> list[str]:
    """Make backbones and heads known to PaddleSeg, and mend what is wrong with an older one. May be called again.

    Returns:
        The mends that were applied, a line each.

    Raises:
        MissingPackageError: PaddleSeg is not installed.
    """
    manager = toolkit("cvlibs").manager
    (
        toolkit("models"),
        toolkit("datasets"),
        toolkit("transforms"),
        toolkit("optimizers"),
    )  # they register theirs
    applied = apply_mends(MENDS)
    for name in backbones():
        if name not in manager.BACKBONES.components_dict:
            manager.BACKBONES.add_component(backbone_builder(name))
    for head in HEADS:
        if head.__name__ not in manager.MODELS.components_dict:
            manager.MODELS.add_component(head)
    return applied
