"""Any checkpoint file as named tensors that are still in it."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddle_inline.utils.errors import MissingFileError, short
from paddle_inline.utils.hub import is_saved
from paddle_inline.utils.hub_config import WEIGHTS
from paddle_inline.utils.paths import expand
from paddle_inline.weights.foreign import advice, kind_of, not_weights
from paddle_inline.weights.lazy_array import LazyArray, WeightsFileError, check_file
from paddle_inline.weights.load import DESCRIPTION, described, open_pickle
from paddle_inline.weights.safe_pickle import Inert
from paddle_inline.weights.safetensors import open_safetensors
from paddle_inline.weights.wrapped import lazy_array_of

from .torch_file import LEGACY_MAGIC, Tensor, open_torch

_LARGEST_INDEX = 1 << 26


@dataclass(frozen=True)
class Source:
    """An opened checkpoint: plain containers, with a LazyArray in place of every tensor."""

    path: Path
    format: str  # "torch", "torch (before zip)", "safetensors", "safetensors shards", "Paddle", ...
    contents: Mapping
    files: tuple[Path, ...]  # all that it consists of
    description: dict | None = None  # of its model, if this package wrote it

    @property
    def size(self) -> int:
        """The size of all its files in bytes."""
        return sum(path.stat().st_size for path in self.files)


def open_source(path: str | Path, skip_calls: bool = False, as_shard: bool = False) -> Source:
    """Open a checkpoint by what it holds, whatever its name.

    Args:
        path: of a file of torch (either format), `.pdparams`, safetensors, the index (`*.index.json`) of shards of
            either, or a folder of the hub's layout.
        skip_calls: leave out, rather than refuse, what a torch checkpoint would have to call a function for.
        as_shard: also open a file that is one of several shards.

    Raises:
        MissingFileError: there is no such file.
        WeightsFileError: it is not a sound checkpoint.
    """
    path = expand(path)
    if is_saved(path):
        path = Path(path) / WEIGHTS
    if os.path.isdir(path) and (foreign := advice(path)):
        raise WeightsFileError(foreign)
    path = check_file(path)
    try:
        with open(path, "rb") as file:
            head = file.read(32)
    except OSError as error:
        raise WeightsFileError(f"{path} cannot be read: {error.strerror}") from None
    if path.name.endswith(".index.json"):
        return _open_shards(path, skip_calls)
    what, step = kind_of(path)
    if step and not (as_shard and what.startswith("shard ")):
        raise WeightsFileError(f"{path} is {what}: {step}")
    if head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < path.stat().st_size:
        arrays, metadata = open_safetensors(path)
        return Source(path, "safetensors", arrays, (path,), described(metadata.get(DESCRIPTION)))
    if head[:4] == b"PK\3\4":
        return _torch(path, "torch", skip_calls)
    if head[2:3] == b"\x8a" and head[4:14] == LEGACY_MAGIC.to_bytes(10, "little"):
        return _torch(path, "torch (before zip)", skip_calls)
    if head[:1] == b"\x80":
        contents, description = open_pickle(path)
        if not isinstance(contents, dict):
            contents = _wrapped(path, contents)
        return Source(path, "Paddle", _plain(contents, lazy_array_of), (path,), description)
    raise WeightsFileError(not_weights(path))


def _wrapped(path: Path, contents: Any) -> dict:
    """Return what holds dictionaries of tensors though it is none, a list, a tuple or a module that was saved whole, as
    the dictionary of it.

    Raises:
        WeightsFileError: it is anything else.
    """
    if isinstance(contents, (list, tuple, Inert)):
        return {"": contents}
    kind = type(contents).__name__
    raise WeightsFileError(f"{path} holds a {kind}, not named weights; save its state_dict()")


def _torch(path: Path, form: str, skip_calls: bool) -> Source:
    contents = open_torch(path, skip_calls)
    if not isinstance(contents, dict):
        contents = _wrapped(path, contents)
    attributes = getattr(contents, "attributes", None)
    description = attributes.get(DESCRIPTION) if isinstance(attributes, dict) else None
    if description is None:  # of a training checkpoint it is an entry
        description = contents.get(DESCRIPTION)
    plain = _plain(contents, lambda value: value.stored if isinstance(value, Tensor) else None)
    return Source(path, form, plain, (path,), described(description))


def _plain(contents: dict, array_of: Callable[[Any], LazyArray | None]) -> dict:
    """Return the two upper levels of a checkpoint's containers, with a LazyArray for every tensor."""
    done: dict[int, dict] = {}  # a file may refer to one dictionary many times

    def entries(items: dict) -> dict:
        if id(items) not in done:
            done[id(items)] = {name: array_of(item) or item for name, item in items.items()}
        return done[id(items)]

    return {
        key: entries(value) if isinstance(value, dict) else array_of(value) or value
        for key, value in contents.items()
    }


def _open_shards(path: Path, skip_calls: bool) -> Source:
    """Shards by their index, {"weight_map": {tensor's name: file's name}}; the files lie beside it."""
    if path.stat().st_size > _LARGEST_INDEX:
        raise WeightsFileError(f"{path} is too large to be an index")
    try:
        index = json.loads(path.read_bytes())["weight_map"]
        wanted = {name: str(file) for name, file in index.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise WeightsFileError(f"{path} is not an index of shards: it has no weight_map") from None
    arrays: dict[str, Any] = {}
    files, formats = [path], set()
    for name in sorted(set(wanted.values())):
        if Path(name).name != name or "\\" in name or name in ("", ".", "..") or name.endswith(".json"):
            raise WeightsFileError(
                f"{path} names the shard {short(name)!r}, which is no checkpoint beside it"
            )
        if not os.path.exists(path.parent / name):  # (a name may be too long for the system)
            raise MissingFileError(
                f"{path} names the shard {short(name)}, which is not beside it: download it too"
            )
        shard = open_source(path.parent / name, skip_calls, as_shard=True)
        files.append(shard.path)
        formats.add(shard.format)
        for key, value in shard.contents.items():
            if key in arrays:
                raise WeightsFileError(f"{path}: two shards hold {short(key)!r}")
            arrays[key] = value
            if wanted.get(key) != name:
                raise WeightsFileError(f"{path} does not place {short(key)!r} in {name}, where it is")
    if set(arrays) != set(wanted):
        missing = next(iter(set(wanted) - set(arrays)))
        raise WeightsFileError(
            f"{path} places {short(missing)!r} in {short(wanted[missing])}, where it is not"
        )
    return Source(path, f"{'/'.join(sorted(formats))} shards", arrays, tuple(files))
