"""The adapter of InLine-CSwin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .adapter import Family, InferredSpec, Recipe, SmallModel, TensorShapes, attention_code, ratio


def infer_spec(shapes: TensorShapes, known: Mapping[str, Any]) -> InferredSpec:
    """Read the spec from shapes; no tensor shows the image size."""
    depths = tuple(shapes.count(f"stage{s}") for s in range(1, 5))
    blocks = [[f"stage{s}.{i}" for i in range(depth)] for s, depth in enumerate(depths, 1)]
    dim = shapes.of("stage1_conv_embed.0.weight", 4)[0]
    mark = "attns.0.residual.0.weight"
    fields = {
        "embed_dim": dim,
        "depths": depths,
        "num_heads": tuple(shapes.heads(f"{stage[0]}.{mark}", dim << s) for s, stage in enumerate(blocks)),
        "mlp_ratio": ratio(shapes.width("stage1.0.mlp.fc1.bias"), dim),
        "qkv_bias": "stage1.0.qkv.bias" in shapes,
        "attn_type": attention_code([shapes.letters(stage, mark) for stage in blocks]),
        **shapes.ends("stage1_conv_embed.0.weight"),
    }
    return InferredSpec(fields)


FAMILY = Family(
    landmark=r"stage1_conv_embed\.",
    infer_spec=infer_spec,
    recipe=Recipe(warmup=1e-6, floor=1e-5, clip=None),
    small={
        "cswin": SmallModel(
            "inline_cswin_tiny",
            {
                "embed_dim": 8,
                "depths": (1, 2, 1, 1),
                "num_heads": (2, 2, 4, 4),
                "img_size": 64,
                "num_classes": 5,
            },
            controls={
                "weight": "merge2.conv",
                "square": "stage3.0.proj",
                "keys and values": "stage1.0.qkv",
                "bias": "stage3.0.attns.1.get_v",
                "norm": "stage4.0.norm1",
                "gelu": "stage2.1.attns.0.residual.1",
                "context": "stage1.0",
            },
        )
    },
)
