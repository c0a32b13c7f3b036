"""What a checkpoint holds: its dictionaries of tensors, their models, what would be left out, and how to go on."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from paddle_inline.utils.environment import import_paddle
from paddle_inline.utils.errors import UserError, counted, short
from paddle_inline.weights.foreign import converter

from .checkpoint import ConversionOptions, Opened, recognised
from .errors import UnknownModelError
from .formats.select import ROOT, Dictionary, dictionaries, select_weights
from .formats.source import Source, open_source
from .formats.write import check_sidecar
from .summary import beside, summary_lines

_MOST = 40  # dictionaries that are listed
# What a description can say of the pictures, beside the model itself.
_NOT_SHOWN = {"model", "overrides", "num_batches_tracked", "backbone"}


class Inspection:
    """A checkpoint file, opened, every dictionary of tensors in it, and the model that would be taken.

    Attributes:
        source: the file.
        kept: {key path of a dictionary: how many of its tensors are the model's}.
        found: its dictionaries of tensors.
        models: {their key paths: the line of Python that builds their model, or ""}.
        opened: the file with the model that is taken; None where the choice is the user's.
    """

    def __init__(self, path: str | Path, options: ConversionOptions) -> None:
        self.source: Source = open_source(path, options.skip_calls)
        self.options = options
        self.found = dictionaries(self.source)
        self.unsure = select_weights(self.source, options.take).unsure
        import_paddle()  # only for a file that could be read
        self.kept = {each.label: len(each.entries) for each in self.found}
        self.models: dict[str, str] = {each.label: self._model(each) for each in self.found[:_MOST]}
        self.opened: Opened | None = None

    def open(self) -> None:
        """Recognise the model that is taken; raises what `open_checkpoint` does."""
        if not self.unsure:
            check_sidecar(self.source.path)
            self.opened = recognised(self.source, self.options)

    def _model(self, each: Dictionary) -> str:
        if not each.family:
            return ""
        options = replace(self.options, take=each.label)
        try:
            opened = recognised(self.source, options)
            self.kept[each.label] = len(opened.weights.arrays) - len(opened.rebuilt) + len(opened.counters)
            return str(opened.identity)
        except UnknownModelError as error:
            line = str(error).splitlines()[0]
            return f"a {each.family}, but {line[len(f'{self.source.path}: ') :]}"
        except UserError as error:
            return f"a {each.family} that is not read: {short(str(error).splitlines()[0], 300)}"

    @property
    def next(self) -> list[str]:
        """The commands to go on with."""
        path, side = str(self.source.path), self.opened.identity.side if self.opened else "torch"
        if self.opened is not None and self.opened.identity.maps is not None:
            return self._for_backbone(self.opened)
        if side == "paddle":
            out = shlex.quote(str(self.source.path.with_suffix(".pth")))
            return [f"python -m convert to-torch {shlex.quote(path)} {out}"]
        command = converter(path)
        if self.opened is None:
            return [f"{command} --take {shlex.quote(label)}" for label in self.unsure]
        commands = [command + self._given()]
        if isinstance(self.source.contents.get("optimizer"), dict) and self.options.take == "model":
            run = shlex.quote(str(self.source.path.with_suffix("")) + "_run/checkpoints")
            commands.append(f"python -m convert to-paddle {shlex.quote(path)} {run} --training")
        return commands

    def _for_backbone(self, opened: Opened) -> list[str]:
        """The commands that take a backbone to the other framework and, from beside others, to a file of its own; and
        the one that puts another in its place."""
        path, side = self.source.path, opened.identity.side
        suffixes = {"paddle": ".pdparams", "torch": ".pth"}
        other = "torch" if side == "paddle" else "paddle"
        stem = f"{path.name.split('.')[0]}{'_backbone' if opened.left_out else ''}"
        commands = [
            f"python -m convert to-{to} {shlex.quote(str(path))} "
            f"{shlex.quote(str(path.with_name(stem + suffixes[to])))}{self._given()}"
            for to in ([other, side] if opened.left_out else [other])
        ]
        if opened.left_out:
            out = shlex.quote(str(path.with_name(f"{path.stem}_new{path.suffix}")))
            commands.append(f"python -m convert to-{side} BACKBONE {out} --into {shlex.quote(str(path))}")
        return commands

    def _given(self) -> str:
        """The options that the next command has to repeat."""
        given = [("--take", self.options.take if self.options.take != "model" else "")]
        given.append(("--model", self.options.model or ""))
        text = "".join(f" {flag} {shlex.quote(value)}" for flag, value in given if value)
        if self.options.overrides:
            pairs = (f"{key} {shlex.quote(str(value))}" for key, value in self.options.overrides.items())
            text += f" --opts {' '.join(pairs)}"
        return text + (" --skip-calls" if self.options.skip_calls else "")

    def heading(self) -> Iterator[str]:
        """Yield lines on what the file is and which dictionaries of tensors it has."""
        yield f"{self.source.path}: {self.source.format}, {self.source.size:,} bytes"
        if len(self.found) == 1 and self.found[0].label == ROOT:
            return
        yield "dictionaries of tensors, by the key path that --take takes:"
        for each in self.found[:_MOST]:
            kept = self.kept[each.label]
            count = counted(kept, "tensor")
            more = len(each.entries) + len(each.left_out) - kept
            beside = f" and {more} beside them" if more else ""
            label = "(the file itself)" if each.label == ROOT else short(each.label)
            yield f"  {label}: {count}{beside}, {self._said(each)}"
        if len(self.found) > _MOST:
            yield f"  and {len(self.found) - _MOST} more"

    def _said(self, each: Dictionary) -> str:
        return self.models.get(each.label) or "of no model here"

    def lines(self) -> Iterator[str]:
        """Yield lines on the model that is taken, and how to go on."""
        opened = self.opened
        if opened is None:
            yield "several are models, and nothing says which is meant; choose one:"
        else:
            yield from summary_lines(opened)
            arrays = opened.weights.arrays.values()
            dtypes = sorted({array.dtype for array in arrays})
            layout = {"torch": "PyTorch", "paddle": "Paddle"}[opened.identity.side]
            numbers = sum(math.prod(array.shape) for array in arrays)
            yield f"numbers: {numbers:,} in {', '.join(dtypes)}, in {layout}'s layout"
            for key, value in described(opened).items():
                yield f"{key}: {short(str(value), 200)}"
            if opened.weights.taken and "" not in self.source.contents:
                yield f"contents: {', '.join(_content(*item) for item in list(self.source.contents.items())[:20])}"
            if opened.identity.side == "paddle" and self.source.description:
                yield f"use it: paddle_inline.{opened.identity.call_with(str(self.source.path))}"
        for command in self.next:
            yield f"next: {command}"

    def facts(self) -> dict[str, Any]:
        """Return the same for a program."""
        opened = self.opened
        facts: dict[str, Any] = {
            "file": str(self.source.path),
            "format": self.source.format,
            "dictionaries": [
                {
                    "path": "" if each.label == ROOT else each.label,
                    "tensors": len(each.entries),
                    "model": self.models.get(each.label) or None,
                }
                for each in self.found
            ],
            "next": self.next,
        }
        if opened is None:
            return {**facts, "model": None, "choices": list(self.unsure)}
        identity, weights = opened.identity, opened.weights
        if identity.maps is not None:
            facts["backbone"] = {**identity.maps._asdict(), "norms": identity.maps.norms}
            facts["beside"] = beside(opened)
        return {
            **facts,
            "side": identity.side,
            "taken": weights.taken,
            "others": list(weights.others),
            "model": identity.name,
            "overrides": identity.overrides,
            "assumed": identity.assumed,
            "recognised_by": identity.how,
            "remarks": list(identity.remarks),
            "left_out": list(opened.left_out),
            "rebuilt": list(opened.rebuilt),
            "numbers": sum(math.prod(array.shape) for array in weights.arrays.values()),
            "dtypes": sorted({array.dtype for array in weights.arrays.values()}),
            "described": described(opened),
        }


def described(opened: Opened) -> dict[str, Any]:
    """Return what a file's own description says beside the model: its transform and classes, if it knows them."""
    found: Mapping[str, Any] = opened.source.description or {}
    return {key: value for key, value in found.items() if key not in _NOT_SHOWN}


def _content(key: object, value: Any) -> str:
    if hasattr(value, "shape"):
        return f"{short(key)} {list(value.shape)}"
    if isinstance(value, (int, float, str, bool)) or value is None:
        return f"{short(key)}={short(str(value), 40)}"
    what = f"({len(value)})" if isinstance(value, (dict, list, tuple)) else short(value)
    return f"{short(key)} {what}"
