"""Every setting of the training program: default, what it takes, meaning."""

from __future__ import annotations

import argparse

from ..utils.errors import UserError
from .output import new_table, show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `settings`."""
    parser.add_argument("text", nargs="?", default="", help="only settings whose key holds this text")
    parser.add_argument("--markdown", action="store_true", help="print the page of the documentation")


def run(arguments: argparse.Namespace) -> None:
    """Print the table of all settings."""
    from rich.markup import escape

    from ..config.reference import as_markdown, reference
    from ..config.schema import known_settings

    if arguments.markdown:
        print(as_markdown(), end="")
        return
    keys = [key for key in known_settings() if arguments.text.lower() in key]
    if not keys:
        raise UserError(f"no setting's key holds {arguments.text!r}; `settings` without a text lists all")
    table = new_table("key", "default", "takes", "meaning")
    for row in reference(keys):
        table.add_row(*(escape(text) for text in (row.key, row.default, row.takes, row.meaning)))
    show(table)
