"""A lock on a run's folder: two runs never write into one."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ..utils.errors import FileAccessError, UserError
from ..utils.paths import expand

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Hold the lock of a run's folder inside this context.

    It is the file `.NAME.lock` beside the folder, with this process's id and host. The system gives it free when
    a process ends, however it ends; where a file system has no locks, a process that is no longer there does.

    Yields:
        Who had left the lock behind, as "process 12 on HOST"; empty: nobody.

    Raises:
        UserError: if another run holds it, with its process's id and host.
        FileAccessError: if it cannot be written.
    """
    folder = expand(folder)
    path = Path(folder).parent / f".{Path(folder).name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _open(path)
    except OSError as error:
        what = (
            f"the lock {path} is a link: remove it" if path.is_symlink() else "choose another with --output"
        )
        raise FileAccessError(
            f"the output folder {folder} cannot be written ({error.strerror}); {what}"
        ) from None
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, file)
        owner = _owner(file)
        taken = _take(file, owner)
        if not taken and owner and owner[1] == socket.gethostname() and not _alive(owner[0]):
            path.unlink()  # the run was killed, and a data worker that it left behind still has its lock
            file = _open(path)
            stack.callback(os.close, file)
            taken = _take(file, None)
        if not taken:
            who = _in_words(owner) or "another process"
            raise UserError(
                f"{folder} is being written by {who}: wait for it, end it, or give this run another --tag or "
                f"--output (if no such run is there, remove {path})"
            )
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, f"{os.getpid()} {socket.gethostname()}\n".encode())
        try:
            yield _in_words(owner)
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def _open(path):
    flags = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)  # a link's target is not to be written
    return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)


def _take(file, owner):
    """Try to lock an open file. Where the system cannot, its owner's process decides."""
    try:
        if fcntl is None:
            raise OSError
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        return owner is None or (owner[1] == socket.gethostname() and not _alive(owner[0]))
    return os.fstat(file).st_nlink > 0  # else its owner ends at this moment


def _owner(file):
    """Read (process id, host) of a lock; None where it has none."""
    number, _, host = os.read(file, 1000).decode("utf-8", "replace").strip().partition(" ")
    return (int(number), host) if number.isdecimal() else None


def _alive(number):
    if os.name == "nt":
        return True  # a signal of 0 would end the process there
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _in_words(owner):
    return f"process {owner[0]} on {owner[1]}" if owner else ""
