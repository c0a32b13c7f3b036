"""What a family of models has to say of itself, and the questions that its reader asks of a file's tensors.

Nothing here loads a framework on import: a recording in PyTorch alone needs a family's recipe too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddle_inline.utils.errors import UserError, short


@dataclass(frozen=True)
class Recipe:
    """How parity trains a family for a few steps: the published rates as they are, not scaled to the batch."""

    base: float = 5e-4
    warmup: float = 5e-7
    floor: float = 5e-6
    decay: float = 0.05
    clip: float | None = 5.0  # largest global norm of the gradients


@dataclass(frozen=True)
class SmallModel:
    """A model of a family so small that a test of it takes hundredths of a second.

    Identification, parity at small sizes, the training steps, the export and the negative controls run on it.

    Attributes:
        name: a variant of `list_models()`.
        overrides: for `create_model`, until it is small.
        controls: {what is broken: the sublayer in which}. The parity suite has to name that sublayer when its
            "weight" is changed by 1e-3, its "square" weight transposed, its "keys and values" swapped, its "bias" set
            to zero, its "norm" given another epsilon, its "gelu" the other form, or its "context" (the mean over
            tokens in InLine attention) taken without one token.
    """

    name: str
    overrides: Mapping[str, Any]
    controls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """The adapter of a family: all that converting, the parity suite and the tests need to know of it.

    Attributes:
        landmark: a regular expression that the name of a tensor of this family matches from its start, and of no other.
        infer_spec: reads the fields of the spec from a file's shapes and from the overrides that are known.
        recipe: of the training steps.
        small: {label: SmallModel}, one or more.
    """

    landmark: str
    infer_spec: Callable[[TensorShapes, Mapping[str, Any]], InferredSpec]
    recipe: Recipe
    small: Mapping[str, SmallModel]

    def recognises(self, names: Iterable[str]) -> bool:
        """Return whether tensors of these names can be of this family."""
        return any(re.match(self.landmark, name) for name in names)


class _Unknown:
    """In place of a value, or of a part of a tuple, that no tensor shows."""

    def __repr__(self) -> str:
        return "not shown"


UNKNOWN = _Unknown()


@dataclass(frozen=True)
class InferredSpec:
    """What a file's tensors show: fields of the spec, and the alternatives where several values explain them.

    Attributes:
        unseen: fields of the alternatives for which the nearest variant's value is only the likeliest.
    """

    fields: dict[str, Any]
    options: tuple[dict[str, Any], ...] = ({},)
    unseen: set[str] = field(default_factory=set)


class NoSuchSpecError(LookupError):
    """No spec of this family has such tensors; the message says why."""


class TensorShapes:
    """Questions to a file's shapes; a tensor that should be there and is not raises NoSuchSpecError."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def of(self, name: str, rank: int) -> tuple[int, ...]:
        """Return the shape of a tensor with `rank` dimensions."""
        shape = self.shapes.get(name)
        if shape is None or len(shape) != rank:
            raise NoSuchSpecError(f"{name} of {rank} dimensions is missing")
        return shape

    def width(self, name: str) -> int:
        """Return the length of a one-dimensional tensor."""
        return self.of(name, 1)[0]

    def count(self, prefix: str) -> int:
        """Return how many modules prefix.0, prefix.1, ... there are, without a gap."""
        pattern = re.compile(rf"{re.escape(prefix)}\.(\d{{1,6}})\.")
        found = {int(match[1]) for name in self.shapes if (match := pattern.match(name))}
        if not found or found != set(range(len(found))):
            raise NoSuchSpecError(f"{prefix}.0, {prefix}.1, ... are not complete")
        return len(found)

    def letters(self, blocks: Iterable[str], mark: str) -> str:
        """Return I for every block that has the tensor `mark`, S for the others."""
        return "".join("I" if f"{block}.{mark}" in self else "S" for block in blocks)

    def heads(self, convolution: str, width: int) -> Any:
        """Return the heads of an InLine block, which its grouped convolution shows; other blocks hide them."""
        return width // self.of(convolution, 3)[1] if convolution in self else UNKNOWN

    def kernel(self, convolution: str) -> int:
        """Return the side of a convolution's kernel, 1 where there is no such convolution."""
        return self.of(convolution, 4)[2] if convolution in self else 1

    def ends(self, first_convolution: str) -> dict[str, int]:
        """Return the fields that the first convolution and the head show."""
        classes = self.width("head.bias") if "head.bias" in self else 0
        return {"in_chans": self.of(first_convolution, 4)[1], "num_classes": classes}


def ratio(hidden: int, width: int) -> int | float:
    """Return hidden / width, as an int where it is one."""
    return hidden // width if hidden % width == 0 else hidden / width


def square(size: Any) -> Any:
    """Return a pair of equal sides as one int, anything else as it is."""
    return size[0] if isinstance(size, (tuple, list)) and len(set(size)) == 1 else size


def attention_code(letters: Sequence[str]) -> str:
    """Return the attn_type that gives these letters per stage, one for each block."""
    from paddle_inline.models.spec import attention_types

    counts = {len(stage) - len(stage.lstrip("I")) for stage in letters if len(set(stage)) == 2}
    code = "".join(stage[0] if len(set(stage)) == 1 else "M" for stage in letters)
    code += "".join(map(str, counts))
    if len(counts) > 1 or attention_types(code, [len(stage) for stage in letters]) != list(letters):
        raise NoSuchSpecError(
            f"no attn_type gives the blocks {', '.join(letters)} (I InLine, S softmax) of its stages"
        )
    return code


def image_sizes(tokens: int, stride: int, known: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return as alternatives the image sizes that give a grid of so many tokens: the known one, the square, or else
    all, the squarest first."""
    side = math.isqrt(tokens)
    sides = [side] if side * side == tokens else [n for n in range(side, 0, -1) if tokens % n == 0]
    pairs: Iterable[tuple[int, int]] = {
        pair: None for n in sides for pair in ((n, tokens // n), (tokens // n, n))
    }
    if "img_size" in known:
        pair = known["img_size"] if isinstance(known["img_size"], tuple) else (known["img_size"],) * 2
        if len(pair) != 2 or any(n % stride for n in pair) or pair[0] * pair[1] != tokens * stride**2:
            raise NoSuchSpecError(
                f"its {tokens} positions are not those of img_size {short(known['img_size'])}"
            )
        pairs = [(pair[0] // stride, pair[1] // stride)]
    return tuple({"img_size": square((height * stride, width * stride))} for height, width in pairs)


def canonical_attention(attn_type: str, fields: Mapping[str, Any]) -> str:
    """Return an attn_type, of letters or of names of forms, in the one way in which readers write it, if it has one."""
    from paddle_inline.models.spec import LETTER_OF, attention_form, attention_types

    try:
        if "depths" not in fields:
            return LETTER_OF[attention_form(attn_type, LETTER_OF)]
        return attention_code(attention_types(attn_type, fields["depths"]))
    except UserError:
        return attn_type


def has_unknown(value: Any) -> bool:
    """Return whether no tensor shows a value, or a part of it."""
    return value is UNKNOWN or (isinstance(value, tuple) and UNKNOWN in value)


def widths_of(fields: Mapping[str, Any]) -> Sequence[int]:
    """Return the channels per stage of a spec of stages."""
    return fields.get("embed_dims") or tuple(fields["embed_dim"] << stage for stage in range(4))
