"""InLine (injective linear attention) vision transformers and SOFT, in PaddlePaddle."""

import importlib

__version__ = "0.1.0"
__all__ = ["__version__", "create_model", "list_models", "load_weights"]

_HOME = {"create_model": ".models", "list_models": ".models", "load_weights": ".weights"}


def __getattr__(name):
    # Lazy, so that `paddle_inline.utils.environment` can prepare the environment before Paddle is loaded.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name], __name__), name)
    if name in ("models", "ops", "layers"):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
