"""The toolkit's modules, imported when they are needed, without its types."""

from __future__ import annotations

import importlib
from typing import Any


def ppdet(module: str) -> Any:
    """Return a module of PaddleDetection by its name inside the package, such as `core.workspace`."""
    return importlib.import_module(f"ppdet.{module}")
