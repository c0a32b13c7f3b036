"""Repositories of model servers: what they hold is what the servers' own definitions ask for."""

import json
import re

import pytest

from paddle_inline.cli.main import main
from paddle_inline.inference import serving
from paddle_inline.inference.serving import add_to_ovms, add_to_triton
from paddle_inline.utils.errors import UserError

onnx = pytest.importorskip("onnx")

TRANSFORM = {"img_size": 32, "mean": [0.5], "std": [0.5]}


def make_export(folder, batch=None, classes=("a", "b c"), program=True):
    """Write an export of a program that does nothing: what a server's files are made of is its card and its names."""
    folder.mkdir()
    names = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", 2]) for n in ("x", "logits")]
    node = onnx.helper.make_node("Identity", ["x"], ["logits"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", names[:1], names[1:]))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    card = {
        "format": 1,
        "model": "inline_deit_digits",
        "num_classes": 2,
        "classes": classes and list(classes),
        "preprocessing": TRANSFORM,
        "input": {"shape": [batch, 3, 32, 32]},
        "output": {"shape": [batch, 2]},
        "files": {"program": "model.json", "params": "p", "onnx": "model.onnx" if program else None},
        "onednn": True,
    }
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def test_triton_gets_a_version_a_configuration_and_labels(tmp_path):
    export = make_export(tmp_path / "e")
    version = add_to_triton(export, tmp_path / "models")
    assert version == tmp_path / "models" / "inline_deit_digits" / "1"
    assert (version / "model.onnx").read_bytes() == (export / "model.onnx").read_bytes()
    assert json.loads((version / "card.json").read_text())["preprocessing"] == TRANSFORM
    assert (version.parent / "labels.txt").read_text() == "a\nb c\n"
    assert (version.parent / "config.pbtxt").read_text() == (
        'name: "inline_deit_digits"\n'
        'backend: "onnxruntime"\n'
        "max_batch_size: 64\n"
        'input [ { name: "x", data_type: TYPE_FP32, dims: [3, 32, 32] } ]\n'
        'output [ { name: "logits", data_type: TYPE_FP32, dims: [2], label_filename: "labels.txt" } ]\n'
        "dynamic_batching { }\n"
    )
    assert sorted(path.name for path in version.parent.iterdir()) == ["1", "config.pbtxt", "labels.txt"]
    assert add_to_triton(export, tmp_path / "models").name == "2"


def test_a_fixed_batch_is_part_of_the_shape_and_nothing_is_joined(tmp_path):
    version = add_to_triton(
        make_export(tmp_path / "e", batch=4, classes=None), tmp_path / "models", "digits.v2"
    )
    text = (version.parent / "config.pbtxt").read_text()
    assert "max_batch_size: 0" in text and "dims: [4, 3, 32, 32]" in text and "dims: [4, 2]" in text
    assert "dynamic_batching" not in text and "label" not in text
    assert 'name: "digits.v2"' in text and version.parent.name == "digits.v2"


@pytest.mark.parametrize("batch", [None, 4])
def test_the_configuration_is_one_of_tritons_own_message(tmp_path, batch):
    try:
        message = pytest.importorskip("tritonclient.grpc.model_config_pb2").ModelConfig
    except RuntimeError as error:  # tritonclient without its part for gRPC
        pytest.skip(str(error))
    from google.protobuf import text_format

    version = add_to_triton(make_export(tmp_path / "e", batch), tmp_path / "models")
    config = text_format.Parse((version.parent / "config.pbtxt").read_text(), message())
    assert config.max_batch_size == (64 if batch is None else 0)
    assert list(config.input[0].dims) == [3, 32, 32] if batch is None else [4, 3, 32, 32]
    assert config.HasField("dynamic_batching") == (batch is None)


def test_versions_of_a_name_have_the_same_input_and_classes(tmp_path):
    add_to_triton(make_export(tmp_path / "a"), tmp_path / "models")
    for other in (make_export(tmp_path / "b", batch=2), make_export(tmp_path / "c", classes=["x", "y"])):
        with pytest.raises(UserError, match=r"give another name \(--name\)"):
            add_to_triton(other, tmp_path / "models")
    assert [p.name for p in (tmp_path / "models" / "inline_deit_digits").iterdir() if p.name.isdigit()] == [
        "1"
    ]


# Of the server's schema of config.json: what an entry must and may have.
MUST, MAY = {"name", "base_path"}, {"batch_size", "shape", "nireq", "target_device", "plugin_config"}


def broken(config):
    """Return what the server would refuse in a configuration, in words; empty: nothing."""
    if set(config) != {"model_config_list"}:
        return "keys"
    for entry in config["model_config_list"]:
        if set(entry) != {"config"} or not MUST <= set(entry["config"]) <= MUST | MAY:
            return "entry"
        if not all(isinstance(entry["config"][key], str) for key in MUST):
            return "types"
    return ""


def test_openvino_model_server_gets_a_list_that_keeps_its_other_models(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    theirs = {"config": {"name": "other", "base_path": "/elsewhere", "nireq": 2}}
    (models / "config.json").write_text(json.dumps({"model_config_list": [theirs]}))
    export = make_export(tmp_path / "e")
    assert add_to_ovms(export, models) == models / "inline_deit_digits" / "1"
    assert add_to_ovms(export, models).name == "2"
    config = json.loads((models / "config.json").read_text())
    ours = {"config": {"name": "inline_deit_digits", "base_path": "inline_deit_digits"}}
    assert config == {"model_config_list": [theirs, ours]}
    assert broken(config) == "" and broken({"models": []}) == "keys"
    assert broken({"model_config_list": [{"config": {"name": "x"}}]}) == "entry"


@pytest.mark.parametrize("text", ["no json", "[]", '{"model_config_list": [{}]}', '{"model_config_list": 1}'])
def test_a_list_of_something_else_is_refused_and_stays(tmp_path, text):
    models = tmp_path / "models"
    models.mkdir()
    (models / "config.json").write_text(text)
    with pytest.raises(UserError, match="no configuration of OpenVINO Model Server"):
        add_to_ovms(make_export(tmp_path / "e"), models)
    assert (models / "config.json").read_text() == text
    assert [path.name for path in models.iterdir()] == ["config.json"]


@pytest.mark.parametrize("add", [add_to_triton, add_to_ovms])
def test_what_cannot_be_served_is_said_before_anything_is_written(tmp_path, add):
    with pytest.raises(UserError, match=r"no ONNX file.*--onnx"):
        add(make_export(tmp_path / "e", program=False), tmp_path / "models")
    export = make_export(tmp_path / "f")
    for name in ("a/b", "..", " x", "caf\u00e9"):
        with pytest.raises(UserError, match=re.escape(repr(name))):
            add(export, tmp_path / "models", name)
    assert not (tmp_path / "models").exists()


def test_a_version_is_whole_or_not_there(tmp_path, monkeypatch):
    def full_disk(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serving.shutil, "copyfile", full_disk)
    with pytest.raises(UserError, match="No space left"):
        add_to_triton(make_export(tmp_path / "e"), tmp_path / "models")
    assert not (tmp_path / "models" / "inline_deit_digits").exists()


def test_the_command_exports_and_adds(tmp_path, monkeypatch, capsys):
    from paddle_inline.cli import export as command

    given = {}

    def export_model(model, directory, **options):
        given.update(options)
        make_export(tmp_path / "out")

    monkeypatch.setattr(command, "export_model", export_model)
    monkeypatch.setattr("paddle_inline.models.create_model", lambda *a, **k: type("M", (), {"name": "m"})())
    monkeypatch.setattr("paddle_inline.weights.load.find_weights", lambda path: path)
    where = ["--weights", "w", "--output", str(tmp_path / "out")]
    assert main(["export", *where, "--name", "x"]) == 2
    assert "--name goes with --triton or --ovms" in capsys.readouterr().err
    servers = ["--triton", str(tmp_path / "t"), "--ovms", str(tmp_path / "o"), "--name", "x"]
    assert main(["export", *where, *servers]) == 0
    assert given["onnx"] is True
    assert (tmp_path / "t" / "x" / "1" / "model.onnx").is_file()
    assert (tmp_path / "o" / "x" / "1" / "model.onnx").is_file()
