"""Messages for what a user can get wrong: the value, the rule, the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(kind: str, value: object, known: Iterable[str]) -> ValueError:
    """A ValueError that names the unknown value, its nearest known neighbour and all known ones."""
    known = [str(name) for name in known]
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"unknown {kind} {value!r}{hint} Known: {', '.join(known)}")
