"""A file that is none of ours is named by what it is, with the next step, by every command that takes weights."""

import io
import json
import os
import pickle
import re
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import paddle_inline
from convert.__main__ import main
from convert.checkpoint import ConversionOptions, open_checkpoint
from paddle_inline.training.checkpoint import CheckpointError, find_checkpoint
from paddle_inline.utils.errors import MissingFileError, UserError
from paddle_inline.weights.foreign import kind_of
from paddle_inline.weights.lazy_array import WeightsFileError
from paddle_inline.weights.load import open_weights
from tests.convert.hostile import SMALL, good_state


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
    "shut.pth": (written(b"\0" * 4000), r"nothing but zeros.*4,000 bytes.*download or copy it again"),
    "gone.pth": (
        written(b"Entry not found"),
        r"a text \('Entry not found'\), not the file.*download it again",
    ),
    "denied.pth": (written(b"<Error><Code>AccessDenied</Code></Error>"), r"a server's answer.*AccessDenied"),
    "api.pth": (written(b'{"error": "no such repository"}'), r"a server's answer.*no such repository"),
    "scan.pth": (written(b"<!-- x --><head><title>Virus scan warning"), "a web page.*download it again"),
    "m.pth.crdownload": (written(b"PK\3\4" + b"\1" * 99), "a download that is not finished"),
    "cut.safetensors": (
        written(b"\xff\xff\0\0\0\0\0\0{" + b'"a"' * 99),
        "a safetensors file that is cut short",
    ),
    "text.pkl": (written(b"ccollections\nOrderedDict\np0\n"), "a pickle of protocol 0.*protocol 2 or later"),
    "m.joblib": (written(b"\x78\x9c" + b"\1" * 99), r"a zlib stream \(as joblib writes it\)"),
    "checkpoint_9": (written(b"\x82\xa6params\x81" + b"\xc7" * 99), r"a msgpack file \(Flax weights\)"),
    "m.mnn": (written(b"\x18\0\0\0\0\0\x0e\0" + b"\1" * 99), "an MNN model"),
    "m.caffemodel": (written(b"\n\x07AlexNet\xa2\x06" + b"\1" * 99), "a Caffe model"),
    "m.onnx.data": (written(b"\x0b\x7f\x0c\x3f\xa6" * 20), "the numbers of an ONNX model"),
    "zero_pp_rank_0_mp_rank_00_optim_states.pt": (
        lambda path: torch.save({"optimizer_state_dict": {}}, path),
        r"a part of DeepSpeed's optimizer state.*zero_to_fp32\.py",
    ),
    "exported.pth": (
        zipped("m/models/model.json", "m/archive_format"),
        r"a program of torch\.export \(\.pt2\)",
    ),
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
    "empty": ([], "an empty folder: give a file of weights"),
    "orbax": (["_METADATA", "manifest.ocdbt"], r"a checkpoint of Orbax \(JAX\)"),
    "m.mlpackage": (["Manifest.json"], "a Core ML model"),
    "openvino": (["m.xml", "m.bin"], "an OpenVINO export"),
    "tensorflow": (["checkpoint", "model.ckpt.index"], "a checkpoint of TensorFlow"),
    "ours": (
        ["card.json", "inference.json", "inference.pdiparams"],
        "an export of this package: give it to Predictor",
    ),
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


def test_a_checkpoint_in_a_folder_below_is_named(tmp_path):
    (tmp_path / "run" / "pytorch_model_fsdp_0").mkdir(parents=True)
    (tmp_path / "run" / "pytorch_model_fsdp_0" / ".metadata").write_bytes(b"x")
    with pytest.raises(
        WeightsFileError, match=r"a folder with a distributed checkpoint .* in pytorch_model_fsdp_0"
    ):
        open_weights(tmp_path / "run")


def test_the_numbers_beside_an_openvino_program(tmp_path):
    (tmp_path / "m.xml").write_text('<?xml version="1.0"?><net/>')
    (tmp_path / "m.bin").write_bytes(b"\x0b\x7f\x0c\x3f\xa6" * 20)
    assert kind_of(tmp_path / "m.bin")[0] == "the numbers of an OpenVINO export"


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.pth")
    assert kind_of(tmp_path / "a.pth") == ("", "")
    with pytest.raises(WeightsFileError, match="is a device or pipe"):
        open_weights(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds no checkpoint: give a run's folder"):
        find_checkpoint(tmp_path / "a.pth")


def test_what_holds_the_bytes_decides_not_the_name(tmp_path):
    arrays = {name: value.numpy() for name, value in good_state().items()}
    safetensors.numpy.save_file(arrays, tmp_path / "a.pdparams")
    assert set(open_weights(tmp_path / "a.pdparams")[0]) == set(arrays)
    (tmp_path / "b.safetensors").write_bytes(pickle.dumps(arrays, 4))
    assert set(open_weights(tmp_path / "b.safetensors")[0]) == set(arrays)


def test_names_that_lead_nowhere(tmp_path):
    with pytest.raises(
        MissingFileError, match=r"https://example\.org/m\.pdparams is an address: download the file"
    ):
        open_weights("https://example.org/m.pdparams")
    (tmp_path / "best.pdparams").symlink_to(tmp_path / "gone")
    with pytest.raises(MissingFileError, match=rf"is a link to {tmp_path / 'gone'}, which is not there"):
        open_weights(tmp_path / "best.pdparams")


def test_a_matrix_of_pytorchs_is_seen(tmp_path):
    arrays = {name: value.numpy() for name, value in good_state().items()}
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(arrays, 4))
    out = tmp_path / "a_paddle.pdparams"
    message = (
        rf"matrices are turned, as PyTorch's are: python -m convert to-paddle {tmp_path / 'a.pdparams'} {out}"
    )
    with pytest.raises(UserError, match=message):
        paddle_inline.create_model("inline_deit_digits", tmp_path / "a.pdparams", **SMALL)
    (tmp_path / "b.pdparams").write_bytes(pickle.dumps({"linear_0.w_0_moment1_0": np.ones(3)}, 4))
    with pytest.raises(UserError, match="they are an optimizer's state: give the weights"):
        paddle_inline.create_model("inline_deit_digits", tmp_path / "b.pdparams", **SMALL)


WHOLE = {}


def whole(form):
    """The bytes of a sound file, made once."""
    if form not in WHOLE:
        buffer = io.BytesIO()
        if form == "safetensors":
            buffer.write(safetensors.torch.save(good_state()))
        elif form == "pickle":
            buffer.write(pickle.dumps({name: value.numpy() for name, value in good_state().items()}, 4))
        else:
            torch.save(good_state(), buffer, _use_new_zipfile_serialization=form == "zip")
        WHOLE[form] = buffer.getvalue()
    return WHOLE[form]


@settings(derandomize=True, max_examples=80, deadline=None)
@given(
    st.sampled_from(["zip", "stream", "safetensors", "pickle"]),
    st.floats(0, 0.999),
    st.sampled_from(["cut", "zeros", "html", "mixed"]),
    st.sampled_from(["a.pth", "a.pdparams", "a.safetensors", "a", "a.ckpt"]),
)
def test_a_damaged_file_is_refused_by_name(tmp_path_factory, form, share, damage, name):
    """Whatever is left of a download, each reader says which file it is, in one line, and that it is not whole."""
    data = whole(form)
    kept = int(len(data) * share)
    rest = {
        "cut": b"",
        "zeros": bytes(len(data) - kept),
        "html": b"<html>busy</html>",
        "mixed": data[: len(data) - kept],
    }
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(data[:kept] + rest[damage])
    for read in (lambda: open_checkpoint(path, ConversionOptions()), lambda: open_weights(path)):
        try:
            read()
        except UserError as error:
            assert str(path) in str(error) and "Traceback" not in str(error)
        else:
            assert damage != "cut", (form, share)  # (not every number has a checksum)
