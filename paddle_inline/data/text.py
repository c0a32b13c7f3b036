"""Text files that a user gives: lists of images, class names."""

from __future__ import annotations

from pathlib import Path

from ..utils.errors import FileAccessError, MissingFileError, UserError


def read_text(path: str | Path) -> str:
    """Read a text file in UTF-8.

    Raises:
        MissingFileError: there is no such file.
        FileAccessError: it cannot be read.
        UserError: it is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingFileError(f"no file {path}") from None
    except OSError as error:
        raise FileAccessError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8 ({error}); save it as UTF-8") from None
