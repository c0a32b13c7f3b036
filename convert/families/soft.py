"""The adapter of SOFT and its normalised form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .adapter import UNKNOWN, Family, InferredSpec, Recipe, SmallModel, TensorShapes


def infer_spec(shapes: TensorShapes, known: Mapping[str, Any]) -> InferredSpec:
    """Read the spec from shapes; no tensor shows the image size nor whether the attention is normalised."""
    stages = range(1, 5)
    inner = [f"block{s}.0.att.mha.attn" for s in (1, 2, 3)]
    fields = {
        "embed_dims": tuple(shapes.of(f"pos_embed{s}", 3)[2] for s in stages),
        "depths": tuple(shapes.count(f"block{s}") for s in stages),
        "num_heads": (*(shapes.of(f"{block}.conv.weight", 4)[0] for block in inner), UNKNOWN),
        "landmark_ratios": tuple(shapes.kernel(f"{block}.Qlandmark_op.weight") for block in inner),
        **shapes.ends("patch_embed1.proj.0.weight"),
    }
    return InferredSpec(fields)


_SMALL = {"embed_dims": (8, 12, 16, 24), "num_heads": (1, 2, 2, 3)}

FAMILY = Family(
    landmark=r"block1\.0\.att\.mha\.",
    infer_spec=infer_spec,
    recipe=Recipe(base=1e-3, warmup=1e-6, floor=5e-5, clip=1.0),
    small={
        "soft": SmallModel(
            "soft_digits",
            _SMALL,
            controls={
                "weight": "block2.0.att.mha.attn.Qlandmark_op",
                "square": "block1.0.att.mha.ff",
                "keys and values": "block4.0.attn.kv",
                "bias": "patch_embed1.proj.3",
                "norm": "block3.0.att.norm2",
                "gelu": "block4.0.mlp.act",
            },
        ),
        "soft_norm": SmallModel(
            "soft_digits",
            {**_SMALL, "normed": True},
            controls={
                "weight": "block1.0.att.mha.attn.conv",
                "square": "block3.0.att.mha.W_v",
                "keys and values": "block4.0.attn.kv",
                "bias": "block2.0.att.mha.W_q",
                "norm": "block2.0.att.mha.attn.Qnorm_act.0",
                "gelu": "block1.0.att.act",  # the tanh one
            },
        ),
    },
)
