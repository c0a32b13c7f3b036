"""Between the two frameworks: weights translated both ways, and the proof that the twins are one function."""

from .translate import paddle_to_torch, torch_to_paddle

__all__ = ["paddle_to_torch", "torch_to_paddle"]
