"""The proof that a model is one function in both frameworks: capture, compare, report."""

import importlib

__all__ = ["Report", "Row", "compare", "compare_recordings"]

_HOME = {
    "Report": ".result",
    "Row": ".result",
    "compare_recordings": ".comparison",
    "compare": ".run",
}


def __getattr__(name: str) -> object:
    # Lazy, so that one framework, or numpy alone, is enough for what needs no more.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
