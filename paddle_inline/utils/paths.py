"""Paths as users write them: ~ is their home folder."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from .errors import UserError

P = TypeVar("P")


def expand(path: P) -> P:
    """Return a path whose ~ or ~user in front is the home folder, of the kind it was given as.

    Anything else than a text or path, and what does not begin with ~, is returned as it is; so is a file's name
    that begins so, such as ~draft.txt, where there is no such user, and a Path that begins with what is there.

    Raises:
        UserError: the home folder is not known.
    """
    given: Any = path
    text = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text.startswith("~"):
        return path
    first = re.split(r"[/\\]" if os.name == "nt" else "/", text)[0]
    if not isinstance(given, str) and os.path.lexists(first):  # Path drops the ./ of ./~/a
        return path
    home = "" if first == "~" and os.environ.get("HOME") == "" else os.path.expanduser(first)
    if home not in ("", first):
        found = home + text[len(first) :]
        return type(given)(found)
    if first == "~":
        raise UserError(
            f"{text}: ~ is the home folder, but HOME is not set: write the path out (or ./{text})"
        )
    if re.fullmatch(r"~[a-z_][a-z0-9_-]*", first) and not os.path.lexists(first):
        raise UserError(f"{text}: there is no user {first[1:]}: write the path out (or ./{text})")
    return path


def home_folder() -> Path | None:
    """Return the user's home folder; None where it is not known."""
    try:
        return expand(Path("~"))
    except UserError:
        return None


@contextlib.contextmanager
def home_for_libraries() -> Iterator[None]:
    """Let libraries keep in the system's temporary folder what they keep in ~, where there is no home folder.

    VisualDL as it is imported and Paddle as it traces a model would make a folder called ~ here.
    """
    if home_folder() is not None:
        yield
        return
    before = os.environ.get("HOME")
    os.environ["HOME"] = tempfile.gettempdir()
    try:
        yield
    finally:
        if before is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = before


def expand_all(values: Any, names: Iterable[str], empty: bool = True) -> None:
    """Expand the attributes of these names, texts or lists of texts, where they are there, in place.

    Args:
        empty: whether a text may be empty, as in settings, where that is none; a Path of it is the working directory.

    Raises:
        UserError: as `expand`; for a text that is empty and may not be.
    """
    for name in names:
        value = getattr(values, name, None)
        if value == "" and not empty:
            raise UserError(
                f"{name} is an empty path: give one, or leave it out (is a variable of the shell not set?)"
            )
        if isinstance(value, list):
            setattr(values, name, [expand(each) for each in value])
        elif isinstance(value, str):
            setattr(values, name, expand(value))
