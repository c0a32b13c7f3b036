"""Jobs in processes of their own, as many at once as there are cores to give each its own."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

from ..utils.cores import available_cores

Job = tuple[Any, ...]


def run_jobs(function: Callable[..., Any], jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Any]]:
    """Call a function with the arguments of every job and yield (job, result) as they are done.

    Args:
        function: of a module, so that another process finds it.
        jobs: tuples of arguments.
        workers: processes; 1: all is done in this one, job after job. Each has its share of the cores.

    Raises:
        what `function` raises; the other jobs that run are ended.
    """
    if min(workers, len(jobs)) <= 1:
        for job in jobs:
            yield job, function(*job)
        return
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    with _threads(max(1, available_cores() // workers)):
        pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(os.getpid(),))
        waiting = {pool.submit(_call, function.__module__, function.__name__, job): job for job in jobs}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BaseException:  # also where whoever takes the results goes no further
            for future in waiting:
                future.cancel()
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Let processes that are started meanwhile use so many threads each; Paddle reads the variable as it loads."""
    kept = os.environ.get("OMP_NUM_THREADS", "")
    number = min(number, int(kept)) if kept.isdecimal() and int(kept) else number
    os.environ["OMP_NUM_THREADS"] = str(number)
    try:
        yield
    finally:
        os.environ["OMP_NUM_THREADS"] = kept
        if not kept:
            del os.environ["OMP_NUM_THREADS"]


def _begin(parent: int, interval: float = 2.0) -> None:
    """Prepare a worker: it ends when its parent was killed, which its queue does not tell it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(interval)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _call(module: str, name: str, job: Job) -> Any:
    """Call a function by its name, after Paddle was imported without its messages where this package needs it."""
    if module.startswith(__package__):
        from ..utils.environment import import_paddle, tune_cpu

        tune_cpu()
        import_paddle()
    return getattr(importlib.import_module(module), name)(*job)
