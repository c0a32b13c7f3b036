"""The model families. Every variant is also a function: `models.inline_deit_tiny(num_classes=10)`."""

from functools import partial

from .factory import create_model, list_models

globals().update({name: partial(create_model, name) for name in list_models()})
__all__ = ["create_model", "list_models", *list_models()]
