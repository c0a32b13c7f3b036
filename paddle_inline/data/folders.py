"""Folders of images: what is in them, and lists of it that are kept between runs."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from ..utils.errors import FileAccessError, MissingFileError
from ..weights.atomic import atomic_write
from .pictures import SUFFIXES, is_picture


def scan(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, by name.

    Raises:
        MissingFileError: there is no such folder.
        FileAccessError: it is no folder, or not to be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        raise MissingFileError(f"no such folder {folder}") from None
    except OSError as error:
        raise FileAccessError(f"{folder} cannot be listed: {error.strerror}") from None


def subfolders(folder: str | Path) -> list[str]:
    """Return the names of the folders in a folder, links to folders among them, in alphabetical order."""
    return [entry.name for entry in scan(folder) if entry.is_dir()]


def pictures_in(folder: str | Path, recursive: bool = False) -> list[str]:
    """Return the image files of a folder, by their names relative to it, in alphabetical order of their parts.

    Args:
        recursive: also those in the folders below; links to folders are not followed, as they may lead back.
    """
    found = []
    for entry in scan(folder):
        if entry.is_dir(follow_symlinks=False):
            if recursive:
                found += [f"{entry.name}/{name}" for name in pictures_in(entry.path, recursive)]
        elif is_picture(entry.name) and not (entry.is_symlink() and entry.is_dir()):
            found.append(entry.name)
    return found


def find_images(patterns: Iterable[str | Path]) -> list[Path]:
    """Return the image files that files, folders (and what is below them) and glob patterns name, each once.

    Raises:
        MissingFileError: a pattern names none.
    """
    found: list[Path] = []
    for pattern in map(str, patterns):
        path = Path(pattern)
        if path.is_dir():
            files = [path / name for name in pictures_in(path, recursive=True)]
        else:
            named = [pattern] if path.is_file() else sorted(glob.glob(pattern, recursive=True))
            files = [file for file in map(Path, named) if file.is_file()]
        if not files:
            raise MissingFileError(f"no image {pattern}; folders are searched for {', '.join(SUFFIXES)}")
        found += files
    return list(dict.fromkeys(found))


def index_file(root: str | Path) -> Path:
    """Return where the list of a data set's images is kept between runs: in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    name = hashlib.sha256(os.path.realpath(root).encode()).hexdigest()[:16]
    return Path(cache) / "paddle_inline" / f"{name}.json"


def keep_index(index: str | Path | None, stamp: list, make: Callable[[], list[tuple]]) -> list[tuple]:
    """Return a list of images, from the file that keeps it or made anew.

    Args:
        index: the file; None keeps none. One that cannot be read or written is done without.
        stamp: what the list was made of; another stamp has it made anew. JSON holds it, as it does the list.
        make: makes the list.
    """
    if index is None:
        return make()
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(Path(index).read_text(encoding="utf-8"))
        if kept["stamp"] == stamp:
            return [tuple(item) for item in kept["items"]]
    items = make()
    with contextlib.suppress(OSError):
        Path(index).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(index) as temporary:
            temporary.write_text(json.dumps({"stamp": stamp, "items": items}), encoding="utf-8")
    return items
