"""Paths as users write them: ~ is their home folder."""

from __future__ import annotations

import os
import re
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
