"""torch's files are read bit for bit as torch itself reads them, and without torch's help."""

import argparse
import collections
import os
import pathlib
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

from convert.formats.select import select_weights
from convert.formats.source import open_source
from convert.formats.torch_file import open_torch
from paddle_inline.weights.lazy_array import WeightsFileError
from paddle_inline.weights.safe_pickle import Inert

BASE = torch.arange(100, dtype=torch.float32).reshape(10, 10)
TENSORS = {
    "float64": torch.randn(2, 3, dtype=torch.float64),
    "float32": torch.randn(2, 3),
    "float16": torch.randn(5).half(),
    "bfloat16": torch.randn(3, 4).bfloat16(),
    "int64": torch.tensor(7),
    "int32": torch.tensor([1, -2], dtype=torch.int32),
    "int16": torch.tensor([1, -2], dtype=torch.int16),
    "int8": torch.tensor([-3], dtype=torch.int8),
    "uint8": torch.tensor([250], dtype=torch.uint8),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(1.5),
    "empty": torch.zeros(0, 3),
    "parameter": torch.nn.Parameter(torch.randn(3)),
    "transposed": torch.randn(4, 5).t(),
    "row": BASE[2],
    "column": BASE[:, 3],
    "strided": BASE[1:8:3, ::2],
    "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
}


def assert_equal(stored, tensor):
    tensor = tensor.detach()
    bits = (
        tensor.view(torch.int16).numpy().view("uint16") if tensor.dtype == torch.bfloat16 else tensor.numpy()
    )
    found = stored.read()
    assert (stored.shape, found.shape) == (tuple(tensor.shape),) * 2
    assert f"torch.{stored.dtype}" == str(tensor.dtype)
    assert found.flags.c_contiguous
    assert found.dtype == bits.dtype
    assert found.tobytes() == np.ascontiguousarray(bits).tobytes()


@pytest.fixture(params=[True, False], ids=["zip", "before zip"])
def save(request, tmp_path):
    def save(value, name="a.pth"):
        torch.save(value, tmp_path / name, _use_new_zipfile_serialization=request.param)
        return tmp_path / name

    return save


@pytest.mark.parametrize("name", TENSORS)
def test_every_dtype_and_layout(save, name):
    assert_equal(open_torch(save({"a": TENSORS[name]}))["a"].stored, TENSORS[name])


def test_tensors_that_share_a_storage(save):
    state = {name: TENSORS[name] for name in ("row", "column", "strided", "row")}
    found = open_torch(save(state))
    for name, tensor in state.items():
        assert_equal(found[name].stored, tensor)


def test_newer_dtypes_keep_their_untyped_storage(tmp_path):
    torch.save({"a": torch.zeros(3, dtype=torch.uint16)}, tmp_path / "a.pth")
    assert "dtype uint16" in open_torch(tmp_path / "a.pth")["a"].reason
    with pytest.raises(WeightsFileError, match="of a, it is a tensor of dtype uint16"):
        select_weights(open_source(tmp_path / "a.pth"))
    torch.save({"a": torch.zeros(3).to(torch.float8_e4m3fn)}, tmp_path / "a.pth")
    with pytest.raises(WeightsFileError, match="of a, it is a tensor of dtype float8_e4m3fn"):
        select_weights(open_source(tmp_path / "a.pth"))


def test_big_endian_archives(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": TENSORS["strided"]}, path)
    rewrite(path, flipped)
    assert_equal(open_torch(path)["a"].stored, TENSORS["strided"])


def flipped(name, data):
    if name.endswith("/byteorder"):
        return b"big"
    return np.frombuffer(data, "<f4").astype(">f4").tobytes() if "/data/" in name else data


def rewrite(path, change):
    """Change the members of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(name, change(name, data))


def test_a_training_checkpoint_with_settings_of_an_unknown_class(save, monkeypatch):
    class CfgNode(dict):
        """As yacs defines it: a dictionary with attributes."""

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", types.SimpleNamespace(CfgNode=CfgNode))
    config = CfgNode(DATA=CfgNode(IMG_SIZE=224))
    config.__dict__["_immutable"] = True
    weight = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(weight.parameters())
    weight(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = save(
        {
            "model": weight.state_dict(),
            "optimizer": optimizer.state_dict(),
            "lr_scheduler": {"base_values": [1e-3], "metric": None},
            "max_accuracy": np.float64(78.2),
            "epoch": 299,
            "config": config,
        }
    )
    monkeypatch.undo()
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        torch.load(path, weights_only=True)
    found = open_torch(path)
    assert_equal(found["model"]["weight"].stored, weight.weight)
    assert_equal(found["optimizer"]["state"][0]["exp_avg"].stored, optimizer.state[weight.weight]["exp_avg"])
    assert found["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)
    assert (found["max_accuracy"], found["epoch"]) == (78.2, 299)
    assert isinstance(found["config"], Inert)
    assert found["config"].kind == "yacs.config.CfgNode"
    assert found["config"].state == {"_immutable": True}
    assert found["config"].contents["DATA"].contents == {"IMG_SIZE": 224}
    assert "yacs" not in sys.modules


def test_harmless_company(save):
    value = {
        "args": argparse.Namespace(lr=0.1),
        "path": pathlib.PurePosixPath("/data"),
        "device": torch.device("cpu"),
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "counter": collections.Counter("aab"),
        "default": collections.defaultdict(list),
        "set": {1, 2},
        "a": TENSORS["row"],
    }
    found = open_torch(save(value))
    assert found["args"].state == {"lr": 0.1}
    assert (found["size"], str(found["dtype"])) == ((1, 2), "torch.float16")
    assert_equal(found["a"].stored, TENSORS["row"])


class Trap:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_calls_are_refused_by_name_or_skipped_but_never_made(save, tmp_path):
    path = save({"model": {"a": TENSORS["row"]}, "config": Trap(tmp_path / "trap")})
    with pytest.raises(WeightsFileError, match=r"is to call posix\.mkdir.*Nothing was run"):
        open_torch(path)
    found = open_torch(path, skip_calls=True)
    assert_equal(found["model"]["a"].stored, TENSORS["row"])
    assert found["config"].arguments == (str(tmp_path / "trap"),)
    assert not (tmp_path / "trap").exists()


def test_a_whole_module_is_read_but_holds_no_names(save):
    assert isinstance(open_torch(save(torch.nn.Linear(2, 2))), Inert)


def test_a_flipped_bit_in_a_tensor_is_noticed(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(1000), "b": torch.zeros(3)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(b"\0\0\x80\x3f" * 10) + 1000] ^= 4
    path.write_bytes(data)
    found = open_torch(path)
    with pytest.raises(WeightsFileError, match=r"damaged: .*Bad CRC-32"):
        found["a"].stored.read()
    assert_equal(found["b"].stored, torch.zeros(3))
