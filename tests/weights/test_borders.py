"""What is read and what is refused, on either side of every border; and each check through the path that users take."""

import io
import json
import pickle
import struct

import numpy as np
import paddle
import pytest
from safetensors.numpy import save_file

from paddle_inline import create_model
from paddle_inline.training.checkpoint import save_weights
from paddle_inline.weights import safe_pickle
from paddle_inline.weights.description import check_transform, read_description
from paddle_inline.weights.inert_data import is_data
from paddle_inline.weights.lazy_array import WeightsFileError
from paddle_inline.weights.load import load_weights, open_weights
from paddle_inline.weights.resize import load_adapted, resize_grid
from paddle_inline.weights.safe_pickle import Name, load
from paddle_inline.weights.safetensors import open_safetensors

TRANSFORM = {"img_size": 8, "mean": [0.5] * 3, "std": [0.5] * 3}
DEIT = {"depth": 1, "embed_dim": 16, "num_heads": 2}


class Heads(paddle.nn.Layer):
    """Names that begin alike."""

    def __init__(self):
        super().__init__()
        self.head, self.head2, self.header = (paddle.nn.Linear(2, 2) for _ in range(3))


def test_a_name_is_left_out_and_not_those_that_begin_alike():
    model = Heads()
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    load_weights(model, {name: value + 1 for name, value in before.items()}, skip=("head",))
    for name, value in model.state_dict().items():
        assert (value.numpy() == before[name]).all() == name.startswith("head."), name
    load_weights(model, {name: value + 2 for name, value in before.items()}, skip=("head2.weight",))
    for name, value in model.state_dict().items():
        assert (value.numpy() == before[name] + 2).all() == (name != "head2.weight"), name


@pytest.mark.parametrize("skip", [(), ("head",), ("head.bias",), ("norm",)])
def test_class_names_belong_to_the_head_that_was_loaded(tmp_path, skip):
    model = create_model("inline_deit_digits", **DEIT)
    described = {
        "format": 1,
        "model": model.name,
        "overrides": DEIT,
        "transform": TRANSFORM,
        "classes": ["a", "b"],
    }
    save_weights(tmp_path / "w.pdparams", model.state_dict(), described)
    load_weights(model, tmp_path / "w.pdparams", skip=skip)
    expected = dict(described, transform=check_transform(TRANSFORM))
    if skip and skip[0].startswith("head"):
        del expected["classes"]
    assert model.description == expected


@pytest.mark.parametrize(
    ("metadata", "fits"), [(None, True), ({"format": "pd"}, True), ({"format": "pt"}, False)]
)
def test_pytorch_s_layouts_are_not_taken_for_paddle_s(tmp_path, metadata, fits):
    """A square matrix would load transposed."""
    save_file({"w": np.ones((2, 2), "float32")}, tmp_path / "w.safetensors", metadata)
    if fits:
        assert set(open_weights(tmp_path / "w.safetensors")[0]) == {"w"}
        return
    with pytest.raises(WeightsFileError, match="has PyTorch's names and layouts; convert it first"):
        open_weights(tmp_path / "w.safetensors")


def test_positions_are_resized_by_the_proportions_that_the_file_names(tmp_path):
    """32 positions of a tall image are no 4 x 8 ones."""
    size, other = [64, 32], (32, 64)
    source = create_model("inline_deit_digits", img_size=tuple(size), patch_size=8, **DEIT)
    described = {"format": 1, "model": source.name, "overrides": {**DEIT, "img_size": size, "patch_size": 8}}
    save_weights(tmp_path / "w.pdparams", source.state_dict(), described)
    target = create_model("inline_deit_digits", img_size=other, patch_size=8, **DEIT)
    notes = load_adapted(target, tmp_path / "w.pdparams")
    assert notes == ["pos_embed resized from 8 x 4 to 4 x 8, bicubic: pos_embed"]
    old, new = source.pos_embed.numpy()[0], target.pos_embed.numpy()[0]
    np.testing.assert_array_equal(new[0], old[0])  # the class token's
    np.testing.assert_allclose(new[1:], resize_grid(old[1:], (8, 4), (4, 8)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "fits", "does_not"),
    [
        ("crop_ratio", [0.1, 1, 1.0], [0.0999, 1.0001, 0]),
        ("img_size", [1, 1 << 14, [1, 1 << 14]], [0, (1 << 14) + 1, [8, (1 << 14) + 1]]),
        ("std", [[1e-9] * 3], [[0.0] * 3, [0.5, 0.5, 0], [0.5] * 2, [0.5] * 4]),
    ],
)
def test_the_borders_of_a_transform(key, fits, does_not):
    for value in fits:
        assert check_transform({**TRANSFORM, key: value})[key] == value
    for value in does_not:
        with pytest.raises(WeightsFileError, match=f"transform has {key}"):
            check_transform({**TRANSFORM, key: value})


def test_the_borders_of_means_and_classes():
    check_transform({**TRANSFORM, "mean": [0.5] * 16, "std": [1] * 16})
    with pytest.raises(WeightsFileError):
        check_transform({**TRANSFORM, "mean": [0.5] * 17, "std": [1] * 17})
    found = {"model": "m", "overrides": {}, "classes": ["a"] * (1 << 20)}
    assert read_description(found) == found
    with pytest.raises(WeightsFileError, match="classes"):
        read_description({**found, "classes": ["a"] * ((1 << 20) + 1)})


@pytest.mark.parametrize("suffix", ["pdparams", "safetensors"])
def test_a_file_s_transform_is_checked_when_it_is_opened(tmp_path, suffix):
    path = tmp_path / f"w.{suffix}"
    described = {"model": "m", "overrides": {}, "transform": {**TRANSFORM, "crop_ratio": 7}}
    if suffix == "pdparams":
        save_weights(path, {"w": paddle.ones([1])}, described)
    else:
        save_file({"w": np.ones(1, "float32")}, path, {"paddle_inline": json.dumps(described)})
    with pytest.raises(WeightsFileError, match=rf"w\.{suffix} is not read: .*crop_ratio 7"):
        open_weights(path)


def read(data, known=None):
    return load(io.BytesIO(data), known or {})


def test_a_key_is_of_a_hash_that_cannot_be_made_to_collide():
    """The hash of a whole number is its rest by 2 ** 61 - 1."""
    for key in (0, 2**61 - 2, -(2**61) + 2, "a", b"a", None, True):
        assert read(pickle.dumps({key: 1}, 4)) == {key: 1}
    for key in (2**61 - 1, -(2**61) + 1, 2**200, frozenset()):
        with pytest.raises(WeightsFileError):
            read(pickle.dumps({key: 1}, 4))


def test_a_key_occurs_once():
    with pytest.raises(WeightsFileError, match="names 'a' twice"):
        read(b"\x80\x04}(\x8c\x01aK\x01\x8c\x01aK\x02u.")
    assert read(b"\x80\x04}(\x8c\x01aK\x01\x8c\x01bK\x02u.") == {"a": 1, "b": 2}


def test_a_pickle_has_so_many_steps_and_not_one_more(monkeypatch):
    data = b"\x80\x04" + b"N0" * 4 + b"N."  # 11 steps
    for most, fits in ((11, True), (10, False)):
        monkeypatch.setattr(safe_pickle, "MOST_STEPS", most)
        if fits:
            assert read(data) is None
            continue
        with pytest.raises(WeightsFileError, match="more than 10 steps"):
            read(data)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "os.system",
            "posix.system",
            "subprocess.Popen",
            "builtins.eval",
            "builtins.exec",
            "builtins.getattr",
        ),
        *("multiprocessing.context.Process", "tempfile.TemporaryDirectory", "http.client.HTTPConnection"),
        *(
            "zipfile.ZipFile",
            "threading.Thread",
            "ctypes.CDLL",
            "pathlib.Path.unlink",
            "io.FileIO",
            "runpy.run_path",
        ),
        *("package.module.function", "package", "Class", "torch.load", "numpy.load", "webbrowser.Chrome"),
    ],
)
def test_what_could_be_a_command_is_no_data(name):
    assert not is_data(name, ())


@pytest.mark.parametrize(
    "name", ["pathlib.PosixPath", "datetime.date", "torch.device", "package.module.Config"]
)
def test_what_is_data(name):
    assert is_data(name, ("a", 1, [None, (2.5, b"c")]))
    if name.startswith("package"):
        assert not is_data(name, (object(),)) and not is_data(name, ([[[["too deep"]]]],))


def test_a_member_of_an_enumeration_is_data_and_no_other_attribute():
    assert is_data("builtins.getattr", (Name("package.Colour"), "RED"))
    for arguments in ((Name("os"), "system"), (Name("package.Colour"), "a.b"), ("package.Colour", "RED"), ()):
        assert not is_data("builtins.getattr", arguments)


def safetensors(entries, data, more=b""):
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + data + more


def entry(begin, end, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("entries", "size", "message"),
    [
        ({"a": entry(0, 4), "b": entry(4, 8)}, 8, None),
        ({"a": entry(0, 4), "b": entry(4, 8)}, 7, "has .* bytes where"),
        ({"a": entry(0, 4), "b": entry(4, 8)}, 9, "has .* bytes where"),
        ({"a": entry(0, 4), "b": entry(5, 9)}, 9, "overlap or leave gaps"),
        ({"a": entry(0, 4), "b": entry(3, 7)}, 8, "overlap or leave gaps"),
        ({"a": entry(1, 5)}, 5, "overlap or leave gaps"),
        ({"a": entry(0, 8)}, 8, "brings 8 bytes"),
        ({"a": entry(0, 4, dtype="F8")}, 4, "dtype F8"),
    ],
)
def test_every_byte_of_a_file_is_one_tensor_s(tmp_path, entries, size, message):
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors(entries, b"\0" * size))
    if message is None:
        assert set(open_safetensors(path)[0]) == set(entries)
        return
    with pytest.raises(WeightsFileError, match=message):
        open_safetensors(path)
