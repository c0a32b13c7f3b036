"""Weight files: read without trusting them, loaded strictly, resized to other input sizes."""

from .load import described_model, load_weights

__all__ = ["described_model", "load_weights"]
