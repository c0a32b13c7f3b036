"""Names and messages on streams of any encoding: what a stream cannot show is escaped, nothing raises.

File names are bytes; Python keeps those that are no UTF-8 as lone surrogates, which no encoding takes.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from typing import Any

ESCAPE = "backslashreplace"  # the `errors` of files and streams that are written
_UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # control characters, lone surrogates, line and paragraph separators
_TURNS = re.compile(
    "[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)  # would change the order of what follows


def readable(text: object) -> str:
    """Return a name as text: of UTF-8 that a system with another encoding has not understood, its letters."""
    name = str(text)
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:  # it is something else
        return name


def escaped(text: object) -> str:
    r"""Return a name as it is shown on one line: bytes that are no UTF-8 and control characters as \udc80, \n ..."""
    return "".join(
        repr(letter)[1:-1] if unicodedata.category(letter) in _UNSEEN or _TURNS.match(letter) else letter
        for letter in readable(text)
    )


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel or was started by one, whose cells keep all that a bar overwrites."""
    backend = os.environ.get("MPLBACKEND", "")
    return "JPY_PARENT_PID" in os.environ or backend.startswith(
        ("module://matplotlib_inline", "module://ipykernel")
    )


@contextlib.contextmanager
def forgiving_streams() -> Iterator[None]:
    """Let the process's output streams escape what their encoding lacks, in place of raising, while this lasts.

    What is written to a stream that is closed goes nowhere.
    For programs: a library leaves the streams alone.
    """
    changed = []
    closed = [name for name in ("stdout", "stderr") if getattr(sys, name) is None]
    for name in closed:  # by the shell's >&-, or without a console
        setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        before = getattr(stream, "errors", None)
        if before not in (None, ESCAPE) and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ESCAPE)
            changed.append((stream, before))
    try:
        yield
    finally:
        for stream, before in changed:
            with contextlib.suppress(ValueError, OSError):  # closed meanwhile, or its reader is gone
                stream.reconfigure(errors=before)
        for name in closed:
            getattr(sys, name).close()
            setattr(sys, name, None)


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """End what is done inside, and raise nothing, where the reader of standard output, such as `head`, closes it."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Print what is said to a user by a warning as one line, `note: ...`, while this lasts; others as ever."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_note(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if category is UserWarning:
                print(f"note: {message}", file=sys.stderr)
            else:
                show(message, category, *where, **more)

        warnings.showwarning = show_note
        yield
