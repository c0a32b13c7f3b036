"""The adapter of InLine-Swin."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paddle_inline.weights.resize import REBUILT

from .adapter import (
    Family,
    InferredSpec,
    NoSuchSpecError,
    Recipe,
    SmallModel,
    TensorShapes,
    attention_code,
    ratio,
    square,
)

LARGEST_IMAGE = 2048
LARGEST_BUFFERS = 1 << 25  # numbers that are built where a file has none


def infer_spec(shapes: TensorShapes, known: Mapping[str, Any]) -> InferredSpec:
    """Read the spec from shapes; the alternatives are image and window sizes."""
    depths = tuple(shapes.count(f"layers.{s}.blocks") for s in range(4))
    blocks = [[f"layers.{s}.blocks.{i}" for i in range(depth)] for s, depth in enumerate(depths)]
    mark, table = "attn.residual.0.weight", "attn.relative_position_bias_table"
    # other forms than softmax, whatever their tensors, have InLine's windows
    letters = ["".join("S" if f"{block}.{table}" in shapes else "I" for block in stage) for stage in blocks]
    dim = shapes.width("patch_embed.norm.weight")
    heads = [
        shapes.heads(f"{stage[0]}.{mark}", dim << s)
        if kinds[0] == "I"
        else shapes.of(f"{stage[0]}.{table}", 2)[1]
        for s, (stage, kinds) in enumerate(zip(blocks, letters))
    ]
    fields = {
        "embed_dim": dim,
        "depths": depths,
        "num_heads": tuple(heads),
        "mlp_ratio": ratio(shapes.width("layers.0.blocks.0.mlp.fc1.bias"), dim),
        # gla has no such bias in any model; the forms with gates project to more than q, k and v
        "qkv_bias": any(
            f"layers.0.blocks.0.attn.{name}" in shapes
            for name in ("qkv.bias", "qkvg.bias", "qkvo.bias", "qk.bias", "gk.0.weight")
        ),
        "attn_type": attention_code(letters),
        **shapes.ends("patch_embed.proj.weight"),
    }
    return InferredSpec(fields, *_sizes(shapes, letters, known))


def _sizes(
    shapes: TensorShapes, letters: Sequence[str], known: Mapping[str, Any]
) -> tuple[tuple[dict[str, Any], ...], set[str]]:
    """Return the image and window sizes that give exactly the masks and indices of a file: what is known, square
    images and default windows first; and the names of those that a file without its masks does not show.

    Where a file has none, every size does, and there is nothing to choose from.
    """
    from paddle_inline.models.inline_swin import buffer_shapes
    from paddle_inline.models.spec import forms_of
    from paddle_inline.models.swin_windows import indivisible_windows

    found_in_file = {
        name: shape for name, shape in shapes.shapes.items() if name.rsplit(".", 1)[-1] in REBUILT
    }
    indices = _indices(shapes)
    if not found_in_file and not indices and not {"img_size", "window_size"} & set(known):
        return ({},), set()
    forms, sides = forms_of(letters), range(32, LARGEST_IMAGE + 1, 32)
    squares: list[tuple[int, int]] = [(side, side) for side in sides]
    every: Iterable[tuple[int, int]] = itertools.product(sides, sides)
    if "img_size" in known:
        size = known["img_size"]
        squares, every = [size if isinstance(size, tuple) else (size, size)], []
    default: list[Any] = [None]
    windows: Iterable[Any] = range(1, LARGEST_IMAGE // 4)
    if "window_size" in known:
        default, windows = [known["window_size"]], []
    # first the buffers as they are; then, for a file that has not got all of them, the indices that tables show
    for whole in (True, False) if found_in_file or not indices else (False,):
        for sizes, choices in ((squares, default), (squares, windows), (every, default)):
            found: dict[tuple[int, int], dict[str, Any]] = {}
            for size, window in itertools.product(sizes, choices):
                if indivisible_windows(size, window, forms):
                    continue
                buffers = buffer_shapes(size, window, forms)
                if buffers == found_in_file if whole else _fit(buffers, found_in_file, indices):
                    # other windows that cut the same grids into the same parts are the same model
                    same = _windows(size, window, forms) == _windows(size, None, forms)
                    found.setdefault(
                        size, {"img_size": square(size), "window_size": None if same else window}
                    )
            if found:
                return tuple(found.values()), set() if whole else {"img_size", "window_size"}
    raise NoSuchSpecError("no image and window sizes give its masks and indices")


def _windows(size: tuple[int, int], window: Any, forms: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Return (side, shift) of the windows of every block."""
    from paddle_inline.models.swin_windows import STRIDES, block_window

    grids = [(size[0] // stride, size[1] // stride) for stride in STRIDES]
    return [
        block_window(grid, window or min(grids[0]), form, number)
        for grid, stage in zip(grids, forms)
        for number, form in enumerate(stage)
    ]


def _indices(shapes: TensorShapes) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the indices into the tables of relative biases, [(2 side - 1) ** 2, heads]."""
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.shapes.items():
        if name.endswith(".relative_position_bias_table") and len(shape) == 2:
            tokens = ((math.isqrt(shape[0]) + 1) // 2) ** 2
            found[name.replace("_bias_table", "_index")] = (tokens, tokens)
    return found


def _fit(
    buffers: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    indices: Mapping[str, tuple[int, ...]],
) -> bool:
    """Whether a model's buffers are those of a file where it has them, its indices those of the tables, and the others
    of a size that can be built for a file that only claims to need them."""
    missing = sum(math.prod(shape) for name, shape in buffers.items() if name not in found)
    return missing <= LARGEST_BUFFERS and all(
        buffers.get(name) == shape for name, shape in {**indices, **found}.items()
    )


FAMILY = Family(
    landmark=r"layers\.0\.blocks\.0\.",
    infer_spec=infer_spec,
    recipe=Recipe(),
    small={
        "swin": SmallModel(
            "inline_swin_tiny",
            {
                "embed_dim": 8,
                "depths": (2, 2, 2, 1),
                "num_heads": (1, 2, 2, 4),
                "window_size": 64,
                "img_size": 64,
                "num_classes": 5,
            },
            controls={
                "weight": "layers.1.downsample.reduction",
                "square": "layers.2.blocks.1.attn.proj",
                "keys and values": "layers.3.blocks.0.attn.qkv",  # of softmax
                "bias": "layers.0.blocks.1.mlp.fc2",
                "norm": "norm",
                "gelu": "layers.1.blocks.1.attn.residual.1",
                "context": "layers.0.blocks.0.attn",
            },
        )
    },
)
