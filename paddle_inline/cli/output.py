"""What the commands write: tables, files, and a standard output that only they write to."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.errors import FileAccessError, UserError
from ..utils.paths import expand
from ..utils.streams import ESCAPE

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table


SIZE_HELP = "pixels: the side of a square, or height and width; default: the model's own"


def size_of(sides: Sequence[int] | None) -> int | tuple[int, int] | None:
    """Return what `--img-size` was given, one side or height and width, as `create_model` takes it; None of None.

    Raises:
        UserError: there are more numbers.
    """
    if sides is None:
        return None
    if len(sides) == 1:
        return sides[0]
    if len(sides) != 2:
        raise UserError(f"--img-size takes one side or height and width, not {len(sides)} numbers")
    return sides[0], sides[1]


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


class TextFile:
    """A text file that the user named, written piece by piece: there when all is written, or not at all.

    Characters that UTF-8 does not have are escaped.

    Raises, as it is opened, written and closed:
        FileAccessError: it cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = expand(path)
        self._open = contextlib.ExitStack()

    def __enter__(self) -> TextFile:
        with _named(self.path):
            from ..weights.atomic import atomic_write  # with numpy, which `doctor` does without

            if Path(self.path).is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            temporary = self._open.enter_context(atomic_write(self.path, follow_links=True))
            self._file = self._open.enter_context(open(temporary, "w", encoding="utf-8", errors=ESCAPE))
        return self

    def write(self, text: str) -> None:
        """Write a piece."""
        with _named(self.path):
            self._file.write(text)

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            with _named(self.path):
                self._open.close()
        else:
            with contextlib.suppress(OSError):  # the first error counts
                self._open.__exit__(*error)


@contextlib.contextmanager
def _named(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileAccessError(f"{path} cannot be written: {error.strerror}") from None


def write_text(path: str | Path, text: str) -> None:
    """Write a file that the user named, whole or not at all.

    Raises:
        FileAccessError: it cannot be written.
    """
    with TextFile(path) as file:
        file.write(text)


class Printer:
    """Writes to standard output; its reader, such as `head`, may close it.

    Args:
        goes_on: whether the program then has other work to do, and goes on without a word.

    Raises, as it is written to:
        BrokenPipeError: the reader has closed it, and there is nothing else to do.
    """

    def __init__(self, goes_on: bool) -> None:
        self.goes_on = goes_on

    def write(self, text: str) -> None:
        """Write and flush a piece."""
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            if not self.goes_on:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def stdout_to_null() -> Iterator[None]:
    """Send what the process writes to standard output, C++ libraries included, nowhere.

    For a program's main thread alone: it redirects the file descriptor of the whole process.
    """
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # it is closed
        yield
        return
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        ctypes.CDLL(None if os.name == "posix" else "ucrtbase").fflush(None)  # what C++ still buffers
        os.dup2(kept, 1)
        os.close(kept)
