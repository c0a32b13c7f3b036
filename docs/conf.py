"""Sphinx: `make docs`, or `python -m sphinx -W --keep-going docs build/docs`. Needs no network, and neither
does the built site: formulas become MathML, which browsers draw themselves."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import latex2mathml.converter
from docutils import nodes

sys.path.insert(0, str(Path(__file__).parents[1]))

import paddle_inline
from paddle_inline.utils.environment import import_paddle

import_paddle()  # without its messages

project = "paddle-inline"
author = "the paddle-inline authors"
html_show_copyright = False
release = paddle_inline.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "none"  # shapes and units say more
html_theme = "furo"
html_title = f"paddle-inline {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_math_renderer = "mathml"
autodoc_inherit_docstrings = False  # Paddle's own on `forward` say nothing of a model
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False


def show_math(self: Any, node: Any) -> None:
    """Write a formula as MathML."""
    display = "inline" if node.tagname == "math" else "block"
    html = latex2mathml.converter.convert(node.astext(), display=display)
    if display == "block":
        html = f'<div class="math">{html}</div>'
    self.body.append(html)
    raise nodes.SkipNode


def from_markdown(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape what reStructuredText would read as markup: in the docstrings `code` and bare * | mean themselves."""
    for i, line in enumerate(lines):
        if re.match(r"\s*:\w+.*:|\.\. ", line):  # what napoleon has made of Args and Returns
            head, colon, rest = re.match(r"(\s*(?::[^:]*:|\.\. [\w-]+::))(\s|$)?(.*)", line, re.S).groups("")
            lines[i] = head + colon + _literal(rest)
        else:
            lines[i] = _literal(line)


def _literal(text: str) -> str:
    parts = re.split(r"(`+[^`]+`+|\*\*[^*`]+\*\*(?= \())", text)
    return "".join(
        (f"``{part.strip('`')}``" if part.startswith("`") else part)
        if i % 2
        else re.sub(r"([*|_]+)(?=\W|$)|(?<!\w)([*|]+)", lambda m: "".join("\\" + c for c in m[0]), part)
        for i, part in enumerate(parts)
    )


def setup(app: Any) -> None:
    app.add_html_math_renderer("mathml", (show_math, None), (show_math, None))
    app.connect("autodoc-process-docstring", from_markdown, priority=900)
