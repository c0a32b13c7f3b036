"""The outcome of a comparison as files: a page for people, JSON, JUnit and arrays for programs."""

from __future__ import annotations

from pathlib import Path

from paddle_inline.utils.errors import FileAccessError
from paddle_inline.utils.paths import expand
from paddle_inline.utils.streams import ESCAPE

from ...formats.write import atomic


def write_file(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all; its folder is made.

    Raises:
        FileAccessError: it cannot be written; the message says why.
    """
    path = expand(path)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileAccessError(f"{path} cannot be written: {error.strerror}") from error
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=ESCAPE)
