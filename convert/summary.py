"""What was read from a checkpoint, chosen and left out, in lines for the user."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from paddle_inline.utils.errors import counted, short

from .checkpoint import Opened
from .formats.select import EMA_KEYS, MARKS, MODEL_KEYS, Weights


def summary_lines(opened: Opened) -> Iterator[str]:
    """Yield lines on what was read, which weights are used and what was recognised."""
    weights, identity = opened.weights, opened.identity
    used = f"its weights under {weights.taken!r}" if weights.taken else "its weights"
    if weights.others:
        used += f" (it also has {', '.join(map(repr, weights.others))}: --take {_choices(weights)})"
    if weights.prefix:
        used += f", without the prefix {weights.prefix!r}"
    yield f"{opened.source.path}: {opened.source.format}, {counted(len(weights.arrays), 'tensor')}; taking {used}"
    yield f"model: {identity}, from {identity.how}"
    yield from identity.remarks
    if identity.assumed:
        values = ", ".join(f"{key}={value!r}" for key, value in identity.assumed.items())
        yield f"no tensor shows, so taken from {identity.name}: {values}"
    if identity.maps is not None:
        yield f"maps: of stages {', '.join(map(str, identity.maps.out_indices))}, {_ended(identity.maps.norms)}"
    if opened.left_out:
        left = numbered(beside(opened)) if identity.maps is not None else listed(opened.left_out)
        yield f"left out, as it is beside the model: {left}"
    if opened.rebuilt:
        yield f"not in the file, so rebuilt from the model's sizes: {listed(opened.rebuilt)}"


def parts_of(names: Iterable[str], prefix: str) -> dict[str, int]:
    """Return how many tensors of a file belong to each of its parts.

    Args:
        names: of tensors beside a model.
        prefix: of the model's names; behind it a module of the network is a part.
    """
    counts: dict[str, int] = {}
    for name in names:
        parts = [part for part in name.split(".") if part not in MARKS] or [name]
        part = parts[len(parts) > 1 and parts[0] == "model"]
        if prefix and name.startswith(prefix):
            part = prefix + ".".join(name[len(prefix) :].split(".")[:2])
        counts[part] = counts.get(part, 0) + 1
    return counts


def numbered(counts: Mapping[str, int]) -> str:
    """Return parts and their numbers of tensors for one line."""
    return ", ".join(f"{short(part)} ({counted(n, 'tensor')})" for part, n in counts.items())


def _ended(norms: Sequence[str]) -> str:
    return f"with the output norms {', '.join(norms)}" if norms else "without output norms"


def listed(names: Collection[str], most: int = 12) -> str:
    """Return names for one line, those of one module together."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split(".")[0] if len(names) > most else name, []).append(name)
    if len(groups) > most:
        groups = dict([*list(groups.items())[:most], (f"and {len(groups) - most} more", [""])])
    return ", ".join(
        short(key) if len(found) == 1 else f"{short(key)}.* ({len(found)} tensors)"
        for key, found in groups.items()
    )


def _choices(weights: Weights) -> str:
    plain = weights.taken in MODEL_KEYS and all(key in EMA_KEYS for key in weights.others)
    return "model or ema" if plain else " or ".join(weights.others)


def beside(opened: Opened) -> dict[str, int]:
    """Return how many tensors each part beside a model has, as neck and heads of a detector."""
    return parts_of(opened.left_out, opened.weights.prefix)
