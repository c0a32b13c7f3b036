"""The adapter of the toy mixer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .adapter import Family, InferredSpec, Recipe, SmallModel, TensorShapes, ratio


def infer_spec(shapes: TensorShapes, known: Mapping[str, Any]) -> InferredSpec:
    """Read the spec from shapes; no tensor shows the image size."""
    dim, patch = shapes.width("norm.weight"), shapes.of("patch_embed.proj.weight", 4)[2]
    fields = {
        "embed_dim": dim,
        "depth": shapes.count("mixers"),
        "patch_size": patch,
        "mlp_ratio": ratio(shapes.width("mixers.0.mlp.fc1.bias"), dim),
        **shapes.ends("patch_embed.proj.weight"),
    }
    return InferredSpec(fields)


FAMILY = Family(
    landmark=r"mixers\.0\.",
    infer_spec=infer_spec,
    recipe=Recipe(),
    small={
        "toy": SmallModel(
            "toy_tiny",
            {"embed_dim": 8, "img_size": 16, "num_classes": 5},
            controls={"weight": "mixers.1.mlp.fc1", "norm": "mixers.0.norm", "gelu": "mixers.0.mlp.act"},
        )
    },
)
