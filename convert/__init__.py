"""Between the two frameworks: weights translated both ways, and the proof that the twins are one function."""

__all__ = ["paddle_to_torch", "torch_to_paddle"]


def __getattr__(name: str) -> object:
    # Lazy, so that recordings can be compared where neither framework is installed.
    if name in __all__:
        from . import mapping

        return getattr(mapping, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
