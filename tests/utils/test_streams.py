"""What a stream cannot show is escaped, and its own way of failing is put back."""

import io
import sys

import pytest

from paddle_inline.utils.streams import escaped, forgiving_streams, in_notebook, readable

NAME = "\udcb5\u7535\u00e9\U0001f600"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "gbk", "shift_jis", "utf-8"])
def test_no_name_raises_and_the_stream_is_as_before(monkeypatch, encoding):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, errors="strict") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    with forgiving_streams():
        print(NAME)
        print(NAME, file=sys.stderr)
    for stream in streams:
        assert stream.errors == "strict"
        assert b"\\udcb5" in stream.buffer.getvalue()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"MPLBACKEND": "Agg"}, False),
        ({"JPY_PARENT_PID": "1"}, True),  # by Jupyter's launcher
        ({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, True),  # by the kernel itself
        ({"MPLBACKEND": "module://ipykernel.pylab.backend_inline"}, True),
    ],
)
def test_a_notebook_is_known_by_what_its_kernel_sets(monkeypatch, variables, expected):
    for name in ("MPLBACKEND", "JPY_PARENT_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert in_notebook() is expected


@pytest.mark.parametrize("stream", [None, io.StringIO(), object()])
def test_a_stream_of_another_kind_is_left_alone(monkeypatch, stream):
    """Without a console, under pythonw, there is none; notebooks have their own."""
    monkeypatch.setattr(sys, "stdout", stream)
    with forgiving_streams():
        pass


def test_a_stream_that_is_closed_meanwhile_is_no_failure(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    with forgiving_streams():
        stream.close()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain \u7535.jpg", "plain \u7535.jpg"),
        ("a\nb\tc\x1b[31m", r"a\nb\tc\x1b[31m"),
        ("\udcb5\udce7", r"\udcb5\udce7"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\u2028", r"\u2028"),
        ("\udce7\udc94\udcb5", "\u7535"),
        ("\ud800x", r"\ud800x"),
    ],
    ids=ascii,
)
def test_a_name_is_shown_on_one_line(name, shown):
    assert escaped(name) == shown
    escaped(name).encode("utf-8")
    assert readable("\ud800x") == "\ud800x"
