"""The files of settings that come with the package: list them, or copy one out to change it."""

from __future__ import annotations

import argparse
import fnmatch
import os
from pathlib import Path

from ..config import files
from ..utils.errors import UserError, joined
from .output import new_table, show, write_text

EXPLANATION = """\
`python -m paddle_inline train --cfg NAME` trains by one of them; what begins with detection/ or segmentation/ is for
`python -m paddle_inline.detection` and `python -m paddle_inline.segmentation`. `configs NAME --copy FILE` copies one to
be changed; `base: NAME` in a file of your own takes from one what your file does not say."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `configs`."""
    parser.add_argument(
        "pattern", nargs="?", default="*", help="only files of these names, as a shell's: 'inline_*', 'zoo/*'"
    )
    parser.add_argument(
        "--copy", metavar="FILE", help="copy the one file to this place, a new file or a folder"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the table of the files, or copy one."""
    from rich.markup import escape

    names = files.names()
    exact = files.packaged(arguments.pattern)
    chosen = [name for name in names if fnmatch.fnmatchcase(name, arguments.pattern)]
    if exact:
        chosen = [exact.relative_to(files.folder()).with_suffix("").as_posix()]
    if not chosen:
        raise UserError(
            f"no file of settings is called {arguments.pattern!r}{files.nearest(arguments.pattern)}"
        )
    if arguments.copy is not None:
        copy(chosen, arguments.pattern, arguments.copy)
        return
    table = new_table("name", "what it is")
    for name in chosen:
        table.add_row(escape(name), escape(purpose(name)))
    show(table)
    print(EXPLANATION)


def copy(names: list[str], pattern: str, target: str) -> None:
    """Copy one file out of the package.

    Args:
        names: those that were asked for; one.
        pattern: what was typed for them.
        target: a new file, or a folder.

    Raises:
        UserError: there are several names, or the file is there.
    """
    if len(names) != 1:
        raise UserError(f"--copy takes one file, and {pattern!r} names {len(names)}: {joined(names, 3)}")
    source = files.packaged(names[0])
    assert source is not None  # it was listed
    place = Path(target, source.name) if os.path.isdir(target) or target.endswith(os.sep) else Path(target)
    if os.path.lexists(place):
        raise UserError(
            f"{place} is there already, and nothing is written over; name another file, or remove it"
        )
    write_text(place, source.read_text(encoding="utf-8"))
    print(place)


def purpose(name: str) -> str:
    """Return what the head of a file says it is, to the end of a sentence at the end of a line."""
    path = files.packaged(name)
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path else ():
        text = line.lstrip("# ").strip()
        if not line.startswith("#") or not text or (words and words[-1].endswith((".", ":"))):
            break
        words += text.split()
    return " ".join(words).removeprefix("Purpose: ").removesuffix(":")
