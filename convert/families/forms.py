"""Which form of attention a file's blocks have, by the names of their tensors.

InLine's and softmax's blocks are told apart by each family's own reader. What is here is the other forms: of a stage
whose tensors are those of one form alone the form is that one; forms with the same tensors are listed.
"""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from paddle_inline.layers.attention import ATTENTION
from paddle_inline.weights.resize import REBUILT
from paddle_inline.weights.torch_layout import Shapes

from ..errors import UnknownModelError
from ..mapping import skeleton

# model class -> (how the names of a block's attention begin, the stage in the first group; the smallest model that has
# every form)
_FOUR = {"depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2)}
_WHERE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "InLineDeiT": (
        r"(blocks)\.(\d+)\.attn\.",
        "inline_deit_digits",
        {"embed_dim": 16, "num_heads": 2, "depth": 1},
    ),
    "InLinePVT": (
        r"block(\d)\.(\d+)\.attn\.",
        "inline_pvt_tiny",
        {**_FOUR, "embed_dims": (16, 16, 16, 16), "img_size": 32},
    ),
    "InLineSwin": (r"layers\.(\d)\.blocks\.(\d+)\.attn\.", "inline_swin_tiny", {**_FOUR, "embed_dim": 16}),
    "InLineCSwin": (r"stage(\d)\.(\d+)\.attns\.", "inline_cswin_tiny", {**_FOUR, "embed_dim": 32}),
}
_PLAIN = ("softmax", "inline")
# form -> (tensor, its dimension that is the number of heads) or (tensor, dimension, True) where it is a head's width
_HEADS: dict[str, tuple[str, int] | tuple[str, int, bool]] = {
    "agent": ("an_bias", 0),
    "angular": ("dconv.weight", 0),
    "hedgehog": ("feature_map_q.weight", 0),
    "l2": ("temperature", 0),
    "nystrom": ("conv.weight", 0),
    "pola": ("power", 1),
    "xca": ("temperature", 0),
    "enhanced": ("aggreg.1.weight", 1, True),
    "focused": ("dwc.weight", 0, True),
    "gla": ("g_norm.weight", 0, True),
    "performer": ("projection", 1, True),
    "slab": ("dwc.weight", 0, True),
}
# form -> (its option that a tensor shows, the tensor, the dimension)
_OPTIONS = {
    "agent": ("num_agents", "an_bias", 1),
    "linformer": ("num_projected", "proj_k.weight", 1),
    "nystrom": ("conv_kernel", "conv.weight", 2),
    "performer": ("num_features", "projection", 0),
}
_USUAL = {"num_agents": 49, "num_projected": 64, "conv_kernel": 35}


def forms_shown(family: str, shapes: Shapes, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file's blocks show of forms other than InLine and softmax, as overrides of `create_model`.

    Args:
        family: the model class's name.
        shapes: {tensor's name: shape}.
        known: overrides that are known; a known attn_type decides between forms with the same tensors.

    Returns:
        attn_type and, as far as tensors show them, num_heads and attn_options; {} for blocks of InLine and softmax
        alone, and where no form has such tensors.

    Raises:
        UnknownModelError: several forms have these tensors, none of them InLine or softmax.
    """
    if family not in _WHERE or "local" in (known.get("attn_options") or {}):
        return {}  # with or without InLine's filter, a form has the tensors of another: it is known by name
    stages = _stages(shapes, family)
    chosen: list[str] = []
    named = str(known.get("attn_type", "")).replace(" ", "").split(",")
    for number, names in enumerate(stages):
        one = family == "InLineCSwin" and number == 3  # its last stage has one branch, whatever the form
        fits = [
            form
            for form, own in signatures(family).items()
            if names == (frozenset(name for name in own if name.startswith("0.")) if one else own)
        ]
        told = named[number if len(named) == len(stages) else 0]
        plain = [form for form in _PLAIN if form in fits]
        if told in fits or plain or len(fits) == 1:
            chosen.append(told if told in fits else [*plain, *fits][0])
        elif not fits:
            return {}
        else:
            raise UnknownModelError(
                f"the attention of this {family} has the tensors of {', '.join(fits)} alike, which only a name tells "
                f"apart\n  add --opts attn_type NAME, e.g. --opts attn_type {fits[0]}"
            )
    if not chosen or all(form in _PLAIN for form in chosen):
        return {}
    attn_type = chosen[0] if len(set(chosen)) == 1 else ",".join(chosen)
    found = {"attn_type": attn_type, **_sizes(family, shapes, chosen)}
    return {key: value for key, value in found.items() if key not in known}


def alike(family: str, form: str) -> list[str]:
    """Return the other forms whose blocks have the same tensors as a form's, in a family."""
    own = signatures(family)
    return [name for name, names in own.items() if name != form and names == own.get(form)]


@functools.cache
def signatures(family: str) -> dict[str, frozenset[str]]:
    """Return {form: the names of the tensors of its layer} of all forms that a family takes."""
    begin, name, small = _WHERE[family]
    found = {}
    for form in ATTENTION:
        try:
            model = skeleton(name, {**small, "attn_type": form})
        except ValueError:  # CSwin does not take those that project in their own way
            continue
        found[form] = _names(model.state_dict(), begin)
    return found


def _names(shapes: Any, begin: str) -> frozenset[str]:
    """The names of the first block's attention, without what follows from sizes."""
    inside: dict[str, set[str]] = defaultdict(set)
    for name in shapes:
        match = re.match(begin, name)
        if match and name.rpartition(".")[2] not in REBUILT:
            inside[match[0]].add(name[match.end() :])
    return frozenset(next(iter(inside.values()), ()))


def _stages(shapes: Shapes, family: str) -> list[frozenset[str]]:
    """The names of each stage's attention; of a stage whose blocks differ, as those of M do: none."""
    blocks: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in shapes:
        match = re.match(_WHERE[family][0], name)
        if match and name.rpartition(".")[2] not in REBUILT:
            blocks[match[1]][match[2]].add(name[match.end() :])
    found = []
    for stage in sorted(blocks):
        kinds = {frozenset(names) for names in blocks[stage].values()}
        found.append(kinds.pop() if len(kinds) == 1 else frozenset())
    return found


def _sizes(family: str, shapes: Shapes, forms: list[str]) -> dict[str, Any]:
    """Heads and options of each stage, as far as all stages show them."""
    heads: list[Any] = []
    options: dict[str, list[Any]] = {}
    firsts = {match[1]: match[0] for name in shapes if (match := re.match(_WHERE[family][0], name))}
    for stage, form in zip(sorted(firsts), forms):
        block, branches = firsts[stage], 1
        if family == "InLineCSwin":
            branches += any(name.startswith(f"{block}1.") for name in shapes)
            block += "0."
        heads.append(_heads(block, form, shapes, branches))
        if form in _OPTIONS:
            option, tensor, dimension = _OPTIONS[form]
            shape = shapes.get(block + tensor, ())
            if len(shape) > dimension:
                options.setdefault(option, [None] * len(firsts))[len(heads) - 1] = shape[dimension]
    found: dict[str, Any] = {}
    if all(heads):
        found["num_heads"] = heads[0] if family == "InLineDeiT" else tuple(heads)
    given = {
        option: values[0] if len(set(values)) == 1 else tuple(values)
        for option, values in options.items()
        if None not in values and not _usual(option, values, forms, shapes)
    }
    return {**found, **({"attn_options": given} if given else {})}


def _heads(block: str, form: str, shapes: Shapes, branches: int) -> int | None:
    if form not in _HEADS:
        return None
    tensor, dimension, *width = _HEADS[form]
    shape = shapes.get(block + tensor, ())
    if len(shape) <= dimension or not shape[dimension]:
        return None
    if not width:
        return shape[dimension] * branches
    biases = ("proj.bias", "get_v.bias", "gate.bias")  # gla's output has none, but its gate
    dim = next((found[0] for name in biases if (found := shapes.get(block + name))), 0)
    return dim * branches // shape[dimension] or None


def _usual(option: str, values: list[Any], forms: list[str], shapes: Shapes) -> bool:
    """Whether an option's values are those that layers have without it."""
    if option == "num_features":
        widths = [
            shape[1] for name, shape in shapes.items() if name.endswith(".projection") and len(shape) == 2
        ]
        return all(
            value == max(1, int(width * math.log(max(width, 1)))) for value, width in zip(values, widths)
        )
    defaults = ATTENTION[forms[0]].STAGE_OPTIONS.get(option) if len(values) == 4 else None
    return list(defaults) == values if defaults else all(value == _USUAL[option] for value in values)
