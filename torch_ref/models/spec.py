"""What every family's spec shares: published figures, image sizes, attention types."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from ..layers.attention import ATTENTION
from ..layers.basic import Tensor
from ..ops.tokens import Size
from ..utils.errors import UserError, WrongTypeError, counted, short, unknown

# the letters of attn_type and the forms that they stand for
LETTERS = {"I": "inline", "S": "softmax"}
LETTER_OF = {form: letter for letter, form in LETTERS.items()}

T = TypeVar("T")


@dataclass(frozen=True)
class Published:
    """A model's published figures beside those that its published configuration really builds.

    Attributes:
        params, built_params: millions of parameters.
        gmacs, built_gmacs: 1e9 multiply-adds of one image.
        top1: ImageNet-1K accuracy, percent.

    None: not published.
    """

    params: float | None = None
    built_params: float | None = None
    gmacs: float | None = None
    built_gmacs: float | None = None
    top1: float | None = None


def image_size(img_size: int | Size, divisor: int) -> Size:
    """Return (H, W) of `img_size`, an int or a pair; UserError unless each is a positive multiple of `divisor`."""
    sides = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if len(sides) != 2 or not all(
        isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides
    ):
        raise UserError(f"img_size {img_size!r} must be a positive int or a pair (height, width) of them")
    if any(side % divisor for side in sides):
        near = tuple(max(1, round(side / divisor)) * divisor for side in sides)
        raise UserError(f"img_size {img_size} must divide by {divisor} on both sides; try {near}")
    return sides


def check_spec(spec: Any) -> None:
    """Refuse values that no family can build: UserError naming the field, its value and the rule."""
    for name, kind in ((each.name, each.type) for each in fields(spec)):
        value, least = getattr(spec, name), 0 if name == "num_classes" else 1
        if kind == "int" and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise UserError(f"{name} {value!r} must be an int of at least {least}")
        if kind == "float" and (not isinstance(value, (int, float)) or isinstance(value, bool)):
            raise UserError(f"{name} {value!r} must be a number")
        if name in ("drop_rate", "drop_path_rate") and not 0 <= value < 1:
            raise UserError(f"{name} {value!r} must lie in [0, 1)")
        if name == "mlp_ratio" and not 0 < value < float("inf"):
            raise UserError(f"mlp_ratio {value!r} must be a positive number")


def check_heads(dim: int, num_heads: int) -> None:
    """Refuse a width that its heads do not share equally."""
    if dim % num_heads:
        raise UserError(
            f"width {dim} does not divide into {num_heads} heads; try {dim // num_heads * num_heads}"
        )


def check_stages(spec: Any, names: Iterable[str]) -> None:
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


def stage_parts(values: Iterable[T], depths: Iterable[int]) -> list[list[T]]:
    """Split one value per block into lists, one per stage of `depths` blocks."""
    iterator = iter(values)
    return [[next(iterator) for _ in range(depth)] for depth in depths]


def check_path(weights: Any) -> None:
    """Refuse, with a WrongTypeError, weights that are neither a path nor None."""
    if weights is not None and not isinstance(weights, (str, os.PathLike)):
        raise WrongTypeError(
            f"weights {short(repr(weights))} must be the path of a file; load_weights(model, tensors) takes tensors"
        )


def check_type(model: Any, x: Tensor) -> None:
    """Refuse images of whole numbers, and of float64 for a model of fewer digits, which no layer would take."""
    given = str(x.dtype).rpartition(".")[2].lower()
    if "int" not in given and given not in ("float64", "bool"):
        return
    own = str(next(iter(model.parameters())).dtype).rpartition(".")[2].lower()
    if given != own:
        raise UserError(
            f"images of type {given} for a model of {own}: give it images.astype('{own}') (in PyTorch "
            f"images.to(torch.{own}))"
        )


def check_image(model: Any, x: Tensor) -> None:
    """Refuse a batch [B, C, H, W] whose images are not of the (C, H, W) and type that a model was built for."""
    check_type(model, x)
    shape = (model.spec.in_chans, *model.img_size)
    if tuple(x.shape[1:]) != shape:
        raise UserError(
            f"images of shape {tuple(x.shape[1:])} for a model built for {shape}; build one with "
            f"create_model(name, in_chans={x.shape[1]}, img_size={tuple(x.shape[2:])})"
        )


def check_divisible_image(model: Any, x: Tensor, divisor: int) -> None:
    """Refuse a batch [B, C, H, W] of other channels or type, or whose sides do not divide by `divisor`."""
    check_type(model, x)
    in_chans, (channels, *sides) = model.spec.in_chans, x.shape[1:]
    if channels != in_chans:
        raise UserError(
            f"images of {counted(channels, 'channel')} for a model built for {in_chans}; build one with "
            f"create_model(name, in_chans={channels})"
        )
    if any(side < divisor or side % divisor for side in sides):
        near = tuple(max(1, round(side / divisor)) * divisor for side in sides)
        raise UserError(f"images of {tuple(sides)} must divide by {divisor} on both sides; try {near}")


def chosen_blocks(indices: Iterable[int] | None, depth: int, kind: str = "block") -> list[int]:
    """Return block numbers in 0 .. depth - 1 for `indices`, of which negative ones count from the end.

    None: four evenly spaced blocks, the last among them. UserError for a block that does not exist.
    """
    if indices is None:
        indices = sorted({depth * (i + 1) // 4 - 1 for i in range(4)} - {-1})
    indices = list(indices)
    for i in indices:
        if not -depth <= i < depth:
            raise UserError(f"{kind} {i} does not exist; indices lie in {-depth} .. {depth - 1}")
    return [i % depth for i in indices]


def attention_types(attn_type: str, depths: Sequence[int], mixed: bool = True) -> list[str]:
    """Return one letter per block, as a list of strings, one per stage.

    Args:
        attn_type: one letter per stage, I (InLine) or S (softmax) or M (mixed), and behind them M's number: the first
            that many blocks of each M stage are I and the others S ("IIMS2"). Or names of the forms of I and S.
        depths: blocks per stage.
        mixed: whether M is allowed.

    Raises:
        UserError: anything else.
    """
    if _has_names(attn_type):
        forms = attention_forms(attn_type, depths, LETTER_OF)
        return ["".join(LETTER_OF[form] for form in stage) for stage in forms]
    stages = len(depths)
    pattern = rf"([IS{'M' if mixed else ''}]{{{stages}}})(\d*)"
    match = re.fullmatch(pattern, attn_type) if isinstance(attn_type, str) else None
    if match is None or ("M" in match[1]) != bool(match[2]):
        example = "e.g. 'IISS', or 'IIMS2': M needs a number after the letters and only M takes one"
        raise UserError(
            f"attn_type {attn_type!r} must be {stages} letters, one per stage, or {_a_name(attn_type)}; letters are "
            "those of I (InLine) and S (softmax)" + (f" or M (mixed), {example}" if mixed else "")
        )
    inline = {"I": max(depths), "S": 0, "M": int(match[2] or 0)}
    return [
        "".join("I" if block < inline[letter] else "S" for block in range(depth))
        for letter, depth in zip(match[1], depths)
    ]


def forms_of(letters: Iterable[str]) -> list[list[str]]:
    """Return the forms that letters stand for, one string of letters per stage: ["IS"] -> [["inline", "softmax"]]."""
    return [[LETTERS[letter] for letter in stage] for stage in letters]


def attention_forms(
    attn_type: str, depths: Sequence[int], known: Iterable[str], mixed: bool = True
) -> list[list[str]]:
    """Return the form of attention of every block, one list per stage of `depths` blocks.

    Args:
        attn_type: letters (see `attention_types`), or the names of forms: one for all stages, or one per stage with
            commas between them.
        depths: blocks per stage.
        known: the names of the forms that the backbone has.
        mixed: whether the letter M is allowed.

    Raises:
        UserError: anything else.
    """
    if not _has_names(attn_type):
        return forms_of(attention_types(attn_type, depths, mixed))
    names = _names(attn_type, known)
    if len(names) not in (1, len(depths)):
        raise UserError(
            f"attn_type {attn_type!r} names {len(names)} forms of attention; give one, or {len(depths)} with commas, "
            "one per stage"
        )
    if len(names) == 1:
        names *= len(depths)
    return [[name] * depth for name, depth in zip(names, depths)]


def attention_form(attn_type: str, known: Iterable[str]) -> str:
    """Return the one form of attention of a network without stages; arguments and errors as for `attention_forms`.

    `attn_type` is a letter, I or S, or a name; both may stand there four times.
    """
    if _has_names(attn_type):
        names = _names(attn_type, known)
        if len(names) in (1, 4) and len(set(names)) == 1:
            return names[0]
        raise UserError(f"attn_type {attn_type!r} must be one form of attention, or four times the same")
    if attn_type not in ("I", "S", "IIII", "SSSS"):
        raise UserError(
            f"attn_type {attn_type!r} must be 'I' (InLine) or 'S' (softmax), or four times the same, or "
            + _a_name(attn_type)
        )
    return LETTERS[attn_type[0]]


def _has_names(attn_type: object) -> bool:
    """Whether an attn_type is made of names, which are in lower case, and not of letters."""
    return isinstance(attn_type, str) and ("," in attn_type or attn_type != attn_type.upper())


def _a_name(attn_type: object) -> str:
    """What else an attn_type may be that is not made of names: a name, with the nearest to it."""
    text = attn_type.strip().lower() if isinstance(attn_type, str) else ""
    near = difflib.get_close_matches(text, list(ATTENTION), n=1) or ["inline"]
    return f"the name of a form of attention in lower case, e.g. {near[0]!r}"


def _names(attn_type: str, known: Iterable[str]) -> list[str]:
    known = list(known)
    names = [name.strip() for name in attn_type.split(",")]
    for name in names:
        if name not in known and name in ATTENTION:
            raise UserError(
                f"{name} attention projects in its own way, and blocks of CSwin project to q, k and v before their "
                "branches: use it in a DeiT, PVT or Swin, or one of " + ", ".join(known)
            )
        if name not in known:
            raise unknown(f"form of attention in attn_type {short(attn_type)!r}:", name, known)
    return names
