"""When a rank fails: its traceback on disk and on the terminal, and no rank left waiting.

The launcher shows rank 0 alone; a rank that dies while the others wait for it in a collective operation would
otherwise end a job long after, or never, with its reason in a file of its own.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..utils.errors import UserError
from ..utils.streams import ESCAPE

POLL_SECONDS = 0.5
OUT_OF_MEMORY = (
    "hint: out of memory. Try a smaller data.batch_size with more train.accumulation_steps (the same images "
    "per step), --use-checkpoint (recompute activations), or --amp on a GPU"
)
OF_A_DEVICE = ("ResourceExhausted", "out of memory", "CUDA_ERROR_OUT_OF_MEMORY", "ALLOC_FAILED")


@contextmanager
def reported(folder: str | os.PathLike[str], rank: int, world: int) -> Iterator[None]:
    """Write a failure inside to `folder`/errors/rankN.txt and raise it again.

    Of several ranks, rank 0 watches for the others' files: within about a second of one it prints it and ends
    with exit code 1. On one device, what the user got wrong (`UserError`) and an interruption write no file.
    """
    errors = Path(folder) / "errors"
    started, done = time.time(), threading.Event()
    if rank == 0 and world > 1:
        threading.Thread(target=_watch, args=(errors, started, done), daemon=True).start()
    try:
        yield
    except BaseException as error:
        if world > 1 or (isinstance(error, Exception) and not isinstance(error, UserError)):
            _write(errors / f"rank{rank}.txt", rank, error)
        raise
    finally:
        done.set()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device or the host has no memory left."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign.lower() in text for sign in OF_A_DEVICE)


def _write(path, rank, error):
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    hint = f"{OUT_OF_MEMORY}\n" if is_out_of_memory(error) else ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(f"rank {rank} failed: {error}\n\n{text}{hint}", encoding="utf-8", errors=ESCAPE)
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
