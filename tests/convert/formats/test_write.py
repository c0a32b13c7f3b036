"""Files are written whole, one tensor at a time, and both frameworks' own loaders read them."""

import hashlib
import json
import pickle

import numpy as np
import paddle
import pytest
import torch

from convert.formats.source import open_source
from convert.formats.write import (
    atomic,
    check_output,
    check_sidecar,
    sha256,
    sidecar_of,
    write_sidecar,
    write_weights,
)
from paddle_inline.utils.errors import FileAccessError, UserError
from paddle_inline.weights.lazy_array import LazyArray, WeightsFileError

RANDOM = np.random.RandomState(0)
VALUES = {
    "half": RANDOM.randn(5).astype("f2"),
    "matrix": RANDOM.randn(3, 4).astype("f4"),
    "scalar": np.float32(2.5).reshape(()),
    "index": np.arange(6).reshape(2, 3),
    "double": RANDOM.randn(2, 2),
    "bits": RANDOM.randint(0, 60000, 7).astype("u2"),
    "long": RANDOM.randn(100, 100).astype("f4"),
    "ünïcode": np.ones(1, "f4"),
}
DESCRIPTION = {"model": "inline_deit_tiny", "overrides": {"num_classes": 10}}
FORMATS = [("paddle", ".pdparams"), ("paddle", ".safetensors"), ("torch", ".pth"), ("torch", ".safetensors")]


def arrays():
    return {
        name: LazyArray(value.shape, "bfloat16" if name == "bits" else str(value.dtype), lambda v=value: v)
        for name, value in VALUES.items()
    }


@pytest.mark.parametrize("side, suffix", FORMATS)
def test_what_is_written_is_read(tmp_path, side, suffix):
    path = tmp_path / f"a{suffix}"
    write_weights(path, arrays(), side, DESCRIPTION)
    source = open_source(path)
    assert source.description == DESCRIPTION
    assert set(source.contents) == set(VALUES)
    for name, value in VALUES.items():
        found = source.contents[name]
        assert found.dtype == ("bfloat16" if name == "bits" else str(value.dtype))
        assert (found.read().shape, found.read().tobytes()) == (value.shape, value.tobytes())


def test_paddle_reads_its_file_as_its_own(tmp_path):
    write_weights(tmp_path / "a.pdparams", arrays(), "paddle", DESCRIPTION)
    found = paddle.load(str(tmp_path / "a.pdparams"))
    assert list(found) == list(VALUES)
    assert found["bits"].dtype == paddle.bfloat16
    for name, value in VALUES.items():
        assert isinstance(found[name], paddle.Tensor)
        np.testing.assert_array_equal(found[name].numpy(), value)


def test_any_version_of_numpy_can_unpickle_it(tmp_path):
    write_weights(tmp_path / "a.pdparams", arrays(), "paddle")
    data = (tmp_path / "a.pdparams").read_bytes()
    assert b"numpy._core" not in data  # which numpy before 1.26 does not have
    for name, value in pickle.loads(data).items():
        np.testing.assert_array_equal(value, VALUES[name])


def test_torch_reads_its_file_as_its_own(tmp_path):
    write_weights(tmp_path / "a.pth", arrays(), "torch", DESCRIPTION)
    found = torch.load(tmp_path / "a.pth", weights_only=True)
    assert list(found) == list(VALUES)
    assert found["bits"].dtype == torch.bfloat16
    np.testing.assert_array_equal(found["matrix"].numpy(), VALUES["matrix"])


@pytest.mark.parametrize("side", ["paddle", "torch"])
def test_safetensors_reads_its_file_and_every_tensor_is_aligned(tmp_path, side):
    from safetensors.torch import load_file

    write_weights(tmp_path / "a.safetensors", arrays(), side, DESCRIPTION)
    found = load_file(tmp_path / "a.safetensors")
    for name, value in VALUES.items():
        if name != "bits":
            np.testing.assert_array_equal(found[name].numpy(), value)
    data = (tmp_path / "a.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    assert header.pop("__metadata__")["format"] == {"torch": "pt", "paddle": "pd"}[side]
    for entry in header.values():
        assert (start + entry["data_offsets"][0]) % (2 if "16" in entry["dtype"] else 4) == 0


@pytest.mark.parametrize("side, suffix", FORMATS[:2] + FORMATS[3:])
def test_one_tensor_is_in_memory_at_a_time(tmp_path, side, suffix):
    alive = []

    class Counted(np.ndarray):
        def __del__(self):
            alive.remove(id(self))

    def load():
        assert not alive
        value = np.ones(4, "f4").view(Counted)
        alive.append(id(value))
        return value

    many = {str(i): LazyArray((4,), "float32", load) for i in range(5)}
    write_weights(tmp_path / f"a{suffix}", many, side)


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.pdparams"
    path.write_bytes(b"old")

    def broken():
        raise WeightsFileError("damaged")

    spoiled = {**arrays(), "last": LazyArray((1,), "float32", broken)}
    with pytest.raises(WeightsFileError, match="damaged"), atomic(path) as temporary:
        write_weights(temporary, spoiled, "paddle")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_finished_file_takes_the_old_one_s_place(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with atomic(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_not_followed(tmp_path):
    (tmp_path / "a.bin").symlink_to("/dev/null")
    with atomic(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"new")
    assert not (tmp_path / "a.bin").is_symlink()


@pytest.mark.parametrize(
    "name, side, message",
    [
        ("a.pth", "paddle", r"must end in one of \.pdparams, \.safetensors"),
        ("a.pdparams", "torch", r"must end in one of \.pth"),
        ("a.txt/a.pdparams", "paddle", "is a file, not a folder"),
        ("sub.pdparams", "paddle", "is a folder"),
    ],
)
def test_an_output_that_cannot_be_is_named(tmp_path, name, side, message):
    (tmp_path / "sub.pdparams").mkdir()
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=message):
        check_output(tmp_path / name, side)


def test_a_sidecar_vouches_for_its_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"data")
    assert check_sidecar(path) is False
    assert sha256(path) == hashlib.sha256(b"data").hexdigest()
    write_sidecar(path, {"output": {"sha256": sha256(path)}})
    assert check_sidecar(path) is True
    path.write_bytes(b"Data")
    with pytest.raises(WeightsFileError, match=r"not the file that a\.bin\.json describes"):
        check_sidecar(path)


def test_a_json_file_of_somebody_else_vouches_for_nothing(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"data")
    for text in ("[]", "{", '{"output": 3}', "{" * 10_000):
        sidecar_of(path).write_text(text)
        assert check_sidecar(path) is False


def test_a_framework_s_own_oserror_is_no_output_that_cannot_be_written(tmp_path):
    """Paddle raises OSError for CUDA's errors; the system's errors have a number, and its do not."""
    with pytest.raises(OSError, match="CUDA error") as raised, atomic(tmp_path / "a.pth"):
        raise OSError("(External) CUDA error(2), out of memory")
    assert not isinstance(raised.value, UserError)
    with pytest.raises(FileAccessError, match="No space left"), atomic(tmp_path / "a.pth"):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())
