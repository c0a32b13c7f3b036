"""A file that is none of ours is named by what it is, with the next step, by every command that takes weights."""

import json
import re
import struct
import zipfile

import numpy as np
import pytest
import torch

import paddle_inline
from convert.__main__ import main
from paddle_inline.training.checkpoint import CheckpointError, find_checkpoint
from paddle_inline.weights.foreign import kind_of
from paddle_inline.weights.lazy_array import WeightsFileError
from paddle_inline.weights.load import open_weights
from tests.convert.hostile import good_state


def torch_script(path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))


def written(data):
    return lambda path: path.write_bytes(data)


def zipped(*names):
    def make(path):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "x")

    return make


PROGRAM = json.dumps({"base_code": {"magic": "pir"}, "program": {"regions": []}}).encode()
FOREIGN = {
    "m.onnx": (written(b"\x08\x07\x12\x07pytorch\x1a\x032.0" + b"\0" * 99), "an ONNX model"),
    "m.bin": (written(b"\x08\x07\x12\x07pytorch\x1a\x032.0" + b"\0" * 99), "an ONNX model"),
    "m.pdiparams": (written(b"\0" * 20 + b"\x08\x05\x10\x03" * 9), r"weights of a Paddle Inference export"),
    "m.dat": (written(b"\0" * 20 + b"\x08\x05\x10\x03" * 9), r"weights of a Paddle Inference export"),
    "m.pdmodel": (written(b"\n\x93\x01\x08\0" * 9), "program of a Paddle Inference export"),
    "inference.json": (written(PROGRAM), r"program of a Paddle Inference export \(\.json\)"),
    "config.json": (written(b'{"hidden_size": 3}'), "a JSON file"),
    "m.pt": (torch_script, r"a TorchScript program.*torch\.jit\.load"),
    "m.h5": (written(b"\x89HDF\r\n\x1a\n" + b"\0" * 99), r"an HDF5 file \(Keras or TensorFlow weights\)"),
    "m.pth": (written(b"\x89HDF\r\n\x1a\n" + b"\0" * 99), r"an HDF5 file \(Keras or TensorFlow weights\)"),
    "m.keras": (zipped("metadata.json", "config.json", "model.weights.h5"), "a Keras model"),
    "m.npz": (lambda path: np.savez(path, a=np.ones(3), b=np.ones(2)), r"numpy arrays \(\.npz\).*state dict"),
    "m.npy": (lambda path: np.save(path, np.ones(3)), r"a numpy array \(\.npy\)"),
    "m.tflite": (written(b"\x1c\0\0\0TFL3" + b"\0" * 99), "a TensorFlow Lite model"),
    "model.ckpt.index": (written(b"\0\1\2" * 40), "the index of a TensorFlow checkpoint"),
    "model.ckpt.data-00000-of-00001": (written(b"\1\2\3" * 40), "a part of a TensorFlow checkpoint"),
    "m.gguf": (written(b"GGUF\3\0\0\0" + b"\0" * 99), "a GGUF file"),
    "m.msgpack": (written(b"\x81\xa6params" + b"\0" * 99), "a msgpack file"),
    "m.tar": (written(b"a" + b"\0" * 256 + b"ustar\x0000" + b"\0" * 300), "a tar archive.*: unpack it"),
    "m.pth.gz": (written(b"\x1f\x8b\x08" + b"\0" * 99), "a gzip archive.*: unpack it"),
    "lfs.pth": (
        written(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
        "Git LFS.*git lfs pull",
    ),
    "page.pdparams": (written(b"<!DOCTYPE html><html>Sign in</html>"), "a web page"),
    "m.xml": (written(b'<?xml version="1.0"?><net name="m"/>'), "an XML file"),
    "notes.txt": (written(b"the weights are elsewhere\n"), "a text file"),
    "__0_0.distcp": (
        written(b"\x80\2}q\0." * 9),
        r"one rank's part.*dcp_to_torch",
    ),
    "other.zip": (zipped("a/b.txt"), "a zip file, but not one that torch.save wrote"),
    "m.jpg": (written(b"\xff\xd8\xff\xe0" + b"\0" * 99), "a JPEG picture"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_named_with_the_next_step(tmp_path, name, capsys):
    make, message = FOREIGN[name]
    make(tmp_path / name)
    for command in (["inspect"], ["to-paddle", tmp_path / "out.pdparams"]):
        assert main([command[0], str(tmp_path / name), *map(str, command[1:])]) == 3
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1
        assert re.search(message, said), said
    with pytest.raises(WeightsFileError, match=message) as caught:
        open_weights(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name} is ")
    assert [path.name for path in tmp_path.iterdir()] == [name]


FOLDERS = {
    "distcp": (
        [".metadata", "__0_0.distcp"],
        r"a distributed checkpoint of PyTorch.*dcp_to_torch .* OUT\.pth",
    ),
    "zero": (
        ["latest", "zero_to_fp32.py", "global_step9"],
        r"a checkpoint of DeepSpeed: gather .*zero_to_fp32\.py",
    ),
    "zero inside": (["zero_pp_rank_0_mp_rank_00_model_states.pt"], r"DeepSpeed.*zero_to_fp32\.py"),
    "savedmodel": (["saved_model.pb", "variables"], "a SavedModel of TensorFlow"),
    "export": (["inference.json", "inference.pdiparams"], "an export for Paddle Inference"),
    "unpacked": (["data.pkl", "version", "data"], "an unpacked PyTorch checkpoint"),
    "checkpoints": (["a.pth", "b.pth"], r"a folder of checkpoints: name one: a\.pth, b\.pth"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_foreign_folder_is_named_with_the_next_step(tmp_path, name, capsys):
    files, message = FOLDERS[name]
    folder = tmp_path / name
    folder.mkdir()
    for file in files:
        (folder / file).write_bytes(b"x")
    assert main(["inspect", str(folder)]) == 3
    assert re.search(message, capsys.readouterr().err)
    if name != "checkpoints":
        assert main(["to-paddle", str(folder), str(tmp_path / "out")]) == 3
        assert re.search(message, capsys.readouterr().err)
        assert not (tmp_path / "out").exists()
    with pytest.raises(WeightsFileError, match=message):
        open_weights(folder)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_where_paddles_is_wanted_names_the_converter(tmp_path, zipped):
    path = tmp_path / "a b.pth"
    torch.save({"model": good_state()}, path, _use_new_zipfile_serialization=zipped)
    command = f"python -m convert to-paddle '{path}' '{tmp_path / 'a b.pdparams'}'"
    message = f"{path} is a PyTorch checkpoint; convert it first: {command}"
    for use in (open_weights, lambda file: paddle_inline.create_model("inline_deit_digits", weights=file)):
        with pytest.raises(WeightsFileError) as caught:
            use(path)
        assert str(caught.value) == message
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(path)
    assert message in str(caught.value)
    assert "--training" in str(caught.value)


def test_safetensors_of_torch_name_the_converter(tmp_path):
    from safetensors.torch import save_file

    save_file(good_state(), tmp_path / "a.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsFileError, match=r"PyTorch's names and layouts.*python -m convert to-paddle"):
        open_weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize("flag", ["--pretrained", "--resume"])
def test_train_and_evaluate_name_the_converter(tmp_path, flag, capsys):
    import train_paddle

    torch.save({"model": good_state()}, tmp_path / "a.pth")
    arguments = ["--cfg", "configs/quickstart.yaml", flag, str(tmp_path / "a.pth"), "--output", str(tmp_path)]
    for more in ([], ["--eval"]):
        assert train_paddle.main([*arguments, *more]) == 2
        said = capsys.readouterr().err
        assert f"python -m convert to-paddle {tmp_path / 'a.pth'} {tmp_path / 'a.pdparams'}" in said


def test_a_name_that_lies_changes_nothing(tmp_path):
    torch.save(good_state(), tmp_path / "a.onnx")
    assert kind_of(tmp_path / "a.onnx") == ("a PyTorch checkpoint", "")
    (tmp_path / "b").write_bytes(struct.pack("<Q", 2) + b"{}")
    assert kind_of(tmp_path / "b") == ("safetensors", "")


def test_the_output_s_folder_is_made(tmp_path):
    torch.save(good_state(), tmp_path / "a.pth")
    target = tmp_path / "new" / "deep" / "m.pdparams"
    assert main(["to-paddle", str(tmp_path / "a.pth"), str(target), "--no-verify"]) == 0
    assert target.exists()
    torch.save({"x": torch.ones(1)}, tmp_path / "b.pth")
    assert main(["to-paddle", str(tmp_path / "b.pth"), str(tmp_path / "other" / "m.pdparams")]) == 4
    assert not (tmp_path / "other").exists()
