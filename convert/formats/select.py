"""Which of a checkpoint's tensors are the model's: its dictionaries of tensors, at any depth, and the names in them.

Training code wraps models: `state_dict`, `student`, `trainer.model`; `module.backbone.` before the names, marks of
compilers and wrappers inside them; losses, metrics and heads beside them. A model of ours is found by its family's
landmark under any of that. Where two are found, and no name says which is the model, the choice is the user's.

(Above 300 lines: a third are the tables of wrappers' words and their reasons, which are read with what uses them.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from paddle_inline.utils.errors import UserError, counted, short, shortened
from paddle_inline.weights.lazy_array import LazyArray, WeightsFileError
from paddle_inline.weights.safe_pickle import Inert
from paddle_inline.weights.wrapped import lazy_array_of

from ..families import FAMILIES
from .company import is_company
from .source import Source
from .torch_file import Tensor
from .torch_pickle import Unreadable

# Where training code puts weights in its checkpoints; the first that is there is taken.
MODEL_KEYS = ("model", "state_dict", "model_state_dict", "module", "net")
EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
# What wrappers put in front of every name: DataParallel, torch.compile, Lightning.
PREFIXES = ("module.", "_orig_mod.", "model.")
# What they put anywhere into names.
MARKS = {
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
    "_fpw_module",
    "_original_module",
    "_wrapped_module",
}
_MOST = 200_000  # containers that are looked at
ROOT = "."  # what --take calls the file itself
_AVERAGES = {"ema", "swa", "average", "averaged", "avg"}  # words in the keys of moving averages
_MOMENTS = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "step", "exp_inf", "square_avg"}

Entries = dict[str, Any]  # {name: LazyArray or Unreadable}


@dataclass(frozen=True)
class Dictionary:
    """Tensors of a file under one key path, and under one prefix of their names if it holds several models."""

    path: str  # the keys that lead there, joined by dots; "" for the file itself
    entries: Entries  # by their names, without marks and prefix
    prefix: str = ""  # what was taken off every name
    family: str | None = None  # whose names they are
    left_out: Entries = field(default_factory=dict)  # by the names that the file has
    inner: str = ""  # the part of the prefix that tells it from the other models of the dictionary

    @property
    def label(self) -> str:
        """The argument of --take that means it."""
        return ".".join(filter(None, (self.path, self.inner.rstrip(".")))) or ROOT

    @property
    def averaged(self) -> bool:
        """Whether its keys say that it is a moving average."""
        return any(
            key in EMA_KEYS or _AVERAGES & set(key.lower().split("_")) for key in self.label.split(".")
        )

    @property
    def of_optimizer(self) -> bool:
        """Whether its keys say that it is an optimizer's, whose moments may have the model's names."""
        return any(key in _MOMENTS or "optim" in key.lower() for key in self.path.split("."))

    @property
    def usual(self) -> bool:
        """Whether all its keys are those under which training code keeps a model."""
        return bool(self.path) and all(key in MODEL_KEYS for key in self.path.split("."))


@dataclass(frozen=True)
class Weights:
    """Named tensors of a source, and how they were found."""

    arrays: dict[str, LazyArray]
    taken: str  # the key path they stood under; "" for a plain state dict
    others: tuple[str, ...] = ()  # key paths of other weights that the file has
    prefix: str = ""  # what was taken off every name
    left_out: Mapping[str, Any] = field(default_factory=dict)  # {name: tensor} beside the model
    unsure: tuple[str, ...] = ()  # key paths that would do as well: the choice is the user's
    averaged: bool = False  # whether others are a moving average, which "ema" takes


def dictionaries(source: Source) -> list[Dictionary]:
    """Return every dictionary of tensors in a file, at any depth, but those of an optimizer's parameters.

    Where none of them is a model, but all of them together, their keys joined by dots, are one, it is that.
    """
    found = [made for path, entries in walk(source.contents) for made in _models(path, entries)]
    found = [each for each in found if not set(each.entries) <= _MOMENTS]
    if not any(each.family for each in found):
        joined = [each for each in _models("", _joined(source.contents, "")) if each.family]
        return joined or found
    return found


def _joined(contents: Any, path: str) -> Entries:
    """Return all tensors below a key path, named by the keys behind it."""
    begin = f"{path}." if path else ""
    return {
        ".".join(filter(None, (below[len(begin) :], name))): value
        for below, entries in walk(contents)
        if below.startswith(begin)
        for name, value in entries.items()
    }


def walk(contents: Any) -> Iterator[tuple[str, Entries]]:
    """Yield (key path, {name: tensor}) of every dictionary, object or list in which there are named tensors.

    Whole modules that were saved are one dictionary, as their state_dict() would be.
    """
    pending: list[tuple[str, Any]] = [("", contents)]
    seen: set[int] = set()
    count = 0
    while pending and count < _MOST:
        path, value = pending.pop()
        count += 1
        module = _module(value)
        if module is not None:
            yield path, module
            continue
        items = _items(value)
        entries = {key: found for key, item in items if (found := _tensor(item)) is not None}
        if entries:
            yield path, entries
        if id(value) in seen:  # a file may refer to one container many times
            continue
        seen.add(id(value))
        below = [(f"{path}.{key}" if path else key, item) for key, item in items if key not in entries]
        if path.split(".")[-1] == "state":  # of an optimizer, by its parameters' numbers
            below = [(key, item) for key, item in below if not key.rsplit(".", 1)[-1].isdecimal()]
        pending += [
            (key, item) for key, item in reversed(below) if isinstance(item, (dict, list, tuple, Inert))
        ]


def _items(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Inert):
        found = value.contents if isinstance(value.contents, (dict, list)) else value.state
        value = found.get("_content", found) if isinstance(found, dict) else found
    if isinstance(value, (list, tuple)):
        if value and all(
            isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in value
        ):
            return list(value)  # pairs of names and tensors
        kept = (dict, list, tuple, Inert)
        return [(str(i), item) for i, item in enumerate(value[:1000]) if isinstance(item, kept)]
    items = value.items() if isinstance(value, dict) else ()
    return [(text, item) for key, item in items if (text := _text(key)) is not None]


def _text(key: Any) -> str | None:
    """Return a key as text; None of one that names nothing."""
    if isinstance(key, bytes) and key.isascii():
        return key.decode()
    return str(key) if isinstance(key, (str, int)) and not isinstance(key, bool) else None


def _tensor(value: Any) -> Any:
    if isinstance(value, (LazyArray, Unreadable)):
        return value
    return value.stored if isinstance(value, Tensor) else lazy_array_of(value)


def _module(value: Any, depth: int = 0) -> Entries | None:
    """Return the tensors of a module that was saved whole, named as in its state_dict(); None of anything else."""
    state = value.state if isinstance(value, Inert) else None
    if not isinstance(state, dict) or "_modules" not in state or "_parameters" not in state or depth > 40:
        return None
    hidden = _strings(state.get("_non_persistent_buffers_set"))
    own = {**_strings_of(state["_parameters"]), **_strings_of(state.get("_buffers"))}
    entries = {
        name: found
        for name, item in own.items()
        if name not in hidden and (found := _tensor(item)) is not None
    }
    for name, child in _strings_of(state["_modules"]).items():
        entries.update({f"{name}.{k}": v for k, v in (_module(child, depth + 1) or {}).items()})
    return entries


def _strings_of(value: Any) -> dict[str, Any]:
    return {k: v for k, v in value.items() if isinstance(k, str)} if isinstance(value, dict) else {}


def _strings(value: Any) -> list[str]:
    found = value.arguments[0] if isinstance(value, Inert) and value.arguments else value
    return [item for item in found if isinstance(item, str)] if isinstance(found, (list, tuple)) else []


def _models(path: str, entries: Entries) -> Iterator[Dictionary]:
    """Yield the models of a dictionary, or all of it as one if there is none of ours."""
    names, prefix = _without_prefix({name: name for name in entries})
    cleaned: dict[str, str] = {}  # {name without marks: the name that the file has}
    for name, old in names.items():
        kept = ".".join(part for part in name.split(".") if part not in MARKS) or name
        if kept in cleaned:
            cleaned = names
            break
        cleaned[kept] = old
    roots = _roots(cleaned)
    if not roots:
        yield Dictionary(path, {name: entries[old] for name, old in names.items()}, prefix)
        return
    for root, family in roots.items():
        nested = [other for other in roots if other != root and other.startswith(root)]
        mine = {
            name[len(root) :]: entries[old]
            for name, old in cleaned.items()
            if name.startswith(root) and not any(name.startswith(other) for other in nested)
        }
        beside = {
            old: entries[old]
            for name, old in cleaned.items()
            if not name.startswith(root) and not any(name.startswith(other) for other in roots)
        }
        yield Dictionary(path, mine, prefix + root, family, beside, root if len(roots) > 1 else "")


def _roots(names: Mapping[str, Any]) -> dict[str, str]:
    """Return {prefix: family} where a model of ours begins in names; "" if it begins at once.

    The landmark of one family can stand inside the names of another: the outermost counts.
    """
    found: dict[str, str] = {}
    for name in names:
        matches = [
            (match.start(1), family)
            for family, one in FAMILIES.items()
            if (match := re.search(rf"(?:^|\.)({one.landmark})", name))
        ]
        if matches:
            start, family = min(matches)
            found.setdefault(name[:start], family)
    return {
        root: family
        for root, family in found.items()
        if not any(root != other and root.startswith(other) and found[other] != family for other in found)
    }


def _without_prefix(arrays: dict[str, Any]) -> tuple[dict[str, Any], str]:
    taken_off = ""
    while arrays:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in arrays)), None)
        if prefix is None:
            break
        arrays = {name[len(prefix) :]: array for name, array in arrays.items()}
        taken_off += prefix
    return arrays, taken_off


def select_weights(source: Source, take: str = "model") -> Weights:
    """Select the named tensors of a checkpoint.

    Args:
        source: the opened checkpoint.
        take: "model" or "ema": which one of a checkpoint that has both; with "model" the averaged ones are
            taken where there are no others. Or the key path of any dictionary of tensors in it.

    Raises:
        WeightsFileError: there are none, they are not in the file, or they are larger than it.
        UserError: there is nothing at `take`, the file has no averaged weights, or it has several models and
            nothing says which is meant.
    """
    found = dictionaries(source)
    chosen, unsure = _choose(source, found, take)
    if chosen is None:
        kinds = sorted({type(v).__name__ for v in source.contents.values()} - {"NoneType"})
        keys = ", ".join(short(str(key), 40) for key in list(source.contents)[:8] if key != "")
        raise WeightsFileError(
            f"{source.path} holds no named tensors"
            + (f", only {keys}" if keys else "")
            + (f" ({', '.join(kinds[:5])})" if kinds else "")
            + "; save the model's state_dict(), and convert that"
        )
    arrays = _readable(source, chosen)
    size = sum(array.nbytes for array in arrays.values())
    if size > source.size:
        raise WeightsFileError(
            f"{source.path} declares tensors of {counted(size, 'byte')}, more than its own {source.size}"
        )
    others = tuple(
        each.label
        for each in found
        if each.label != chosen.label
        and (each.family or each.averaged or each.usual)
        and not each.of_optimizer
    )
    unread = {chosen.prefix + name: v for name, v in chosen.entries.items() if name not in arrays}
    taken = "" if chosen.label == ROOT else chosen.label
    averaged = any(each.averaged and each.label in others for each in found)
    return Weights(arrays, taken, others, chosen.prefix, {**chosen.left_out, **unread}, unsure, averaged)


def _choose(source: Source, found: list[Dictionary], take: str) -> tuple[Dictionary | None, tuple[str, ...]]:
    """Return the dictionary to take, and the key paths of those that would do as well."""
    models = [each for each in found if each.family and not each.of_optimizer]
    if take not in ("model", "ema"):
        return _named(source, found, take), ()
    averaged = [each for each in models if each.averaged]
    averaged = averaged or [each for each in found if each.path in EMA_KEYS]
    if take == "ema":
        if not averaged:
            raise UserError(f"{source.path} has no averaged weights (none of {', '.join(EMA_KEYS)})")
        return averaged[0], ()
    own = [each for each in models if not each.averaged]
    usual = [each for each in own if each.usual]
    if usual:
        first = min((each.path for each in usual), key=lambda path: MODEL_KEYS.index(path.split(".")[0]))
        own = [each for each in usual if each.path == first]
    else:
        own = [each for each in own if not each.path] or own
    if len(own) > 1:
        named = [
            each for each in own if each.inner.rstrip(".").split(".")[0] in ("", *MODEL_KEYS, "backbone")
        ]
        own = named if len(named) == 1 else own
    if own:
        return own[0], tuple(each.label for each in own) if len(own) > 1 else ()
    by_path = {each.path: each for each in reversed(found)}  # of no model of ours, which its names will say
    places = [by_path[key] for key in MODEL_KEYS if key in by_path] or averaged or found[:1]
    return (places[0] if places else None), ()


def _named(source: Source, found: list[Dictionary], take: str) -> Dictionary:
    """Return the dictionary at a key path; nested ones below it are one, their keys joined by dots."""
    take = take or ROOT
    exact = [each for each in found if take in (each.label, f"{each.path}.{each.prefix}".strip("."))]
    exact = exact or [each for each in found if each.path == take]
    if not exact:
        below = _joined(source.contents, take)
        exact = list(_models(take, below)) if below else []
    if len(exact) == 1:
        return exact[0]
    labels = shortened([f"  {each.label}" for each in exact or found])
    what = "holds several models" if exact else "holds no tensors"
    raise UserError(
        f"{source.path} {what} at {short(take)!r}; --take model, ema or one of\n" + "\n".join(labels)
    )


def _readable(source: Source, chosen: Dictionary) -> dict[str, LazyArray]:
    """Return the tensors of a dictionary; the error says why the file has not got their numbers."""
    arrays: dict[str, LazyArray] = {}
    for name, value in chosen.entries.items():
        if not isinstance(value, Unreadable):
            arrays[name] = value
        elif not (chosen.family and is_company(name.split(".")[0])) or name.startswith("head."):
            raise WeightsFileError(f"{source.path} is not read: of {short(name)}, {value.reason}")
    empty = [name for name, array in arrays.items() if 0 in array.shape]
    if len(empty) * 2 > len(arrays):
        raise WeightsFileError(
            f"{source.path}: empty (shape [0]) in {len(empty)} of its {counted(len(arrays), 'tensor')}, as DeepSpeed's "
            "ZeRO-3 leaves them, which keeps the numbers in shards; gather with zero_to_fp32.py, which lies in the "
            "checkpoint's folder: python zero_to_fp32.py FOLDER OUT.pth"
        )
    flat = next((name for name in arrays if name.endswith("flat_param") or "flat_param_" in name), None)
    if flat:
        raise WeightsFileError(
            f"{source.path}: {short(flat)} is a flattened parameter of FSDP; save a full state dict "
            "(StateDictType.FULL_STATE_DICT), and convert that"
        )
    return arrays
