"""bfloat16, which numpy does not know: its bits are held in uint16, as Paddle itself stores them."""

from __future__ import annotations

import numpy as np


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return the float32 numbers of uint16 bits, exactly: bfloat16 is the upper half of a float32."""
    return (bits.astype("uint32") << 16).view("float32")


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Return the uint16 bits of real numbers, rounded to nearest, ties to even, by way of float32."""
    bits = np.ascontiguousarray(values, "float32").view("uint32")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("uint16")


def as_float64(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return numbers of a dtype, bfloat16 in its uint16 form, as float64."""
    return (from_bfloat16(values) if dtype == "bfloat16" else values).astype("float64")


def from_float64(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return the inverse of `as_float64`, rounded to nearest, ties to even."""
    return to_bfloat16(values) if dtype == "bfloat16" else values.astype(dtype)
