"""Our backbones as PaddleDetection builds them: one class for its registry, chosen by name in a settings file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..models import create_backbone
from ..utils.errors import UserError
from .imports import ppdet


class InLineBackbone:
    """A backbone for `backbone: InLineBackbone` in a settings file.

    It is a class because the toolkit's registry takes its arguments from one; calling it returns the layer of
    `create_backbone`, whose parameters keep their names behind `backbone.`, with the `out_shape` that necks ask for and
    an input {"image": images [B, 3, H, W]} in place of the images.

    Args:
        model: a name of `paddle_inline.list_models()`: InLine-PVT, -Swin, -CSwin, SOFT or SOFT-Norm.
        pretrained: a file of this model's ImageNet weights, its head included or not; it loads strictly.
        out_indices: the stages, 0 .. 3, whose maps are taken.
        out_norm: a LayerNorm on each map; None: the family's rule.
        frozen_stages: -1: none; 0: the first embedding; n: that and n stages.
        drop_path_rate: None: the model's own.
        recompute: recompute activations in the backward pass; None: the model's own choice.
        options: further overrides of `create_model`.

    Raises:
        UserError: no model is named, or as `create_backbone`.
        MissingFileError: no such weights.
    """

    def __init__(
        self,
        model: str | None = None,
        pretrained: str | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        out_norm: bool | None = None,
        frozen_stages: int = -1,
        drop_path_rate: float | None = None,
        recompute: bool | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Say what the toolkit may give; `__new__` does the work, and this never runs."""

    def __new__(cls, model: str | None = None, **settings: Any) -> Any:
        return build_backbone(model, **settings)


def build_backbone(
    model: str | None,
    pretrained: str | None = None,
    out_indices: Sequence[int] = (0, 1, 2, 3),
    out_norm: bool | None = None,
    frozen_stages: int = -1,
    drop_path_rate: float | None = None,
    recompute: bool | None = None,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Return the layer that `InLineBackbone` stands for; arguments and errors as there."""
    if not model:
        raise UserError("InLineBackbone.model is not given; name one of paddle_inline.list_models()")
    overrides = dict(options or {})
    for key, value in {"drop_path_rate": drop_path_rate, "recompute": recompute}.items():
        if value is not None:
            overrides[key] = value
    backbone: Any = create_backbone(
        model,
        weights=pretrained or None,
        out_indices=tuple(out_indices),
        out_norm=out_norm,
        frozen_stages=frozen_stages,
        **overrides,
    )
    backbone.out_shape = [
        ppdet("modeling.shape_spec").ShapeSpec(channels=channels, stride=stride)
        for channels, stride in zip(backbone.out_channels, backbone.strides)
    ]
    backbone.register_forward_pre_hook(take_image)
    return backbone


def take_image(layer: Any, inputs: tuple[Any, ...]) -> Any:
    """Return the images [B, 3, H, W] of the toolkit's batch, {"image": ..., "im_shape": ..., ...}."""
    (batch,) = inputs
    return batch["image"]
