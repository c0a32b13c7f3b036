"""Untrusted pickles, read as the data they are.

A pickle is a program for a small stack machine, and Python's own unpickler calls whatever the program names.
`load` carries out only the instructions that build numbers, text, plain containers and arrays; a name means
what the caller's table says it means and is never imported. Memory stays in proportion to the file: the
lengths it declares are checked against its bytes, and its steps are counted.

Why it is not a `pickle.Unpickler` whose `find_class` returns inert stand-ins: that was tried on the files of
tests/convert/hostile.py (CPython 3.11). It calls nothing either, but has no place to refuse what is not a name:

- a key that is a tuple nested 100 times: its hash took more than 60 s; 40,000 integer keys that collide: 32 s;
- 64 MiB of empty dictionaries: 4.6 GiB and 18 s (here: refused after MOST_STEPS);
- a memo index of 2 ** 31: it asks for a table of 32 GiB; a key that occurs twice: it silently keeps the last;
- an array of 512 MiB is in memory, where it is to stay in the file until it is wanted.

Python's version of that class is private, and each of these refusals needs one of its methods replaced.

(A few lines above 300: the measured reasons above stand beside the limits that follow from them.)
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from ..utils.errors import short
from .lazy_array import WeightsFileError

# Far above any checkpoint of these models (a training checkpoint of the deepest: 200,000), and low enough
# that the smallest objects, which take a hundred times their instruction's byte, fit into half a GiB.
MOST_STEPS = 2_000_000
_RENAMED = ((r"^numpy\._core", "numpy.core"), (r"^__builtin__$", "builtins"))  # numpy 2; protocol 2
_LONGEST_TEXT = 1 << 20  # beyond it only text of one byte a character, which is how protocol 2 writes bytes
_SHORT = "its pickle is cut short: it declares more bytes than there are; download or copy the file again"
_LEFT_IN_FILE = 1 << 12  # longer byte strings are not read until they are needed

Makers = Mapping[str, Callable[..., Any]]  # {"module.name": function that makes what calling that name would}


class Name:
    """A class or function that a pickle names. It is not imported; the caller's table says what calling it makes."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def __repr__(self) -> str:
        return self.path


class Inert:
    """A stand-in for an object of an unknown class: its arguments, state and contents, uninterpreted."""

    __slots__ = ("arguments", "contents", "kind", "state")

    def __init__(self, kind: str, arguments: tuple[Any, ...] = ()) -> None:
        self.kind, self.arguments = kind, arguments
        self.state: Any = None
        self.contents: Any = None  # a list of elements or a dict of entries, where it has them

    def build(self, state: Any) -> None:
        """Keep the state that the pickle sets."""
        self.state = state

    def __repr__(self) -> str:
        return f"<{self.kind}>"


class Blob:
    """A byte string left in its file."""

    def __init__(self, path: str, offset: int, size: int) -> None:
        self.path, self.offset, self.size = path, offset, size

    def __len__(self) -> int:
        return self.size


class Placed(bytes):
    """A byte string in memory that lies in its file too, at `offset`."""

    offset: int | None = None


def load(
    stream: BinaryIO,
    known: Makers,
    persistent: Callable[[Any], Any] | None = None,
    inert: Callable[[str, tuple[Any, ...], bool], Any] | None = None,
) -> Any:
    """Return the object that the next pickle in a binary stream describes; the stream then stands behind it.

    Args:
        stream: a seekable binary file; long byte strings of a file with a `name` stay there (Blob).
        known: {"module.name": function that makes what calling that name would}.
        persistent: function from a persistent id to the object it stands for; None refuses them.
        inert: what to do with an object of a class that is not `known`: a function from (path, arguments)
            to a stand-in, called with `by_call` where the pickle calls it with arguments rather than
            filling a fresh instance; None refuses the name itself.

    Raises:
        WeightsFileError: the pickle is cut short or damaged, or needs what the arguments do not allow.
    """
    try:
        return _Machine(stream, known, persistent, inert).run()
    except WeightsFileError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise WeightsFileError(f"it is damaged or of another format: {type(error).__name__}") from None


class _Machine:
    """The stack machine: `stack` since the last mark, `marks` the stacks below it, `memo` what may be used again."""

    def __init__(
        self, stream: BinaryIO, known: Makers, persistent: Callable | None, inert: Callable | None
    ) -> None:
        self.stream, self.known, self.persistent, self.inert = stream, known, persistent, inert or _refuse
        self.path = stream.name if isinstance(stream, io.BufferedReader) else None
        start, self.end = stream.tell(), stream.seek(0, io.SEEK_END)
        stream.seek(start)
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MOST_STEPS):
            code = self.take(1)
            if code == b".":
                return self.stack.pop()
            step = _STEPS.get(code)
            if step is None:
                raise WeightsFileError(f"it holds the pickle instruction {code!r}; no weight file needs it")
            step(self)
        raise WeightsFileError(f"its pickle has more than {MOST_STEPS} steps; no checkpoint needs as many")

    def take(self, size: int) -> bytes:
        data = self.stream.read(size) if 0 <= size <= self.end else b""
        if len(data) != size:
            raise WeightsFileError(_SHORT)
        return data

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        text = self.stream.readline(1024)
        if not text.endswith(b"\n"):
            raise WeightsFileError("it holds a pickle whose name never ends")
        return text[:-1].decode()

    def text(self, size: int) -> str:
        data = self.take(size)
        if size > _LONGEST_TEXT and np.frombuffer(data, np.uint8).max() >= 0xC4:
            raise WeightsFileError(f"it holds a text of {size} bytes; no checkpoint needs one")
        return str(data, "utf-8", "surrogatepass")

    def blob(self, size: int) -> bytes | Blob:
        if self.path is None:
            return self.take(size)
        offset = self.stream.tell()
        if size <= _LEFT_IN_FILE:
            data = Placed(self.take(size))
            data.offset = offset
            return data
        if size > self.end - offset:
            raise WeightsFileError(_SHORT)
        self.stream.seek(offset + size)
        return Blob(self.path, offset, size)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def last(self, count: int) -> list[Any]:
        items = self.stack[-count:]
        if len(items) != count:
            raise WeightsFileError("its pickle takes more from the stack than it put there")
        del self.stack[-count:]
        return items

    def extend(self, items: list[Any]) -> None:
        self.filled(list, "appends to").extend(items)

    def update(self, items: list[Any]) -> None:
        put_entries(self.filled(dict, "sets entries of"), items[::2], items[1::2])

    def filled(self, kind: type, action: str) -> Any:
        """Return the list or dict on top of the stack, or that of the stand-in there."""
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.contents = kind() if target.contents is None else target.contents
            target = target.contents
        if not isinstance(target, kind):
            raise WeightsFileError(f"its pickle {action} a {type(target).__name__}")
        return target

    def name(self, module: str, name: str) -> None:
        for old, new in _RENAMED:
            module = re.sub(old, new, module)
        path = f"{module}.{name}"
        if self.inert is _refuse and path not in self.known:
            _refuse(path)
        self.push(Name(path))

    def stack_name(self) -> None:
        module, name = self.last(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise WeightsFileError("its pickle names something that is not text")
        self.name(module, name)

    def call(self, by_call: bool = True) -> None:
        kind, arguments = self.last(2)
        if isinstance(kind, Inert) and kind.kind == "builtins.getattr":  # a method of a class, as ZoneInfo's
            kind = Name(".".join(getattr(part, "path", str(part)) for part in kind.arguments))
        if not isinstance(kind, Name) or not isinstance(arguments, tuple):
            raise WeightsFileError("its pickle calls what is not a name")
        make = self.known.get(kind.path)
        self.push(make(*arguments) if make else self.inert(kind.path, arguments, by_call))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not hasattr(target, "build"):
            raise WeightsFileError(f"its pickle sets the state of a {type(target).__name__}")
        target.build(state)

    def persist(self) -> None:
        if self.persistent is None:
            raise WeightsFileError("it refers to something outside its pickle")
        self.push(self.persistent(self.stack.pop()))


def _refuse(path: str, *_: Any) -> Any:
    raise WeightsFileError(f"it asks for {short(path)}, which no weight file needs")


def put_entries(target: dict, keys: list[Any], values: list[Any]) -> None:
    """Put entries into a dict, each key once and of a kind whose hash is cheap.

    The hash of a nested tuple can take forever, and large integers can be made to collide.
    """
    if len(keys) != len(values):
        raise WeightsFileError("its pickle sets a key without a value")
    for key, value in zip(keys, values):
        if isinstance(key, (float, tuple)) and all(map(_short, key if isinstance(key, tuple) else ())):
            key = str(key)  # nobody looks for it, and the hash of text cannot be made to collide
        large = isinstance(key, int) and abs(key) >= 2**61 - 1
        if not isinstance(key, (str, bytes, int, type(None), Name, Inert)) or large:
            raise WeightsFileError(f"its pickle uses a {type(key).__name__} as a key")
        if key in target:
            raise WeightsFileError(f"it names {short(key)!r} twice")
        target[key] = value


def _short(value: Any) -> bool:
    return isinstance(value, (int, float, str, type(None))) and len(str(value)) <= 32


_STEPS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": lambda m: m.take(1),  # protocol
    b"\x95": lambda m: m.take(8),  # frame: only a hint for readers ahead
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b")": lambda m: m.push(()),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": lambda m: m.push(int.from_bytes(m.take(m.number("<B")), "little", signed=True)),
    b"\x8b": lambda m: m.push(int.from_bytes(m.take(m.number("<i")), "little", signed=True)),
    b"G": lambda m: m.push(m.number(">d")),
    b"T": lambda m: m.push(m.take(m.number("<i")).decode("latin1")),  # text of Python 2
    b"U": lambda m: m.push(m.take(m.number("<B")).decode("latin1")),
    b"X": lambda m: m.push(m.text(m.number("<I"))),
    b"\x8c": lambda m: m.push(m.text(m.number("<B"))),
    b"\x8d": lambda m: m.push(m.text(m.number("<Q"))),
    b"B": lambda m: m.push(m.blob(m.number("<I"))),
    b"C": lambda m: m.push(m.blob(m.number("<B"))),
    b"\x8e": lambda m: m.push(m.blob(m.number("<Q"))),
    b"\x96": lambda m: m.push(m.blob(m.number("<Q"))),  # a bytearray, of protocol 5
    b"(": _Machine.mark,
    b"0": lambda m: m.stack.pop(),
    b"1": lambda m: m.since_mark(),
    b"t": lambda m: m.push(tuple(m.since_mark())),
    b"\x85": lambda m: m.push(tuple(m.last(1))),
    b"\x86": lambda m: m.push(tuple(m.last(2))),
    b"\x87": lambda m: m.push(tuple(m.last(3))),
    b"a": lambda m: m.extend(m.last(1)),
    b"e": lambda m: m.extend(m.since_mark()),
    b"s": lambda m: m.update(m.last(2)),
    b"u": lambda m: m.update(m.since_mark()),
    b"\x8f": lambda m: m.push([]),  # a set, kept as a list
    b"\x90": lambda m: m.extend(m.since_mark()),
    b"\x91": lambda m: m.push(m.since_mark()),
    b"q": lambda m: m.memo.__setitem__(m.number("<B"), m.stack[-1]),
    b"r": lambda m: m.memo.__setitem__(m.number("<I"), m.stack[-1]),
    b"\x94": lambda m: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    b"h": lambda m: m.push(m.memo[m.number("<B")]),
    b"j": lambda m: m.push(m.memo[m.number("<I")]),
    b"c": lambda m: m.name(m.line(), m.line()),
    b"\x93": _Machine.stack_name,
    b"R": _Machine.call,
    b"\x81": lambda m: m.call(by_call=False),
    b"b": _Machine.build,
    b"Q": _Machine.persist,
}
