"""One checkpoint to the other framework: opened, recognised, translated, verified, then put in place."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddle_inline import __version__
from paddle_inline.data.published import published_transform
from paddle_inline.utils.errors import UserError
from paddle_inline.weights.description import MODES, describe, fitted

from .checkpoint import (
    ConversionOptions,
    Opened,
    open_checkpoint,
    paddle_side,
    transform_in,
)
from .formats.write import (
    atomic,
    check_output,
    sha256,
    sidecar_of,
    write_sidecar,
    write_weights,
)
from .summary import summary_lines

if TYPE_CHECKING:
    from .identify import Identity


@dataclass(frozen=True)
class Outcome:
    """A finished conversion."""

    output: str
    identity: Identity
    notes: list[str]
    verification: dict[str, Any]


def convert(
    path: str | Path,
    output: str | Path,
    side: str,
    options: ConversionOptions | None = None,
    log: Callable[[str], object] = lambda line: None,
) -> Outcome:
    """Convert one checkpoint.

    Args:
        path: any file that `open_source` opens, of either framework.
        output: the file to write; its suffix decides the format (formats/write.py).
        side: "paddle" or "torch", what to write.
        options: what is asked for beyond that.
        log: called with a line for everything that was chosen or changed.

    Returns:
        Outcome. The output and its sidecar `<output>.json` are in place.

    Raises:
        UserError: what `open_checkpoint` raises.
        UnfitWeightsError: weights that no model can have.
        CheckFailedError: the frameworks do not compute the same.
        FileAccessError: the output cannot be written. Whatever fails leaves the output as it was.
    """
    options = options or ConversionOptions()
    file: Path = check_output(output, side)
    opened = open_checkpoint(path, options)
    if file.exists() and any(file.samefile(other) for other in opened.source.files):
        raise UserError(f"output {output} is the input; name another file")
    for line in summary_lines(opened):
        log(line)
    from .verify import check, require_torch

    if options.verify:
        require_torch()
    arrays, target, notes = paddle_side(opened, options)
    for note in notes:
        log(note)
    description = carried_on(opened, target, options, log)
    if opened.counters:
        description["num_batches_tracked"] = opened.counters
    if side == "torch":
        from paddle_inline.weights.torch_layout import torch_side

        arrays = torch_side(arrays, target.model, opened.counters)
    with atomic(file) as temporary:
        write_weights(temporary, arrays, side, description)
        verification: dict[str, Any] = {"done": False, "why": "--no-verify"}
        if options.verify:
            verification = check(temporary, opened, target, side, exact=not notes)
            log(f"verified: {verification['text']}")
        facts = facts_of(opened, file, temporary, side, description, notes, verification)
        sidecar_of(file).unlink(missing_ok=True)  # better none than that of another file
    write_sidecar(file, facts)
    return Outcome(str(file), target, notes, verification)


def carried_on(
    opened: Opened,
    target: Identity,
    options: ConversionOptions,
    log: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Return the description of a conversion's result: what the source says of itself, fitted to what was asked for.

    A source that does not say how its images are made is taken to be of the published recipe, but for what training
    settings in it say, and `log` told so.
    """
    maps = target.maps
    if maps is not None:  # its images and its classes are the detector's
        told = {"out_indices": list(maps.out_indices), "out_norm": maps.out_norm}
        return {**describe(target.name, target.overrides), "backbone": told}
    known = opened.source.description
    if known is None or known["model"] != target.name:
        known = describe(target.name, target.overrides)
    result = fitted(known, target.name, target.overrides, options.img_size, options.num_classes)
    result.pop("num_batches_tracked", None)  # of the source; the result's own are added by the caller
    channels = target.model.spec.in_chans
    if not result.get("transform") and channels in MODES:  # pictures have others not
        transform = published_transform(target.name, target.model.img_size, channels)
        told = transform_in(opened.source.contents)
        result["transform"] = transform = {**transform, **told}
        more = f" with {', '.join(told)} of the settings in it" if told else ""
        log(
            "the file does not say how its images are made: the published recipe's transform is written"
            f"{more}, {transform}"
        )
    return result


def facts_of(
    opened: Opened,
    output: Path,
    written: Path,
    side: str,
    description: Mapping[str, Any],
    notes: list[str],
    verification: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the facts about a conversion, for the sidecar of its output."""
    source = opened.source
    return {
        "source": {
            "format": source.format,
            "files": [
                {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
                for path in source.files
            ],
            "taken": opened.weights.taken or "all",
            "prefix_removed": opened.weights.prefix,
        },
        "output": {
            "name": output.name,
            "side": side,
            "bytes": written.stat().st_size,
            "sha256": sha256(written),
        },
        **description,
        "recognised_by": opened.identity.how,
        "assumed": opened.identity.assumed,
        "changed": notes,
        "verification": verification,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return {package: version} of what a result may depend on."""
    found = {"python": platform.python_version(), "paddle-inline": __version__}
    for package in ("paddlepaddle", "paddlepaddle-gpu", "torch", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
