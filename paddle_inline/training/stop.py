"""Ending a run before its last epoch, in good order."""

from __future__ import annotations

import signal


class Stop:
    """Whether this process was asked to stop (SIGTERM), or has done its share.

    Args:
        progress: the run's `Progress`.
        after: epochs after which the run is to end for now; None: none.
    """

    def __init__(self, progress, after: int | None):
        self.progress, self.after, self.asked = progress, after, False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number, frame):
        self.asked = True

    def __call__(self) -> bool:
        return self.asked or (self.after is not None and self.progress.epoch >= self.after)
