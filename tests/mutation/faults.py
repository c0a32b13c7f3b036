"""The planted faults: what each changes, and which tests have to notice.

A list (faults/*.txt) is read from top to bottom:

    file paddle_inline/training/loop.py        the file that the faults below are planted in
    tests tests/training/test_loop.py          the tests that are run on each of them

    - if accuracy.top1 > progress.best_top1:   a fault: a text that occurs once in the file ...
    + if accuracy.top1 >= progress.best_top1:  ... and what is planted in its place; nothing: it is taken out

Blank lines separate faults; a text of several lines has its indentation from the second line on.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("faults")


@dataclass(frozen=True)
class Fault:
    """A planted fault."""

    file: str  # relative to the root of the tree
    old: str
    new: str
    tests: tuple[str, ...]  # files, or names of tests as pytest takes them
    place: str = ""  # of the list and its line

    def __str__(self) -> str:
        change = " ".join(f"{self.old.strip()} => {self.new.strip() or '(nothing)'}".split())
        return f"{self.place} {self.file}: {change}"


class FaultError(Exception):
    """A list that cannot be used: a text that is not found once, tests that are not there."""


def read_faults(folder: Path = FOLDER) -> list[Fault]:
    """Return the faults of all lists in a folder."""
    return [fault for path in sorted(folder.glob("*.txt")) for fault in read_list(path)]


def read_list(path: Path) -> list[Fault]:
    """Return the faults of one list.

    Raises:
        FaultError: a line that is none of the four kinds.
    """
    faults: list[Fault] = []
    file, tests, old, new, begin = "", (), [], [], 0
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], 1):
        word, _, rest = line.partition(" ")
        if word == "-":
            begin = begin or number
            old.append(rest)
        elif word == "+":
            new.append(rest)
        elif not line and old:
            faults.append(Fault(file, "\n".join(old), "\n".join(new), tests, f"{path.name}:{begin}"))
            old, new, begin = [], [], 0
        elif word == "file":
            file, tests = rest, ()
        elif word == "tests":
            tests = tuple(rest.split())
        elif line and not line.startswith("#"):
            raise FaultError(f"{path.name}:{number}: {line!r} is no line of a list")
    return faults


def planted(source: str, fault: Fault) -> str:
    """Return a file's text with a fault in it.

    Raises:
        FaultError: the text is not there exactly once, or what comes out is not Python.
    """
    count = source.count(fault.old)
    if count != 1:
        raise FaultError(f"{fault}: the text occurs {count} times")
    text = source.replace(fault.old, fault.new)
    try:
        ast.parse(text)
    except SyntaxError as error:
        raise FaultError(f"{fault}: not Python any more: {error}") from None
    return text


def problems(faults: list[Fault], root: Path) -> list[str]:
    """Return what is wrong with the faults in a tree; empty: every one can be planted and has its tests."""
    found = []
    for fault in faults:
        try:
            planted((root / fault.file).read_text(encoding="utf-8"), fault)
        except (OSError, FaultError) as error:
            found.append(str(error))
        missing = [name for name in fault.tests if not (root / name.partition("::")[0]).is_file()]
        if missing or not fault.tests:
            found.append(f"{fault}: no such tests {missing}")
    return found
