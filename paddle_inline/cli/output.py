"""What the commands write: tables, files, and a standard output that only they write to."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..utils.errors import FileAccessError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table


def new_table(*columns: str) -> Table:
    """Return an empty table; a column whose name starts with > is right-aligned."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for name in columns:
        table.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left")
    return table


def show(content: RenderableType, wrap: bool = True) -> None:
    """Print a table or text of rich to standard output, in colour where that is a terminal."""
    console = new_console()
    with console.capture() as captured:  # rich would answer a closed pipe by ending the process
        console.print(content, soft_wrap=not wrap)
    print(captured.get(), end="")


def new_console(stderr: bool = False) -> Console:
    """Return rich's console for standard output or the error output."""
    from rich.console import Console

    console = Console(stderr=stderr)
    if not console.is_terminal:
        console.width = 120  # a file or a pipe is as wide as the table
    return console


def write_text(path: str | Path, text: str) -> None:
    """Write a file that the user named.

    Raises:
        FileAccessError: it cannot be written.
    """
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileAccessError(f"{path} cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def stdout_to_null() -> Iterator[None]:
    """Send what the process writes to standard output, C++ libraries included, nowhere.

    For a program's main thread alone: it redirects the file descriptor of the whole process.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        ctypes.CDLL(None if os.name == "posix" else "ucrtbase").fflush(None)  # what C++ still buffers
        os.dup2(kept, 1)
        os.close(kept)
