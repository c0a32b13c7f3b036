"""Settings on a command line: KEY VALUE or KEY=VALUE."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import UserError


def pairs_of(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return (key, value) of each setting of `--opts`, written KEY VALUE or KEY=VALUE; a value may contain `=`.

    Raises:
        UserError: a key without a value.
    """
    rest, pairs = iter(words), []
    for word in rest:
        key, equals, after = word.partition("=")
        value = after if equals else next(rest, None)
        if value is None:
            raise UserError(f"--opts takes KEY VALUE or KEY=VALUE; {word!r} has no value")
        pairs.append((key.strip(), value))
    return pairs
