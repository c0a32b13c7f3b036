"""Pages from templates: what a value holds stays text, and what a template lacks is an error."""

import sys

import jinja2
import pytest

from paddle_inline.utils.errors import MissingPackageError
from paddle_inline.utils.html import render_page


def write(folder, text, name="page.html"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_every_value_is_escaped_and_what_is_included_is_not(tmp_path):
    write(tmp_path, "a > b {color: red}", "page.css")
    template = write(tmp_path, '<style>{% include "page.css" %}</style><i title="{{ x }}">{{ x }}</i>')
    page = render_page(template, x="<b>\"é'&")
    value = "&lt;b&gt;&#34;é&#39;&amp;"
    assert page == f'<style>a > b {{color: red}}</style><i title="{value}">{value}</i>'


def test_a_value_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(jinja2.UndefinedError, match="x"):
        render_page(write(tmp_path, "{{ x }}"))


def test_without_jinja2_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingPackageError, match="pip install jinja2"):
        render_page(write(tmp_path, ""))
