"""When one of several ranks fails: its cause on disk and on the terminal, and no rank left waiting.

The launcher shows rank 0 alone; a rank that dies while the others wait for it in a collective
operation would otherwise end a job long after, or never, with its reason in a file of its own.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS = 0.5


@contextmanager
def reported(folder, rank: int, world: int):
    """Inside, a failure is written to `folder`/errors/rankN.txt, and rank 0 watches for others'.

    Within about a second of another rank's report, rank 0 prints it and ends with exit code 1.
    """
    errors = Path(folder) / "errors"
    if world == 1:
        yield
        return
    started = time.time()
    done = threading.Event()
    if rank == 0:
        threading.Thread(target=_watch, args=(errors, started, done), daemon=True).start()
    try:
        yield
    except BaseException as error:
        _write(errors / f"rank{rank}.txt", rank, error)
        raise
    finally:
        done.set()


def _write(path, rank, error):
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(f"rank {rank} failed: {error}\n\n{text}", encoding="utf-8")
        partial.replace(path)
    except OSError:
        pass  # the launcher still has the process's own output


def _watch(errors, started, done):
    while not done.wait(POLL_SECONDS):
        for path in sorted(errors.glob("rank*.txt")):
            if path.stat().st_mtime >= started - 1:
                print(path.read_text(encoding="utf-8"), file=sys.stderr)
                print(f"the job ends: see {path}", file=sys.stderr, flush=True)
                sys.stdout.flush()
                os._exit(1)
