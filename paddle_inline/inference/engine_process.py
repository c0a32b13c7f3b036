"""A Predictor's engine in a process of its own, for a process that was forked.

OpenMP's threads, and what they waited for, stay in the parent of a fork: an engine of the child can wait for them for
ever, one that the child makes itself as well. A process that starts anew has no such past.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from multiprocessing import spawn
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .predictor import Predictor

LIBRARIES = ("paddle", "openvino", "onnxruntime")
PROGRAM = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from paddle_inline.inference.engine_process import serve; serve()"
)


def needed_after_fork() -> bool:
    """Return whether a library with threads of its own is loaded, so that a forked process must not run it."""
    return any(library in sys.modules for library in LIBRARIES)


class EngineProcess:
    """Answers as an engine does, images [B, C, H, W] by logits [B, classes]; the process ends with its owner.

    Args:
        predictor: which to copy there.
    """

    def __init__(self, predictor: Predictor) -> None:
        python = spawn.get_executable()  # multiprocessing.set_executable chooses another
        self._process = subprocess.Popen(
            [python, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._send(sys.path)
        self._send(predictor)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the logits, or raise what the engine raises.

        Raises:
            RuntimeError: the process has ended.
        """
        self._send(images)
        try:
            answer = pickle.load(self._pipe("stdout"))
        except EOFError:
            raise self._ended() from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _send(self, value: Any) -> None:
        try:
            pickle.dump(value, self._pipe("stdin"))
            self._pipe("stdin").flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _pipe(self, name: str) -> IO[bytes]:
        return getattr(self._process, name)

    def _ended(self) -> RuntimeError:
        return RuntimeError(
            f"the engine's process ended with {self._process.wait()}; see what it wrote to standard error"
        )


def serve() -> None:
    """Answer the images of standard input on standard output, until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the owner decides
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print
    predictor = pickle.load(sys.stdin.buffer)
    predictor.streams = 1  # one batch comes at a time
    while True:
        try:
            images = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answers.write(_answer(predictor, images))
        answers.flush()


def _answer(predictor: Predictor, images: np.ndarray) -> bytes:
    try:
        return pickle.dumps(predictor.run(images))
    except Exception as error:
        try:
            pickle.loads(answer := pickle.dumps(error))
            return answer
        except Exception:  # what an extension raises need not cross
            return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
