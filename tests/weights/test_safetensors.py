"""The safetensors reader against the safetensors package, and against files that lie."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from paddle_inline.weights.lazy_array import WeightsFileError
from paddle_inline.weights.safetensors import open_safetensors

ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write(path, header, data=b"\0" * 8):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int32", "uint8", "bool"])
def test_reads_what_the_package_writes(tmp_path, dtype):
    state = {
        "b": np.arange(6).reshape(2, 3).astype(dtype),
        "a": np.ones((), dtype),
        "c": np.zeros((0, 3), dtype),
    }
    save_file(state, tmp_path / "a.safetensors", metadata={"note": "kept"})
    arrays, metadata = open_safetensors(tmp_path / "a.safetensors")
    assert metadata == {"note": "kept"}
    assert set(arrays) == set(state)
    for name, array in arrays.items():
        assert (array.shape, array.dtype, array.nbytes) == (state[name].shape, dtype, state[name].nbytes)
        np.testing.assert_array_equal(array.read(), state[name])
        assert array.read().shape == state[name].shape


def test_bfloat16_is_read_as_the_bits_that_paddle_keeps(tmp_path):
    path = write(tmp_path / "a", {"a": {**ONE, "dtype": "BF16", "data_offsets": [0, 4]}}, b"\x80\x3f\x00\xc0")
    array = open_safetensors(path)[0]["a"]
    assert array.dtype == "bfloat16"
    assert array.read().tolist() == [0x3F80, 0xC000]  # 1 and -2


@pytest.mark.parametrize(
    "header, message",
    [
        (b'{"a": 1, "a": 2}', "names 'a' twice"),
        (b"{" * 100_000, "damaged header"),
        (b"\xff\xfe", "damaged header"),
        (b"[1]", "damaged header"),
        ({"a": [1]}, "damaged header"),
        ({"a": {**ONE, "shape": [3]}}, "declares"),
        ({"a": {**ONE, "shape": [1 << 62, 1 << 62]}}, "declares"),
        ({"a": {**ONE, "shape": [-2]}}, "not a list of sizes"),
        ({"a": {**ONE, "shape": [2.0]}}, "not a list of sizes"),
        ({"a": {**ONE, "shape": [1] * 40}}, "dimensions"),
        ({"a": {**ONE, "dtype": "F8_E4M3"}}, "dtype F8_E4M3"),
        ({"a": {**ONE, "data_offsets": [8, 16]}}, "gaps"),
        ({"a": ONE, "b": ONE}, "overlap"),
        ({"a": {**ONE, "shape": [1], "data_offsets": [0, 4]}}, "declares"),
        ({}, "declares"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, header, message):
    with pytest.raises(WeightsFileError, match=message):
        open_safetensors(write(tmp_path / "a.safetensors", header))


def test_a_header_longer_than_its_file_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    with pytest.raises(WeightsFileError, match="does not fit"):
        open_safetensors(tmp_path / "a")


def test_a_file_that_shrank_since_is_refused(tmp_path):
    path = write(tmp_path / "a", {"a": ONE})
    array = open_safetensors(path)[0]["a"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsFileError, match="ends before"):
        array.read()
