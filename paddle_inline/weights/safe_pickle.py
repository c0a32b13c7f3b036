"""Pickles from strangers, read as the data they are.

A pickle is a program for a small stack machine, and Python's own unpickler calls whatever the program names.
`load` carries out only the instructions that build numbers, text, plain containers and arrays; a name means
what the caller's table says it means and is never imported. Memory stays in proportion to the file: the
lengths it declares are held against its bytes, and its steps are counted.
"""

from __future__ import annotations

import io
import math
import re
import struct
from functools import partial

import numpy as np

from ..utils.errors import short
from .lazy_array import LazyArray, WeightsFileError, check_shape, read_at

# Far above any checkpoint of these models (a training checkpoint of the deepest: 200,000), and low enough
# that the smallest objects, which take a hundred times their instruction's byte, fit into half a GiB.
MOST_STEPS = 2_000_000
_RENAMED = ((r"^numpy\._core", "numpy.core"), (r"^__builtin__$", "builtins"))  # numpy 2; protocol 2
_LONGEST_TEXT = 1 << 20  # beyond it only text of one byte a character, which is how protocol 2 writes bytes
_LEFT_IN_FILE = 1 << 12  # longer byte strings are not read until they are wanted


class Name:
    """A class or function that a pickle names. It is not imported, and calling it is the table's affair."""

    __slots__ = ("path",)

    def __init__(self, module, name):
        self.path = f"{module}.{name}"

    def __repr__(self):
        return self.path


class Inert:
    """What stands for an object of an unknown class: its arguments, state and contents, uninterpreted."""

    __slots__ = ("arguments", "contents", "kind", "state")

    def __init__(self, kind, arguments=()):
        self.kind, self.arguments = kind, arguments
        self.state = None
        self.contents = None  # a list of elements or a dict of entries, where it has them

    def build(self, state):
        self.state = state

    def __repr__(self):
        return f"<{self.kind}>"


class OrderedDict(dict):
    """collections.OrderedDict, with the attributes that a pickle gave it."""

    attributes = None

    def build(self, state):
        self.attributes = state


class Blob:
    """A byte string left in its file."""

    def __init__(self, path, offset, size):
        self.path, self.offset, self.size = path, offset, size

    def __len__(self):
        return self.size


def load(stream, known, persistent=None, inert=None):
    """The object that the next pickle in a binary stream describes; the stream then stands behind it.

    Args:
        stream: a seekable binary file; long byte strings of a file with a `name` stay there (Blob).
        known: {"module.name": function of ours that makes what calling that name would}.
        persistent: function from a persistent id to the object it stands for; None refuses them.
        inert: what to do with an object of a class that is not `known`: a function from (path, arguments)
            to a stand-in, called with `by_call` where the pickle calls it with arguments rather than
            filling a fresh instance; None refuses the name itself.
    Raises:
        WeightsFileError: the pickle is cut short or damaged, or wants what the arguments do not allow.
    """
    machine = _Machine(stream, known, persistent, inert)
    try:
        return machine.run()
    except WeightsFileError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise WeightsFileError(f"it is damaged or of another format: {type(error).__name__}") from None


class _Machine:
    def __init__(self, stream, known, persistent, inert):
        self.stream, self.known, self.persistent, self.inert = stream, known, persistent, inert
        self.path = stream.name if isinstance(stream, io.BufferedReader) else None
        start = stream.tell()
        self.end = stream.seek(0, io.SEEK_END)
        stream.seek(start)
        self.stack, self.marks, self.memo = [], [], {}

    def run(self):
        for _ in range(MOST_STEPS):
            code = self.take(1)
            if code == b".":
                return self.stack.pop()
            step = _STEPS.get(code)
            if step is None:
                raise WeightsFileError(f"it holds the pickle instruction {code!r}; no weight file needs it")
            step(self)
        raise WeightsFileError(f"its pickle has more than {MOST_STEPS} steps; no checkpoint needs as many")

    def take(self, size):
        data = self.stream.read(size) if 0 <= size <= self.end else b""
        if len(data) != size:
            raise WeightsFileError("its pickle is cut short: it declares more bytes than there are")
        return data

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self):
        text = self.stream.readline(1024)
        if not text.endswith(b"\n"):
            raise WeightsFileError("it holds a pickle whose name never ends")
        return text[:-1].decode()

    def text(self, size):
        data = self.take(size)
        if size > _LONGEST_TEXT and np.frombuffer(data, np.uint8).max() >= 0xC4:
            raise WeightsFileError(f"it holds a text of {size} bytes; no checkpoint needs one")
        return str(data, "utf-8", "surrogatepass")

    def blob(self, size):
        if size <= _LEFT_IN_FILE or self.path is None:
            return self.take(size)
        offset = self.stream.tell()
        if size > self.end - offset:
            raise WeightsFileError("its pickle is cut short: it declares more bytes than there are")
        self.stream.seek(size, io.SEEK_CUR)
        return Blob(self.path, offset, size)

    def push(self, value):
        self.stack.append(value)

    def mark(self):
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self):
        items, self.stack = self.stack, self.marks.pop()
        return items

    def last(self, count):
        items = self.stack[-count:]
        if len(items) != count:
            raise WeightsFileError("its pickle takes more from the stack than it put there")
        del self.stack[-count:]
        return items

    def extend(self, items):
        self.filled(list, "appends to").extend(items)

    def update(self, items):
        _put(self.filled(dict, "sets entries of"), items[::2], items[1::2])

    def filled(self, kind, deed):
        """The list or dict on top of the stack, or that of the stand-in there."""
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.contents = kind() if target.contents is None else target.contents
            target = target.contents
        if not isinstance(target, kind):
            raise WeightsFileError(f"its pickle {deed} a {type(target).__name__}")
        return target

    def name(self, module, name):
        for old, new in _RENAMED:
            module = re.sub(old, new, module)
        path = f"{module}.{name}"
        if self.inert is None and path not in self.known:
            raise WeightsFileError(f"it asks for {short(path)}, which no weight file needs")
        self.push(Name(*path.rsplit(".", 1)))

    def stack_name(self):
        module, name = self.last(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise WeightsFileError("its pickle names something that is not text")
        self.name(module, name)

    def call(self, kind, arguments, by_call=True):
        if not isinstance(kind, Name) or not isinstance(arguments, tuple):
            raise WeightsFileError("its pickle calls what is not a name")
        make = self.known.get(kind.path)
        self.push(make(*arguments) if make else self.inert(kind.path, arguments, by_call))

    def build(self):
        state, target = self.stack.pop(), self.stack[-1]
        if not hasattr(target, "build"):
            raise WeightsFileError(f"its pickle sets the state of a {type(target).__name__}")
        target.build(state)

    def persist(self):
        if self.persistent is None:
            raise WeightsFileError("it refers to something outside its pickle")
        self.push(self.persistent(self.stack.pop()))


def _put(target, keys, values):
    """Entries into a dict, each key once and of a kind whose hash is cheap: that of a nested tuple can take
    for ever, and large integers can be made to collide."""
    if len(keys) != len(values):
        raise WeightsFileError("its pickle sets a key without a value")
    for key, value in zip(keys, values):
        if not isinstance(key, (str, int, type(None), Name)) or (
            isinstance(key, int) and abs(key) >= 2**61 - 1
        ):
            raise WeightsFileError(f"its pickle uses a {type(key).__name__} as a key")
        if key in target:
            raise WeightsFileError(f"it names {short(key)!r} twice")
        target[key] = value


def _constant(value):
    return lambda m: m.push(value)


def _tuple_of(count):
    return lambda m: m.push(tuple(m.last(count)))


_STEPS = {
    b"\x80": lambda m: m.take(1),  # protocol
    b"\x95": lambda m: m.take(8),  # frame: only a hint for readers ahead
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b")": _constant(()),
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
    b"C": lambda m: m.push(m.take(m.number("<B"))),
    b"\x8e": lambda m: m.push(m.blob(m.number("<Q"))),
    b"(": _Machine.mark,
    b"0": lambda m: m.stack.pop(),
    b"1": lambda m: m.since_mark(),
    b"t": lambda m: m.push(tuple(m.since_mark())),
    b"\x85": _tuple_of(1),
    b"\x86": _tuple_of(2),
    b"\x87": _tuple_of(3),
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
    b"R": lambda m: m.call(*m.last(2)),
    b"\x81": lambda m: m.call(*m.last(2), by_call=False),
    b"b": _Machine.build,
    b"Q": _Machine.persist,
}


class _Dtype:
    """A numpy dtype of numbers, its byte order set by the pickle afterwards."""

    def __init__(self, name, *_):
        if not (isinstance(name, str) and re.fullmatch(r"[<>=|]?[biufcUO]\d{0,4}", name)):
            raise WeightsFileError("it holds an array of an unknown dtype")
        self.value = np.dtype(name)
        if self.value.kind not in "biufc":
            raise WeightsFileError(f"it holds an array of {self.value}, not of numbers")

    def build(self, state):
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class Array:
    """A pickled numpy array: `stored`, once its shape and bytes are there."""

    stored = None

    def __init__(self, *_):
        pass

    def build(self, state):
        _, shape, dtype, fortran_order, data = state
        if not isinstance(dtype, _Dtype):
            raise WeightsFileError("it holds an array of an unknown dtype")
        shape, dtype, order = check_shape(shape), dtype.value, "F" if fortran_order else "C"
        count = math.prod(shape)
        if count * dtype.itemsize != len(data):
            raise WeightsFileError(f"it declares an array {shape} of {dtype} but brings {len(data)} bytes")
        name = "bfloat16" if dtype.name == "uint16" else dtype.name  # as Paddle stores it
        self.stored = LazyArray(shape, name, partial(_read, data, dtype, shape, order))


def _read(data, dtype, shape, order):
    if isinstance(data, Blob):
        values = read_at(data.path, data.offset, dtype, math.prod(shape))
    else:
        values = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
    return np.asarray(values.reshape(shape, order=order), order="C")


def _scalar(dtype, data):
    return np.frombuffer(data, dtype.value)[0]


def _encode(text, encoding):
    if encoding != "latin1":
        raise WeightsFileError(f"it asks for the encoding {short(repr(encoding))}")
    return text.encode("latin1")  # how pickle protocol 2 writes bytes


def _ordered(pairs=()):
    result = OrderedDict()
    _put(result, [key for key, _ in pairs], [value for _, value in pairs])  # Python 2 gives the pairs here
    return result


# What weight files of either framework are made of, besides the framework's own.
COMMON = {
    "numpy.ndarray": Array,  # only named as an argument of _reconstruct
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": Array,
    "numpy.core.multiarray.scalar": _scalar,
    "_codecs.encode": _encode,
    "builtins.bytes": lambda: b"",  # protocol 2's way of writing no bytes
    "collections.OrderedDict": _ordered,
}
