"""The adapter of InLine-PVT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .adapter import UNKNOWN, Family, InferredSpec, Recipe, SmallModel, TensorShapes, image_sizes, ratio


def infer_spec(shapes: TensorShapes, known: Mapping[str, Any]) -> InferredSpec:
    """Read the spec from shapes; the alternatives are image sizes."""
    stages = range(1, 5)
    dims = tuple(shapes.of(f"pos_embed{s}", 3)[2] for s in stages)
    firsts, mark = [f"block{s}.0" for s in stages], "attn.residual.0.weight"
    letters = shapes.letters(firsts, mark)
    fields = {
        "embed_dims": dims,
        "depths": tuple(shapes.count(f"block{s}") for s in stages),
        "num_heads": tuple(shapes.heads(f"{first}.{mark}", dim) for first, dim in zip(firsts, dims)),
        "mlp_ratios": tuple(
            ratio(shapes.width(f"{first}.mlp.fc1.bias"), dim) for first, dim in zip(firsts, dims)
        ),
        "sr_ratios": tuple(
            UNKNOWN
            if letter == "I" or f"{first}.attn.q.weight" not in shapes
            else shapes.kernel(f"{first}.attn.sr.weight")
            for first, letter in zip(firsts, letters)
        ),
        "attn_type": letters,
        **shapes.ends("patch_embed1.proj.weight"),
    }
    return InferredSpec(fields, image_sizes(shapes.of("pos_embed4", 3)[1], 32, known))


FAMILY = Family(
    landmark=r"block1\.0\.attn\.",
    infer_spec=infer_spec,
    recipe=Recipe(warmup=1e-6, floor=1e-5, clip=1.0),
    small={
        "pvt": SmallModel(
            "inline_pvt_tiny",
            {
                "depths": (1, 2, 1, 1),
                "embed_dims": (8, 12, 16, 24),
                "num_heads": (1, 2, 2, 3),
                "mlp_ratios": (2, 2, 2, 2),
                "img_size": 64,
                "num_classes": 5,
            },
            controls={
                "weight": "block3.0.attn.q",
                "square": "block2.1.attn.proj",
                "keys and values": "block4.0.attn.kv",
                "bias": "patch_embed2.proj",
                "norm": "patch_embed3.norm",
                "gelu": "block3.0.mlp.act",
                "context": "block1.0.attn",
            },
        )
    },
)
