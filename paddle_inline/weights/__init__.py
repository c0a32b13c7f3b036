"""Weight files: read without trusting them, loaded strictly, resized to other input sizes."""

from .lazy_array import LazyArray, WeightsFileError
from .load import load_weights, open_weights, read_weights
from .resize import adapt_weights, load_adapted, load_fitted
from .told import described_model, shown_sizes, stated_model, tensor_shapes

__all__ = [
    "LazyArray",
    "WeightsFileError",
    "adapt_weights",
    "described_model",
    "load_adapted",
    "load_fitted",
    "load_weights",
    "open_weights",
    "read_weights",
    "shown_sizes",
    "stated_model",
    "tensor_shapes",
]
