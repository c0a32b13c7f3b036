"""Exported files compute what the model does, for any batch, or are not written."""

import functools
import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

from convert.families import small_models  # noqa: E402
from paddle_inline import create_model  # noqa: E402
from paddle_inline.inference import checks, export, onnx_export  # noqa: E402
from paddle_inline.inference.backends import (  # noqa: E402
    PRECISIONS,
    CompiledEngine,
    OnnxEngine,
    OpenVinoEngine,
    PaddleEngine,
    check_readable,
)
from paddle_inline.inference.card import files_of, read_card  # noqa: E402
from paddle_inline.inference.checks import compare  # noqa: E402
from paddle_inline.inference.export import ExportError, export_model, trace  # noqa: E402
from paddle_inline.inference.onnx_export import check_pads, write_onnx  # noqa: E402
from paddle_inline.inference.openvino_graph import simplify  # noqa: E402
from paddle_inline.layers.basic import TanhGELU  # noqa: E402
from paddle_inline.utils.child import run_python  # noqa: E402
from paddle_inline.utils.errors import MissingPackageError, UserError  # noqa: E402

SMALL = {label: (model.name, model.overrides) for label, model in small_models().items()}  # of every family
SMALL["digits"] = (
    "inline_deit_digits",
    {"depth": 2},
)  # the last block's filter does not reach the class token


def small(label):
    name, overrides = SMALL[label]
    return create_model(name, **overrides)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """(model, folder) of an export for any batch."""
    folder, lines = tmp_path_factory.mktemp("digits"), []
    model = small("digits")
    card = export_model(model, folder, top1=97.5, classes=list("abcdefghij"), log=lines.append)
    return model, folder, card, lines


NO_ONNX = "paddle2onnx needs Paddle 3" if paddle.__version__.startswith("2.") else ""
for module in ("paddle2onnx", "onnxruntime", "openvino"):
    NO_ONNX = NO_ONNX or ("" if find_spec(module) else f"{module} is not installed")
needs_onnx = pytest.mark.skipif(bool(NO_ONNX), reason=NO_ONNX)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """By a family's name, once: (small model in eval mode, folder of its export for any batch, ONNX if possible)."""

    @functools.cache
    def export(name):
        folder, model = tmp_path_factory.mktemp(name), small(name)
        if NO_ONNX:
            trace(model, folder / "model", None)
        elif name == "digits":
            export_model(model, folder, onnx=True, log=lambda line: None)
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(onnx_export, "run_python", run_here)
                patch.setattr(checks, "run_python", run_here)
                export_model(model, folder, onnx=True, log=lambda line: None)
        model.eval()
        return model, folder

    return export


def run_here(code, *arguments):
    """`run_python` for code that does not fail, without a process that loads Paddle again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", *map(str, arguments)])
        exec(code, {})
    return subprocess.CompletedProcess([], 0, "", "")


def test_the_card_says_what_was_written(digits):
    model, folder, card, lines = digits
    assert read_card(folder) == json.loads((folder / "card.json").read_text()) == card
    assert sorted(path.name for path in folder.iterdir()) == sorted(files_of(card))
    assert (card["model"], card["num_classes"], card["top1"]) == ("inline_deit_digits", 10, 97.5)
    assert card["input"]["shape"] == [None, 3, 32, 32]
    assert card["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert [row["engine"] for row in card["checks"]] == ["Paddle Inference", "Paddle Inference with oneDNN"]
    assert len(lines) == 2 and all("agrees to" in line for line in lines)
    assert model.training


@pytest.mark.parametrize("name", SMALL)
def test_one_file_serves_batches_of_1_3_and_8(name, exported):
    model, folder = exported(name)
    program = next(path for path in folder.glob("model.*") if path.suffix in (".json", ".pdmodel"))
    engine = PaddleEngine(program, folder / "model.pdiparams", threads=1, onednn=True)
    for batch in (1, 3, 8):
        images = np.random.RandomState(batch).standard_normal((batch, 3, *model.img_size)).astype("float32")
        with paddle.no_grad():
            compare([engine(images)], [model(paddle.to_tensor(images)).numpy()], name)


FROZEN = """
import sys
from paddle_inline import create_model  # noqa: E402
from paddle_inline.inference.export import export_model
from paddle_inline.ops import inline_attention
inline_attention._filter_shifted = inline_attention._filter_grouped
export_model(create_model("inline_deit_digits"), sys.argv[1], batch=2)
"""


@pytest.mark.skipif(paddle.__version__.startswith("2."), reason="Paddle 2.6 has not got this fault")
def test_a_filter_frozen_at_the_first_call_is_found(tmp_path):
    done = run_python(FROZEN, tmp_path / "out")  # in a fresh process: the tracer keeps what it traced
    assert "oneDNN differs from the model" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_program_that_differs_leaves_an_earlier_export_as_it_was(digits, monkeypatch):
    model, folder, _, _ = digits
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(checks, "run_onednn_apart", lambda *given: [np.zeros((1, 10)), np.zeros((3, 10))])
    with pytest.raises(ExportError, match="with oneDNN differs from the model"):
        export_model(model, folder, log=lambda line: None)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_crash_of_onednn_is_survived_and_said(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "run_onednn_apart", lambda *given: "Unimplemented: something")
    lines = []
    card = export_model(small("digits"), tmp_path, log=lines.append)
    assert card["onednn"] is False
    assert lines[-1].endswith("left off: Unimplemented: something")


def test_a_child_that_dies_hands_back_its_last_words(tmp_path):
    missing = tmp_path / "no.json"
    assert "no program" in checks.run_onednn_apart(missing, missing, [np.zeros((1, 3, 8, 8))])


def test_compare_sees_differences_shapes_and_nans():
    truth = np.array([[1.0, 200.0]])
    assert compare([truth + 1e-3], [truth], "it") == pytest.approx(5e-6)
    for wrong in (truth + 1e-2, truth * np.nan, truth[:, :1]):
        with pytest.raises(ExportError, match="it "):
            compare([wrong], [truth], "it")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"batch": 0}, "batch 0"), ({"classes": ["a"]}, "1 class name for a model of 10")],
)
def test_mistakes_are_refused_before_anything_is_written(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_model(small("digits"), tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_programs_of_two_generations_of_paddle_are_told_apart(tmp_path, monkeypatch):
    program = tmp_path / "model.json"
    with pytest.raises(FileNotFoundError, match="no program"):
        check_readable(program)
    program.write_text("{}")
    monkeypatch.setattr(paddle, "__version__", "3.3.1")
    check_readable(program)
    monkeypatch.setattr(paddle, "__version__", "2.6.2")
    with pytest.raises(ValueError, match=r"written by Paddle 3, this is Paddle 2\.6\.2"):
        check_readable(program)
    (tmp_path / "model.onnx").write_text("")
    with pytest.raises(ValueError, match="no Paddle program"):
        check_readable(tmp_path / "model.onnx")


def test_a_card_cannot_point_outside_its_folder(tmp_path):
    (tmp_path / "card.json").write_text('{"format": 1, "files": {"program": "../model.json"}}')
    with pytest.raises(ValueError, match="beside it"):
        read_card(tmp_path)
    (tmp_path / "card.json").write_text('{"format": 2, "files": {}}')
    with pytest.raises(ValueError, match="format 2"):
        read_card(tmp_path)


def test_a_card_that_lacks_an_entry_is_refused(tmp_path):
    (tmp_path / "card.json").write_text('{"format": 1, "files": {"program": "model.json"}, "model": "a"}')
    with pytest.raises(UserError, match=r"lacks num_classes, classes, .*: export the model again"):
        read_card(tmp_path)


def test_a_folder_that_cannot_be_made_is_the_users_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        export_model(small("digits"), tmp_path / "file" / "out")


def pad_model(path, value):
    onnx = pytest.importorskip("onnx")
    tensor = onnx.helper.make_tensor_value_info
    pads = onnx.numpy_helper.from_array(np.array([1, 1]), "pads")
    fill = onnx.numpy_helper.from_array(np.array(value, np.float32), "fill")
    node = onnx.helper.make_node("Pad", ["x", "pads", "fill"], ["y"], name="pad")
    x, y = tensor("x", 1, [2]), tensor("y", 1, [4])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y], [pads, fill])), str(path))


def test_a_pad_that_fills_with_garbage_is_found(tmp_path):
    pad_model(tmp_path / "good.onnx", 0)
    check_pads(tmp_path / "good.onnx")
    pad_model(tmp_path / "bad.onnx", -1.9e23)
    with pytest.raises(ExportError, match=r"'pad' fills with -1\.9"):
        check_pads(tmp_path / "bad.onnx")


@needs_onnx
@pytest.mark.parametrize("name", SMALL)
def test_onnx_agrees_at_any_batch(name, exported):
    model, folder = exported(name)
    assert [row["engine"] for row in read_card(folder)["checks"]][-2:] == ["ONNX Runtime", "OpenVINO"]
    engines = OnnxEngine(folder / "model.onnx", threads=1), OpenVinoEngine(folder / "model.onnx", 1)
    images = np.random.RandomState(8).standard_normal((8, 3, *model.img_size)).astype("float32")
    with paddle.no_grad():
        expected = model(paddle.to_tensor(images)).numpy()
    for engine in engines:
        compare([engine(images)], [expected], name)


@needs_onnx
@pytest.mark.parametrize("name", SMALL)
def test_openvino_filters_by_convolutions_where_the_batch_is_known(name, exported):
    """As many as there are filters; none of the nine shifted products of the file is left."""
    from paddle_inline.inference.openvino_graph import openvino_core

    program = openvino_core().read_model(str(exported(name)[1] / "model.onnx"))
    kinds = [node.get_type_name() for node in program.get_ordered_ops()]
    filters = [
        node
        for node in program.get_ordered_ops()
        if node.get_type_name() == "VariadicSplit" and node.get_output_size() == 9
    ]
    filtered = any(getattr(layer, "residual", None) is not None for layer in exported(name)[0].sublayers())
    assert bool(filters) == filtered
    shape = program.input(0).partial_shape
    shape[0] = 2
    program.reshape(shape)
    simplify(program)
    after = [node.get_type_name() for node in program.get_ordered_ops()]
    assert after.count("GroupConvolution") == kinds.count("GroupConvolution") + len(filters)
    assert after.count("Slice") <= kinds.count("Slice") - 9 * len(filters) and "Identity" not in after


@needs_onnx
def test_openvino_compiles_for_the_first_batch_sizes(exported, tmp_path):
    model, folder = exported("digits")
    path = folder / "model.onnx"
    engine = OpenVinoEngine(path, 1, batches=2)
    images = np.random.RandomState(0).standard_normal((5, 3, 32, 32)).astype("float32")
    with paddle.no_grad():
        expected = model(paddle.to_tensor(images)).numpy()
    for batch in (5, 2, 3, 1, 5):
        compare([engine(images[:batch])], [expected[:batch]], "OpenVINO")
    assert list(engine.requests) == [5, 2, None]  # 3 and 1 came too late
    assert OpenVinoEngine(path, 1)(images[:0]).shape == (0, 10)

    export_model(model, tmp_path / "fixed", batch=2, onnx=True, log=lambda line: None)
    engine = OpenVinoEngine(tmp_path / "fixed" / "model.onnx", 1)
    compare([engine(images[:2])], [expected[:2]], "OpenVINO")
    with pytest.raises(RuntimeError, match="2,3,32,32"):
        engine(images[:3])


@needs_onnx
def test_openvino_in_bfloat16_is_near(exported):
    path = exported("digits")[1] / "model.onnx"
    images = np.random.RandomState(0).standard_normal((3, 3, 32, 32)).astype("float32")
    full, half = (OpenVinoEngine(path, 1, precision)(images) for precision in PRECISIONS)
    np.testing.assert_allclose(half, full, rtol=0, atol=0.05 * np.abs(full).max())
    with pytest.raises(ValueError, match="precision"):
        OpenVinoEngine(path, precision="int4")


def test_a_compiled_model_serves_any_batch():
    model = small("digits")
    engine = CompiledEngine(model)
    for batch in (1, 3):
        images = np.random.RandomState(batch).standard_normal((batch, 3, 32, 32)).astype("float32")
        with paddle.no_grad():
            compare([engine(images)], [model(paddle.to_tensor(images)).numpy()], "to_static")
    with pytest.raises(ValueError, match="bf16 is for a GPU"):
        CompiledEngine(model, "bf16")


@pytest.mark.gpu
@pytest.mark.skipif(not paddle.is_compiled_with_cuda(), reason="a Paddle without CUDA")
def test_export_agrees_on_a_gpu(digits):
    model, folder, card, _ = digits
    images = np.random.RandomState(0).standard_normal((3, 3, 32, 32)).astype("float32")
    engine = PaddleEngine(folder / card["files"]["program"], folder / card["files"]["params"], "gpu")
    model.eval()
    with paddle.no_grad():
        expected = model(paddle.to_tensor(images)).numpy()
    np.testing.assert_allclose(engine(images), expected, rtol=0, atol=1e-3)  # TF32 is on there


@needs_onnx
def test_onnx_keeps_the_approximate_gelu(tmp_path):
    layer = TanhGELU()
    paddle.jit.save(layer, str(tmp_path / "m"), input_spec=[paddle.static.InputSpec([-1, 5], "float32")])
    write_onnx(tmp_path / "m.json", tmp_path / "m.pdiparams", tmp_path / "m.onnx")
    x = np.array([[-2.0, -0.5, 0.1, 1.0, 2.5]], "float32")
    tanh = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(OnnxEngine(tmp_path / "m.onnx")(x), tanh, rtol=0, atol=1e-6)
    np.testing.assert_allclose(layer(paddle.to_tensor(x)).numpy(), tanh, rtol=0, atol=1e-6)


def hide(monkeypatch, *packages):
    """Let the packages be missing."""
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name in packages else find_spec(name))


@needs_onnx
@pytest.mark.parametrize("label", ["digits", "soft"])
def test_pytorch_writes_the_onnx_file_where_paddle2onnx_is_missing(label, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    hide(monkeypatch, "paddle2onnx")
    monkeypatch.setattr(onnx_export, "run_python", run_here)
    monkeypatch.setattr(checks, "run_python", run_here)
    model, lines = small(label), []
    card = export_model(model, tmp_path / "out", onnx=True, log=lines.append)
    assert card["onnx_writer"] == read_card(tmp_path / "out")["onnx_writer"] == "torch.onnx"
    assert "paddle2onnx is not installed: PyTorch writes the ONNX file, from the model's twin" in lines
    rows = {row["engine"]: row for row in card["checks"]}
    assert {"ONNX Runtime", "OpenVINO"} < set(rows) and rows["OpenVINO"]["batches"] == [1, 3]
    images = np.random.RandomState(5).standard_normal((5, 3, *model.img_size)).astype("float32")
    with paddle.no_grad():  # of a batch that no check has seen
        expected = model.eval()(paddle.to_tensor(images)).numpy()
    compare([OnnxEngine(tmp_path / "out" / "model.onnx")(images)], [expected], label)


def test_without_paddle2onnx_and_pytorch_the_ways_out_are_named(tmp_path, monkeypatch):
    hide(monkeypatch, "paddle2onnx", "torch")
    with pytest.raises(MissingPackageError, match=r"needs paddle2onnx .* on Python 3\.13, .* PyTorch"):
        export_model(small("digits"), tmp_path / "out", onnx=True)
    assert not (tmp_path / "out").exists()


def test_what_torch_onnx_cannot_write_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "onnx_writer", lambda: "torch.onnx")
    failed = subprocess.CompletedProcess([], 1, "", "SymbolicValueError: no")
    monkeypatch.setattr(onnx_export, "run_python", lambda *given: failed)
    with pytest.raises(
        ExportError, match=r"torch\.onnx failed on inline_deit_digits:\nSymbolicValueError: no"
    ):
        export_model(small("digits"), tmp_path / "out", onnx=True)
    assert not (tmp_path / "out").exists()
