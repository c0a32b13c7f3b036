"""Messages for what a user can get wrong: the value, the rule, the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def short(value: object, longest: int = 80) -> str:
    """What a file or a user gave, as a message shows it: cut, and escaped where it cannot be printed."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= longest else f"{text[:longest]}..."
    return cut if cut.isprintable() else repr(cut)[1:-1]


def unknown(kind: str, value: object, known: Iterable[str]) -> ValueError:
    """A ValueError that names the unknown value, its nearest known neighbour and all known ones."""
    known = [str(name) for name in known]
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return ValueError(f"unknown {kind} {short(repr(value))}{hint} Known: {', '.join(known)}")
