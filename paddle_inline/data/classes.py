"""The names of classes, class 0 first."""

from __future__ import annotations

import json
from pathlib import Path

from ..utils.errors import UserError
from .text import read_text


def numbered_classes(count: int) -> tuple[str, ...]:
    """Return the names of classes that have none: their numbers."""
    return tuple(map(str, range(count)))


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Read class names from a file, one a line or a JSON list; empty lines do not count.

    Raises:
        MissingFileError, FileAccessError: there is no such file, or it cannot be read.
        UserError: it is not UTF-8, or begins like a JSON list and is not one of strings.
    """
    text = read_text(path)
    if not text.lstrip().startswith("["):
        return tuple(line.strip() for line in text.split("\n") if line.strip())
    try:
        names = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} holds neither class names, one a line, nor a JSON list: {error}") from None
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} must list the class names as strings")
    return tuple(names)


def class_names(path: str | Path, count: int) -> tuple[str, ...]:
    """Return the names of a data set's `count` classes: those of a file, or the numbers where there is none.

    Raises:
        UserError: the file names fewer classes; otherwise as `read_class_names`.
    """
    if not Path(path).is_file():
        return numbered_classes(count)
    names = read_class_names(path)
    if len(names) < count:
        raise UserError(f"{path} names {len(names)} classes; the data set has class {count - 1}")
    return names
