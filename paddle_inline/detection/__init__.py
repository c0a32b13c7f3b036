"""Our backbones in PaddleDetection: registration, and the program `python -m paddle_inline.detection`.

Importing it loads neither Paddle nor the toolkit; what needs them is looked up when it is asked for.
"""

import importlib

# name -> the module that has it
_HOMES = {"InLineBackbone": ".backbone", "register": ".toolkit"}
__all__ = ["InLineBackbone", "register"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
