"""A backbone put into a detector's or segmenter's checkpoint: other numbers in a copy of it, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paddle_inline.utils.errors import UserError, counted, short, shortened
from paddle_inline.weights.lazy_array import LazyArray
from paddle_inline.weights.load import difference
from paddle_inline.weights.torch_layout import torch_side, translated

from .backbones import is_rebuilt
from .beside import completed, split_beside
from .checkpoint import (
    ConversionOptions,
    Opened,
    open_checkpoint,
    paddle_side,
)
from .conversion import Outcome, carried_on, facts_of
from .errors import CheckFailedError
from .formats.patch import overwrite
from .formats.select import Weights, select_weights, walk
from .formats.source import Source, open_source
from .formats.write import atomic, check_output, check_sidecar, sha256, sidecar_of, write_sidecar
from .identify import Identity
from .summary import listed, numbered, parts_of, summary_lines

_COUNTER = ".num_batches_tracked"  # kept as it is: Paddle has none to put there
_OTHER = {"paddle": "torch", "torch": "paddle"}


def put_back(
    path: str | Path,
    detector: str | Path,
    output: str | Path,
    side: str,
    options: ConversionOptions | None = None,
    into: str = "model",
    log: Callable[[str], object] = lambda line: None,
) -> Outcome:
    """Write a copy of a detector's checkpoint in which the backbone's tensors are those of another file.

    All other tensors, and whatever else the checkpoint holds, stay byte for byte as they are. Of the backbone's own
    tensors those stay that follow from sizes, and BatchNorm's counters.

    Args:
        path: a file with a backbone, of either framework, alone or in a detector.
        detector: the checkpoint, of the framework `side`.
        output: the file to write, in the detector's format.
        side: "paddle" or "torch".
        options: as for `convert`; they are those of `path`.
        into: which weights of `detector` are meant, as for `select_weights`.
        log: called with a line for everything that was chosen or changed.

    Returns:
        Outcome. The output and its sidecar are in place.

    Raises:
        UserError: as `convert`; names, shapes or dtypes differ from those in the detector.
        CheckFailedError: the frameworks do not compute the same, or something else has changed.
    """
    options = options or ConversionOptions()
    file = check_output(output, side)
    opened = open_checkpoint(path, options)
    around = open_source(detector, options.skip_calls)
    check_sidecar(around.path)
    _check_files(file, opened, around)
    for line in summary_lines(opened):
        log(line)
    from .verify import check_forward, require_torch

    if options.verify:
        require_torch()
    arrays, identity, _ = paddle_side(opened, options)
    new = arrays if side == "paddle" else torch_side(arrays, identity.model, opened.counters)
    weights = _weights(around, into)
    old = _own(weights, identity)
    new = {name: array for name, array in new.items() if not is_rebuilt(name) and not name.endswith(_COUNTER)}
    _check_fit(around, opened, identity, side, old, new)
    _check_alone(around, old)
    changed = [name for name in old if _bytes(old[name]) != _bytes(new[name])]
    for line in _said(around, weights, old, changed):
        log(line)
    with atomic(file) as temporary:
        shutil.copyfile(around.path, temporary)
        overwrite(temporary, [(old[name], new[name]) for name in changed])
        written = open_source(temporary, options.skip_calls)
        _check_rest(around, written, {id(old[name]) for name in changed})
        found = _own(_weights(written, into), identity)
        for name, array in new.items():
            if _bytes(found[name]) != _bytes(array):
                raise CheckFailedError(f"{name} does not come back bit for bit")
        verification: dict[str, Any] = {"done": False, "why": "--no-verify"}
        if options.verify:
            back = translated(completed(found, identity)[0], identity.model, side, "paddle")
            source = translated(opened.weights.arrays, identity.model, opened.identity.side, "torch")
            verification = check_forward(identity, back, source)
            log(f"verified: {verification['text']}")
        facts = facts_of(
            opened, file, temporary, side, carried_on(opened, identity, options), changed, verification
        )
        facts["into"] = {
            "name": around.path.name,
            "sha256": sha256(around.path),
            "taken": weights.taken or "all",
            "prefix": weights.prefix,
        }
        sidecar_of(file).unlink(missing_ok=True)
    write_sidecar(file, facts)
    return Outcome(
        str(file), identity, [f"{len(changed)} of {counted(len(old), 'tensor')} changed"], verification
    )


def _check_files(file: Path, opened: Opened, around: Source) -> None:
    """Refuse files of which no copy can be made, or that would be written over."""
    if len(around.files) > 1:
        raise UserError(f"{around.path} is in shards: a backbone is put into one file, so join them first")
    if file.suffix != around.path.suffix:
        raise UserError(f"output {file} must end in {around.path.suffix}, for it is a copy of {around.path}")
    inputs = (*opened.source.files, *around.files)
    if file.exists() and any(file.samefile(other) for other in inputs):
        raise UserError(f"output {file} is an input; name another file")


def _weights(around: Source, into: str) -> Weights:
    weights = select_weights(around, into)
    if weights.unsure:
        raise UserError(
            f"{around.path} holds several models, and nothing says which is meant; choose with --into-take "
            + " or --into-take ".join(weights.unsure)
        )
    return weights


def _own(weights: Weights, identity: Identity) -> dict[str, LazyArray]:
    """Return the tensors of a detector's backbone that training changes, by their names in the backbone."""
    kept, _ = split_beside(weights.arrays, identity.maps)
    return {name: a for name, a in kept.items() if not is_rebuilt(name) and not name.endswith(_COUNTER)}


def _check_fit(
    around: Source,
    opened: Opened,
    identity: Identity,
    side: str,
    old: Mapping[str, LazyArray],
    new: Mapping[str, LazyArray],
) -> None:
    """Refuse a backbone of other names, shapes or dtypes than the detector's, or one that no copy can be given."""
    own, given = ({name: array.shape for name, array in arrays.items()} for arrays in (old, new))
    lines = difference(own, given)
    if lines:
        other = translated(opened.weights.arrays, identity.model, opened.identity.side, _OTHER[side])
        turned = {n: a.shape for n, a in other.items() if not is_rebuilt(n)}
        hint = ""
        if not difference(own, turned):
            hint = f"; it has {_OTHER[side].capitalize()}'s layouts: use to-{_OTHER[side]}"
        raise UserError(
            f"the backbone in {around.path} is another than that of {opened.source.path}{hint}\n"
            f"  (- in {around.path.name}, + in {opened.source.path.name})\n" + "\n".join(shortened(lines))
        )
    dtypes = [
        f"  {name}: {old[name].dtype}, {new[name].dtype}"
        for name in old
        if old[name].dtype != new[name].dtype
    ]
    if dtypes:
        raise UserError(
            f"{around.path} and {opened.source.path} hold other kinds of numbers, and none is rounded here: save one "
            "of them in the other's\n" + "\n".join(shortened(dtypes))
        )
    unplaced = next((name for name, array in old.items() if array.place is None), None)
    if unplaced:
        raise UserError(
            f"{around.path}: the numbers of {short(unplaced)} do not lie in it as they are (a pickle of protocol 2 or "
            "before, or of another device): save it anew, and convert that"
        )


def _check_alone(around: Source, old: Mapping[str, LazyArray]) -> None:
    """Refuse a checkpoint in which a tensor of the backbone stands in two places: both would change."""
    places: dict[int, list[str]] = {id(array): [] for array in old.values()}
    for path, entries in walk(around.contents):
        for name, array in entries.items():
            if id(array) in places:
                places[id(array)].append(f"{path}.{name}" if path else name)
    twice = next((found for found in places.values() if len(found) > 1), None)
    if twice:
        raise UserError(
            f"{around.path}: {' and '.join(map(short, twice))} are one tensor, and both would change; save it with "
            "copies of its own (tensor.clone())"
        )


def _said(around: Source, weights: Weights, old: Mapping[str, LazyArray], changed: list[str]) -> list[str]:
    """Return lines on what changes in a detector's checkpoint, and what stays."""
    where = f" under {weights.taken!r}" if weights.taken else ""
    prefix = f" behind {weights.prefix!r}" if weights.prefix else ""
    lines = [
        f"{around.path}: {len(changed)} of {counted(len(old), 'tensor')} of its backbone{where}{prefix} change"
    ]
    if changed:
        lines.append(f"changed: {listed(changed)}")
    counts = numbered(parts_of(weights.left_out, weights.prefix))
    stays = [counts] if counts else []
    stays += [f"the weights under {other!r}" for other in weights.others]
    stays += [
        f"{short(key)}, of the weights that were there" for key in around.contents if "optim" in str(key)
    ]
    lines.append(f"as it was: {', '.join(stays) or 'all else'}")
    return lines


def _check_rest(before: Source, after: Source, changed: set[int]) -> None:
    """Compare every other tensor of two files, bit for bit."""
    pairs = zip(walk(before.contents), walk(after.contents))
    for (path, olds), (_, news) in pairs:
        for name, old in olds.items():
            if id(old) in changed or not isinstance(old, LazyArray):
                continue
            if name not in news or _bytes(old) != _bytes(news[name]):
                where = f"{path}.{name}" if path else name
                raise CheckFailedError(
                    f"{before.path}: {short(where)} shares its numbers with the backbone, and would change; save it "
                    "with copies of its own (tensor.clone())"
                )


def _bytes(array: LazyArray) -> tuple[str, tuple[int, ...], bytes]:
    values = array.read()
    return array.dtype, values.shape, values.tobytes()
