"""What every family's spec shares: published figures, image sizes, attention types."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..utils.errors import UserError


@dataclass(frozen=True)
class Published:
    """A model's published figures beside those that its published configuration really builds.

    params: millions of parameters; gmacs: 1e9 multiply-adds of one image; top1: ImageNet-1K accuracy,
    percent. None: not published.
    """

    params: float | None = None
    built_params: float | None = None
    gmacs: float | None = None
    built_gmacs: float | None = None
    top1: float | None = None


def image_size(img_size, divisor):
    """(H, W) of `img_size` (an int or a pair), each a positive multiple of `divisor`, else ValueError."""
    sides = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"img_size {img_size!r} must be a positive int or a pair (height, width) of them")
    if any(side % divisor for side in sides):
        near = tuple(max(1, round(side / divisor)) * divisor for side in sides)
        raise UserError(f"img_size {img_size} must divide by {divisor} on both sides; try {near}")
    return sides


def check_spec(spec):
    """Refuse values that no family can build: ValueError naming the field, its value and the rule."""
    for name, least in (("in_chans", 1), ("num_classes", 0)):
        value = getattr(spec, name)
        if not isinstance(value, int) or value < least:
            raise UserError(f"{name} {value!r} must be an int of at least {least}")
    for name in ("drop_rate", "drop_path_rate"):
        if not 0 <= getattr(spec, name) < 1:
            raise UserError(f"{name} {getattr(spec, name)!r} must lie in [0, 1)")


def check_heads(dim, num_heads):
    """Refuse a width that its heads do not share equally."""
    if dim % num_heads:
        raise UserError(
            f"width {dim} does not divide into {num_heads} heads; try {dim // num_heads * num_heads}"
        )


def check_stages(spec, names):
    """Refuse tuples of sizes, one per stage, that do not agree: all named ones need four entries."""
    for name in names:
        values, kind = getattr(spec, name), (int, float) if name == "mlp_ratios" else int
        if (
            not isinstance(values, (tuple, list))
            or len(values) != 4
            or not all(isinstance(value, kind) and value > 0 for value in values)
        ):
            what = "ints" if kind is int else "numbers"
            raise UserError(f"{name} {values!r} must be four positive {what}, one per stage")


def stage_parts(values, depths):
    """A list with one value per block -> a list of lists, one per stage of `depths` blocks."""
    values = iter(values)
    return [[next(values) for _ in range(depth)] for depth in depths]


def check_image(x, shape):
    """Refuse a batch [B, C, H, W] whose images are not of the (C, H, W) that a model was built for."""
    if tuple(x.shape[1:]) != tuple(shape):
        raise UserError(
            f"images of shape {tuple(x.shape[1:])} for a model built for {tuple(shape)}; build one with "
            f"create_model(name, in_chans={x.shape[1]}, img_size={tuple(x.shape[2:])})"
        )


def check_divisible_image(x, in_chans, divisor):
    """Refuse a batch [B, C, H, W] of other channels, or whose sides do not divide by `divisor`."""
    channels, *sides = x.shape[1:]
    if channels != in_chans:
        raise UserError(
            f"images of {channels} channels for a model built for {in_chans}; build one with "
            f"create_model(name, in_chans={channels})"
        )
    if any(side < divisor or side % divisor for side in sides):
        near = tuple(max(1, round(side / divisor)) * divisor for side in sides)
        raise UserError(f"images of {tuple(sides)} must divide by {divisor} on both sides; try {near}")


def chosen_blocks(indices, depth, kind="block"):
    """Block numbers in 0 .. depth - 1 for `indices` (negative ones count from the end); by default four
    evenly spaced blocks, the last among them. ValueError for a block that does not exist."""
    if indices is None:
        indices = sorted({depth * (i + 1) // 4 - 1 for i in range(4)} - {-1})
    for i in indices:
        if not -depth <= i < depth:
            raise UserError(f"{kind} {i} does not exist; indices lie in {-depth} .. {depth - 1}")
    return [i % depth for i in indices]


def one_attention_type(attn_type):
    """The one letter, I (InLine) or S (softmax), of a network without stages: given once or four times."""
    if attn_type not in ("I", "S", "IIII", "SSSS"):
        raise UserError(
            f"attn_type {attn_type!r} must be 'I' (InLine) or 'S' (softmax), or four times the same"
        )
    return attn_type[0]


def attention_types(attn_type, depths, mixed=True):
    """One letter per block, I (InLine) or S (softmax), as a list of strings, one per stage.

    `attn_type` has one letter per stage; M mixes: with a number after the letters, the first that many
    blocks of each M stage are I and the others S ("IIMS2"). ValueError for anything else; with
    `mixed=False` M is refused.
    """
    stages = len(depths)
    pattern = rf"([IS{'M' if mixed else ''}]{{{stages}}})(\d*)"
    match = re.fullmatch(pattern, attn_type) if isinstance(attn_type, str) else None
    if match is None or ("M" in match[1]) != bool(match[2]):
        example = "e.g. 'IISS', or 'IIMS2': M needs a number after the letters and only M takes one"
        raise UserError(
            f"attn_type {attn_type!r} must be {stages} letters, one per stage, of I (InLine) and S (softmax)"
            + (f" or M (mixed), {example}" if mixed else "")
        )
    inline = {"I": max(depths), "S": 0, "M": int(match[2] or 0)}
    return [
        "".join("I" if block < inline[letter] else "S" for block in range(depth))
        for letter, depth in zip(match[1], depths)
    ]
