"""The PyTorch reference of paddle_inline: the same models, file for file, to be believed."""

from . import models
from .hub import from_pretrained, save_pretrained
from .layers.attention import create_attention, list_attentions
from .models import create_backbone, create_model, list_models
from .weights import load_weights

__version__ = "0.2.0"
__all__ = [
    "__version__",
    "create_attention",
    "create_backbone",
    "create_model",
    "from_pretrained",
    "list_attentions",
    "list_models",
    "load_weights",
    "models",
    "save_pretrained",
]
