"""Compatibility of toolkits that are older than the Paddle they run on.

A mend is a row: its reason, a probe that looks for the fault in this very process, and a change in memory. It is made
only where the probe finds the fault, so that a toolkit without it stays as it is, and no file is edited.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mend:
    """One fault of a toolkit on this Paddle.

    Attributes:
        name: for the log.
        reason: what fails without it, and since when.
        faulty: the probe; True where the fault is there. It may import the toolkit, and changes nothing.
        apply: puts it right in memory.
    """

    name: str
    reason: str
    faulty: Callable[[], bool]
    apply: Callable[[], None]


def apply_mends(mends: Iterable[Mend]) -> list[str]:
    """Apply the mends whose fault is there.

    Returns:
        `name: reason` of each that was applied; nothing the second time.

    Raises:
        RuntimeError: the fault is still there: the table knows another version of the toolkit.
    """
    applied = []
    for mend in mends:
        if mend.faulty():
            mend.apply()
            if mend.faulty():
                raise RuntimeError(f"the mend {mend.name!r} does not take ({mend.reason})")
            applied.append(f"{mend.name}: {mend.reason}")
    return applied


def fails(call: Callable[[], Any], error: type[Exception] = Exception) -> bool:
    """Return whether a call raises an error of this kind, for probes."""
    try:
        call()
    except error:
        return True
    return False


class Shadow(types.ModuleType):
    """A module with some functions of our own, everything else looked up in the original when it is asked for.

    It takes the place of the name `paddle` in one module of a toolkit, so that nobody else's Paddle changes.
    """

    def __init__(self, original: types.ModuleType, own: Mapping[str, Any]) -> None:
        super().__init__(original.__name__, original.__doc__)
        self.__dict__.update(own)
        self.__dict__["original"] = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["original"], name)


def shadow(module: types.ModuleType, name: str, **own: Any) -> None:
    """Give a toolkit's module its own functions under a name that it has imported, such as `paddle`.

    Args:
        module: of the toolkit.
        name: a module that it holds under that name.
        own: the functions that it shall find there; those of an earlier call stay.
    """
    held = getattr(module, name)
    if isinstance(held, Shadow):
        held.__dict__.update(own)
    else:
        setattr(module, name, Shadow(held, own))
