"""Weight files: read without trusting them, loaded strictly, resized to other input sizes."""

from .lazy_array import LazyArray, WeightsFileError
from .load import described_model, load_weights, open_weights, read_weights, shown_sizes
from .resize import adapt_weights, load_adapted

__all__ = [
    "LazyArray",
    "WeightsFileError",
    "adapt_weights",
    "described_model",
    "load_adapted",
    "load_weights",
    "open_weights",
    "read_weights",
    "shown_sizes",
]
