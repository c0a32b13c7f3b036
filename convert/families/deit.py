"""The adapter of InLine-DeiT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .adapter import (
    Family,
    InferredSpec,
    NoSuchSpecError,
    Recipe,
    SmallModel,
    TensorShapes,
    image_sizes,
    ratio,
)


def infer_spec(shapes: TensorShapes, known: Mapping[str, Any]) -> InferredSpec:
    """Read the spec from shapes; the alternatives are image sizes."""
    dim, patch = shapes.of("cls_token", 3)[2], shapes.of("patch_embed.proj.weight", 4)[2]
    depth = shapes.count("blocks")
    mark = "attn.residual.0.weight"
    letters = shapes.letters([f"blocks.{i}" for i in range(depth)], mark)
    if len(set(letters)) != 1:
        raise NoSuchSpecError(f"its blocks are {letters} (I InLine, S softmax), not all alike")
    fields = {
        "embed_dim": dim,
        "depth": depth,
        "num_heads": shapes.heads(f"blocks.0.{mark}", dim),
        "patch_size": patch,
        "mlp_ratio": ratio(shapes.width("blocks.0.mlp.fc1.bias"), dim),
        "attn_type": letters[0],
        **shapes.ends("patch_embed.proj.weight"),
    }
    return InferredSpec(fields, image_sizes(shapes.of("pos_embed", 3)[1] - 1, patch, known))


FAMILY = Family(
    landmark=r"blocks\.0\.attn\.(?:qkv[go]?|qk)\.",  # qkvg, qkvo and qk: forms that project in their own way
    infer_spec=infer_spec,
    recipe=Recipe(),
    small={
        "deit": SmallModel(
            "inline_deit_digits",
            {"embed_dim": 24, "num_heads": 3, "depth": 2, "img_size": 16},
            controls={
                "weight": "blocks.1.mlp.fc1",
                "square": "blocks.1.attn.proj",
                "keys and values": "blocks.0.attn.qkv",
                "bias": "blocks.0.attn.residual.2",
                "norm": "blocks.1.norm2",
                "gelu": "blocks.0.attn.residual.1",
                "context": "blocks.0.attn",
            },
        )
    },
)
