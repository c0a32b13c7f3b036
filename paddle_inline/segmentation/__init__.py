"""Segmentation with PaddleSeg: UPerNet and Semantic FPN on every backbone of ours.

    python -m paddle_inline.segmentation train --cfg configs/segmentation/X.yml -o key=value

Importing this package loads neither Paddle nor the toolkit. `register()` makes backbones and heads known to PaddleSeg
in a program of one's own.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # what type checkers take for true; typing's own would have to be imported
if TYPE_CHECKING:
    from .export import load_exported
    from .heads import SemanticFPN, UperNet
    from .registry import register
    from .scores import Scores

__all__ = ["Scores", "SemanticFPN", "UperNet", "load_exported", "register"]

_HOMES = {
    "Scores": ".scores",
    "SemanticFPN": ".heads",
    "UperNet": ".heads",
    "load_exported": ".export",
    "register": ".registry",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list:
    return sorted({*globals(), *__all__})
