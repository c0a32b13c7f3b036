"""TF32, the type to which a GPU may round the factors of float32 products and convolutions.

TF32 keeps ten bits of float32's 23. NVIDIA's GPUs have it from compute capability 8 on (A100, RTX 30). By default
Paddle 2.6 uses it in products (cuBLAS) and convolutions (cuDNN), Paddle 3.3.1 and PyTorch in convolutions alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

LIBRARIES = {"products": "cublas", "convolutions": "cudnn"}


def uses_tf32() -> dict[str, bool]:
    """Return whether Paddle lets a GPU round products, and convolutions; empty where it has no such switch."""
    core = _core()
    return {
        what: bool(getattr(core, f"get_{library}_switch")())
        for what, library in LIBRARIES.items()
        if hasattr(core, f"get_{library}_switch")
    }


def allow_tf32(allowed: bool | dict[str, bool]) -> None:
    """Let a GPU round float32 in this process's products and convolutions, or not; nothing where Paddle has no switch.

    Args:
        allowed: for both, or for each as `uses_tf32` returns them.
    """
    for what in uses_tf32():
        value = allowed if isinstance(allowed, bool) else allowed[what]
        getattr(_core(), f"set_{LIBRARIES[what]}_switch")(value)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Keep all bits of float32 within the block."""
    before = uses_tf32()
    allow_tf32(False)
    try:
        yield
    finally:
        allow_tf32(before)


def describe_tf32() -> str:
    """Return a line for the log, with the environment variable that stands above the switches."""
    states = [f"{what} {value}" for what, value in uses_tf32().items()]
    override = os.environ.get("NVIDIA_TF32_OVERRIDE")
    if override is not None:
        states.append(f"NVIDIA_TF32_OVERRIDE={override}{' switches both off' if override == '0' else ''}")
    return f"TF32 for float32, where the GPU has it: {', '.join(states) or 'unknown'}"


def _core():
    import paddle

    return paddle.base.core
