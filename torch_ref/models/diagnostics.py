"""Diagnostics of built models."""

from __future__ import annotations

from functools import partial

from ..layers.basic import Tensor
from ..ops.softmax_free import inverse_residual
from .soft import Soft


def inverse_residuals(model: Soft, x: Tensor) -> dict[str, Tensor]:
    """Say where Newton's iteration in SOFT does not converge, or meets what is not a number.

    Args:
        model: a SOFT or SOFT-Norm.
        x: images [B, in_chans, H, W].

    Returns:
        {name of a softmax-free block: `inverse_residual` of each image and head, [B, h]}.
    """
    residuals: dict[str, Tensor] = {}
    blocks = {f"block{i}.{j}": b for i in (1, 2, 3) for j, b in enumerate(getattr(model, f"block{i}"))}
    attentions = {name: block.att.mha.attn for name, block in blocks.items()}
    inverses = {name: attention.invert for name, attention in attentions.items()}

    def measured(kernel: Tensor, name: str) -> Tensor:
        inverse = inverses[name](kernel)
        residuals[name] = inverse_residual(kernel, inverse, model.spec.normed)
        return inverse

    try:
        for name, attention in attentions.items():
            attention.invert = partial(measured, name=name)
        model.forward_features(x)
    finally:
        for name, attention in attentions.items():
            attention.invert = inverses[name]
    return residuals
