"""HTML pages from jinja2 templates, every value escaped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import MissingPackageError


def require_jinja2() -> None:
    """Raise MissingPackageError if HTML pages cannot be made here."""
    try:
        import jinja2  # noqa: F401
    except ImportError:
        raise MissingPackageError(
            "HTML pages need jinja2, which is not installed: pip install jinja2"
        ) from None


def render_page(template: str | Path, **values: Any) -> str:
    """Fill in a template; what it includes lies beside it.

    Args:
        template: path of a jinja2 template.
        values: names that it may use. All are escaped, wherever they stand; a name it asks for and does not
            get is an error.

    Returns:
        The page as text.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    return "".join(render_pieces(template, **values))


def render_pieces(template: str | Path, **values: Any) -> Iterator[str]:
    """Fill in a template as `render_page` does, and return the page in pieces.

    A value that is an iterator is gone through as the pieces are taken.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    require_jinja2()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(template).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(Path(template).name).generate(values)
