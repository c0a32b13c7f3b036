"""InLine (injective linear attention) vision transformers and SOFT, in PaddlePaddle."""

import importlib

TYPE_CHECKING = False  # what type checkers take for true; typing's own would have to be imported
if TYPE_CHECKING:
    from . import layers as layers
    from . import models as models
    from . import ops as ops
    from .hub import from_pretrained, save_pretrained
    from .inference.export import export_model
    from .inference.predictor import Predictor, read_image
    from .layers.attention import create_attention, list_attentions
    from .models import create_backbone, create_model, list_models
    from .weights import load_weights

__version__ = "0.2.0"
__all__ = [
    "Predictor",
    "__version__",
    "create_attention",
    "create_backbone",
    "create_model",
    "export_model",
    "from_pretrained",
    "list_attentions",
    "list_models",
    "load_weights",
    "read_image",
    "save_pretrained",
]

# name -> the module that has it
_HOMES = {
    "Predictor": ".inference.predictor",
    "create_attention": ".layers.attention",
    "create_backbone": ".models",
    "create_model": ".models",
    "export_model": ".inference.export",
    "from_pretrained": ".hub",
    "list_attentions": ".layers.attention",
    "list_models": ".models",
    "load_weights": ".weights",
    "read_image": ".inference.predictor",
    "save_pretrained": ".hub",
}
_FOLDERS = ("layers", "models", "ops")


def __getattr__(name: str) -> object:
    # Lazy, so that `paddle_inline.utils.environment` can prepare the environment before Paddle is loaded.
    if name in _HOMES or name in _FOLDERS:
        from .utils.environment import import_paddle

        import_paddle()  # without its messages
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name], __name__), name)
    if name in _FOLDERS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list:
    return sorted({*globals(), *__all__, *_FOLDERS})
