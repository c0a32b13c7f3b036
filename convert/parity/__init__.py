"""The proof that a model is one function in both frameworks: capture, compare, report."""

from .compare import Report, Row, compare

__all__ = ["Report", "Row", "compare"]
