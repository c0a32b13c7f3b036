"""Pickles are read as data: what they name is never called, what they declare is never believed."""

import collections
import io
import os
import pickle
import struct
import types

import numpy as np
import pytest

from paddle_inline.weights.lazy_array import WeightsFileError
from paddle_inline.weights.pickled_arrays import COMMON
from paddle_inline.weights.safe_pickle import MOST_STEPS, Inert, load


def read(data, **how):
    return load(io.BytesIO(data), COMMON, **how)


class Calls:
    """Pickled, it makes an unpickler call something."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plain_data_comes_back_as_pickle_would_give_it(protocol):
    values = [
        {"a": 1, "b": [2.5, -1, 300, 70000, 1 << 40, -(1 << 70)], 3: None},
        ("text", "ünïcode", b"bytes" * 60, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        True,
        False,
    ]
    assert read(pickle.dumps(values, protocol)) == values


def test_sets_come_back_as_lists():
    assert sorted(read(pickle.dumps({1, 2, 3}, 4))) == [1, 2, 3]


def test_an_object_met_twice_is_one_object():
    shared = [1]
    first, second = read(pickle.dumps([shared, shared], 4))
    assert first is second


def test_an_ordered_dictionary_keeps_order_and_attributes():
    value = collections.OrderedDict([("b", 1), ("a", 2)])
    value.note = "kept"
    found = read(pickle.dumps(value, 2))
    assert list(found) == ["b", "a"]
    assert found.attributes == {"note": "kept"}


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "uint8", "bool", ">f4"])
def test_arrays_keep_their_bits(protocol, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    for value in (array, np.asfortranarray(array), array[:, :0], array[0, 0] + np.zeros((), dtype)):
        found = read(pickle.dumps(np.asarray(value), protocol)).stored
        assert found.shape == np.shape(value)
        assert found.read().dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(found.read(), value)
        assert found.read().flags.c_contiguous


def test_arrays_of_python_2_have_their_bytes_as_text():
    data = (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
        b"(K\x01K\x04\x85cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
        b"\x89U\x04\x00\x7f\x80\xfftbs."
    )
    found = read(data)
    assert found["data"].stored.read().tolist() == [0, 127, 128, 255]
    assert found["data"].stored.dtype == "uint8"
    assert pickle.loads(data, encoding="latin1")["data"].tolist() == [0, 127, 128, 255]


def test_bytes_may_be_keys():
    assert read(pickle.dumps({b"data": 1}, 2)) == {b"data": 1}


def test_numbers_of_numpy_are_read():
    assert read(pickle.dumps(np.float64(81.5), 2)) == 81.5


def test_long_arrays_stay_in_their_file(tmp_path):
    array = np.random.default_rng(0).standard_normal((100, 100))
    path = tmp_path / "array.pickle"
    path.write_bytes(pickle.dumps({"a": array}, 4))
    with open(path, "rb") as file:
        found = load(file, COMMON)["a"].stored
    assert (found.shape, found.dtype, found.nbytes) == ((100, 100), "float64", 80_000)
    np.testing.assert_array_equal(found.read(), array)


def test_a_stream_stands_behind_its_pickle():
    stream = io.BytesIO(pickle.dumps(1, 4) + pickle.dumps(2, 4) + b"rest")
    assert [load(stream, {}), load(stream, {}), stream.read()] == [1, 2, b"rest"]


def test_a_name_that_is_not_known_is_refused_and_not_called(tmp_path):
    trap = tmp_path / "trap"
    data = pickle.dumps({"weights": Calls(os.mkdir, (str(trap),))}, 4)
    with pytest.raises(WeightsFileError, match=r"asks for posix\.mkdir"):
        read(data)
    assert not trap.exists()
    pickle.loads(data)
    assert trap.exists()  # the trap works


def test_an_unknown_class_is_left_to_the_caller():
    made = []

    def inert(path, arguments, by_call):
        made.append((path, arguments, by_call))
        return Inert(path, arguments)

    found = read(pickle.dumps([Calls(os.getcwd, ()), types.SimpleNamespace()], 4), inert=inert)
    assert made == [("posix.getcwd", (), True), ("types.SimpleNamespace", (), True)]
    assert [type(value) for value in found] == [Inert, Inert]


def test_the_contents_of_an_unknown_class_are_kept():
    data = pickle.dumps(collections.UserDict(a=1), 4)
    found = read(data, inert=lambda path, arguments, by_call: Inert(path, arguments))
    assert (found.kind, found.state) == ("collections.UserDict", {"data": {"a": 1}})


def chain_of_tuples(levels):
    """t0 = (), t1 = (t0, t0), ... as a key: its hash takes 2 ** levels steps."""
    return b"\x80\x04}" + b")" + b"".join(b"\x94h%c\x86" % i for i in range(levels)) + b"Ns."


@pytest.mark.parametrize(
    "data, message",
    [
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b".", "cut short"),
        (b"\x80\x04B\xff\xff\xff\xff.", "cut short"),
        (b"\x80\x05\x97.", "instruction"),
        (b"\x80\x05\x96" + struct.pack("<Q", 1 << 34) + b".", "cut short"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b".", "cut short"),
        (b"\x80\x04\x8b\xff\xff\xff\xff.", "cut short"),
        (b"\x80\x04N\x85\x86.", "stack"),
        (b"\x80\x04.", "damaged"),
        (b"\x80\x04h\x01.", "damaged"),
        (b"\x80\x04}(X\x01\0\0\0aNX\x01\0\0\0aNu.", "'a' twice"),
        (b"\x80\x04}(X\x01\0\0\0aNX\x01\0\0\0au.", "without a value"),
        (b"\x80\x04](K\x01a.", "damaged"),
        (b"\x80\x04N(K\x01e.", "appends to a NoneType"),
        (b"\x80\x04K\x01K\x02\x93.", "not text"),
        (b"\x80\x04Nb.", "damaged"),
        (b"\x80\x04K\x01)R.", "not a name"),
        (b"\x80\x04K\x01Q.", "outside its pickle"),
        (b"\x80\x04\x82\x01.", "instruction"),
        (b"cos\nsystem\n(S'true'\ntR.", r"os\.system"),
        (b"c" + b"a" * 5000, "never ends"),
        (b"\x80\x04" + b"N0" * (MOST_STEPS // 2 + 1), "steps"),
        (chain_of_tuples(60), "tuple as a key"),
        (pickle.dumps({2**61 - 1: 0}, 4), "int as a key"),
        (pickle.dumps("\U0001f600" * 300_000, 4), "text of"),
        (pickle.dumps(np.array(["text"]), 4), "not of numbers"),
        (pickle.dumps(np.array([None]), 4), "not of numbers"),
        (pickle.dumps(np.zeros(2, "f4,f8"), 4), "unknown dtype|not of numbers"),
        (pickle.dumps(np.zeros(3), 4).replace(b"K\x03\x85", b"K\x04\x85"), "declares an array"),
    ],
)
def test_a_pickle_that_lies_is_refused(data, message):
    with pytest.raises(WeightsFileError, match=message):
        read(data)


def test_a_huge_memo_index_claims_no_memory():
    assert read(b"\x80\x04Nr\xff\xff\xff\x7f.") is None
