"""Messages for what a user can get wrong: the value, the rule, the way out.

Only these errors become one line and exit code 2 in a program. Everything else, a framework's own ValueError
and OSError among them, is a fault of the code or of the machine and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(ValueError):
    """What a user typed or gave cannot be used; the message names the value, the rule and the way out."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that the user named is not there."""


class FileAccessError(UserError, OSError):
    """A file or folder that the user named cannot be read or written."""


class WrongTypeError(UserError, TypeError):
    """A value of a kind that a function does not take; the message says what it takes."""


class MissingPackageError(UserError, ImportError):
    """An optional package that the user asked for is not installed; the message says how to install it."""


def short(value: object, longest: int = 80) -> str:
    """Return what a file or a user gave for a message: cut, and escaped where it cannot be printed."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= longest else f"{text[:longest]}..."
    return cut if cut.isprintable() else repr(cut)[1:-1]


def shortened(lines: Sequence[str], most: int = 40) -> list[str]:
    """The first lines of a difference, and how many more there are."""
    return [*lines[:most], *([f"  ... and {len(lines) - most} more"] if len(lines) > most else [])]


def joined(names: Sequence[str], most: int) -> str:
    """Return names as a line of a message: the first ones, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(short(name, 60) for name in names[:most]) + more


def counted(number: object, noun: str) -> str:
    """Return a number with its noun, which is given for one: 1 epoch, 2 epochs, 3 classes."""
    many = "" if str(number) == "1" else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{many}"


def unknown(kind: str, value: object, known: Iterable[str]) -> UserError:
    """Return a UserError that names the unknown value, its nearest known neighbour and all known ones."""
    known = [str(name) for name in known]
    text = str(value).strip()
    same = [
        name for name in known if name.lower() == text.lower()
    ]  # 'Mala' is nearer to rala, letter by letter
    near = same or difflib.get_close_matches(text, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return UserError(f"unknown {kind} {short(repr(value))}{hint} Known: {', '.join(known)}")
