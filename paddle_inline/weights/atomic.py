"""Files that are whole or not there, and their SHA-256."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..utils.errors import FileAccessError
from ..utils.paths import expand

LONGEST_NAME = 255  # bytes, on the usual file systems


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], follow_links: bool = False) -> Iterator[Path]:
    """Write a file beside its place and move it there when it is complete and on disk.

    A process that is killed at any moment leaves the earlier file or the new one, never a part of one. A pipe or
    a device is written itself.

    Args:
        path: of the file; its folder must exist.
        follow_links: write the file that a link names and leave the link; otherwise the link is replaced, and
            what it names stays as it is.

    Yields:
        A temporary path in the same folder, with the same suffix, to write to. It replaces `path` if the block
        ends well and is removed if it raises.

    Raises:
        OSError: if the file cannot be written, flushed or renamed.
    """
    path = Path(expand(path))
    if is_stream(path, follow_links):
        yield path
        return
    if follow_links:
        path = Path(os.path.realpath(path))
    temporary = path.with_name(_beside(path))
    try:
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error counts
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """Make a folder, and in it a hidden one whose files come into their places when all are complete.

    Yields:
        The hidden folder, empty. It is removed in the end, and `folder` too, if it was made here and stayed empty.

    Raises:
        FileAccessError: they cannot be made.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".work-", dir=folder))
    except OSError as error:
        raise FileAccessError(f"{folder} cannot be written: {error.strerror}") from None
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if made and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def move_files(work: Path, folder: Path, last: str) -> None:
    """Move the files of a folder into another one, over those of their names; the file called `last` in the end."""
    for path in sorted(work.iterdir(), key=lambda path: path.name == last):
        os.replace(path, folder / path.name)


def is_stream(path: str | os.PathLike[str], follow_links: bool = True) -> bool:
    """Return whether a path is a pipe, a device or an open stream, or a link to one where links are followed."""
    path = Path(path)
    if os.path.abspath(path).startswith(("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")):
        return True
    if path.is_symlink() and not follow_links:
        return False
    return path.exists() and not path.is_file() and not path.is_dir()


def _beside(path: Path) -> str:
    """Return the name of the temporary file, no longer than names can be."""
    stem = path.stem
    while stem and len(os.fsencode(f".{stem}.{os.getpid()}{path.suffix}")) > LONGEST_NAME:
        stem = stem[:-1]
    return f".{stem}.{os.getpid()}{path.suffix}"


def flush_to_disk(path: str | os.PathLike[str]) -> None:
    """Flush a file's contents to disk before anything that follows.

    Raises:
        OSError: if they cannot be written, as on a full disk.
    """
    with open(path, "r+b" if os.name == "nt" else "rb") as file:  # Windows flushes what can be written
        os.fsync(file.fileno())


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Flush a folder's entries to disk, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
