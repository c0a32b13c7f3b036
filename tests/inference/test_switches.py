"""A switch of inference makes a difference: every engine is set up as it was asked to be, every check is called.

Whether a result in bfloat16 differs depends on the processor; what an engine is told does not, so that is looked at.
"""

import contextlib
import json
import sys
import warnings
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

from paddle_inline import create_model  # noqa: E402
from paddle_inline.inference import backends, checks, export, onnx_export, predictor  # noqa: E402
from paddle_inline.inference.backends import (  # noqa: E402
    CompiledEngine,
    EagerEngine,
    OnnxEngine,
    OpenVinoEngine,
    PaddleEngine,
)
from paddle_inline.inference.checks import ExportError, check_engines, compare  # noqa: E402
from paddle_inline.utils.environment import available_cores  # noqa: E402

ONEDNN = [
    ("enable_mkldnn",),
    ("set_mkldnn_cache_capacity", 16),
]
PASSES = [
    ("delete_pass", "operator_reshape_onednn_fuse_pass"),
    ("delete_pass", "matmul_elementwise_add_fuse_pass"),
]


class Calls:
    """An object of any methods, which keeps what they are called with."""

    def __init__(self, kept):
        self.__dict__["kept"] = kept

    def __getattr__(self, name):
        return lambda *given: self.kept.append((name, *given))


@pytest.fixture
def programs(tmp_path):
    for name in ("model.json", "model.pdmodel", "model.pdiparams", "model.onnx"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(threads=3), [("disable_gpu",), ("set_cpu_math_library_num_threads", 3), *ONEDNN, *PASSES]),
        (
            dict(),
            [("disable_gpu",), ("set_cpu_math_library_num_threads", available_cores()), *ONEDNN, *PASSES],
        ),
        (
            dict(threads=3, onednn=False),
            [("disable_gpu",), ("set_cpu_math_library_num_threads", 3), ("disable_mkldnn",)],
        ),
        (
            dict(threads=3, precision="bf16"),
            [
                *(("disable_gpu",), ("set_cpu_math_library_num_threads", 3)),
                *(*ONEDNN, ("enable_mkldnn_bfloat16",), *PASSES),
            ],
        ),
        (dict(device="gpu"), [("enable_use_gpu", 256, 0, "Float32")]),
        (dict(device="gpu:2", precision="bf16"), [("enable_use_gpu", 256, 2, "Bfloat16")]),
    ],
    ids=repr,
)
def test_paddle_s_engine_is_set_up_as_it_was_asked_to_be(programs, monkeypatch, options, expected):
    from paddle import inference

    done, files = [], []
    monkeypatch.setattr(backends, "check_gpu", lambda device: None)  # as where there are enough
    config = Calls(done)
    monkeypatch.setattr(inference, "Config", lambda *given: files.extend(given) or config)
    monkeypatch.setattr(
        inference, "PrecisionType", SimpleNamespace(Float32="Float32", Bfloat16="Bfloat16"), raising=False
    )
    handles = SimpleNamespace(
        get_input_names=lambda: ["i"],
        get_output_names=lambda: ["o"],
        get_input_handle=lambda name: name,
        get_output_handle=lambda name: name,
    )
    monkeypatch.setattr(inference, "create_predictor", lambda given: handles if given is config else None)
    engine = PaddleEngine(programs / "model.pdmodel", programs / "model.pdiparams", **options)
    assert files == [str(programs / "model.pdmodel"), str(programs / "model.pdiparams")]
    assert done == [("disable_glog_info",), *expected] and (engine.input, engine.output) == ("i", "o")


def test_bfloat16_on_a_cpu_without_onednn_is_refused(programs):
    with pytest.raises(ValueError, match="bf16 on a CPU needs oneDNN"):
        PaddleEngine(programs / "model.pdmodel", programs / "model.pdiparams", precision="bf16", onednn=False)


@pytest.mark.parametrize("threads", [None, 3])
def test_onnx_runtime_has_so_many_threads(programs, monkeypatch, threads):
    made = []

    class Session:
        def __init__(self, source, options, providers):
            made.append((source, vars(options), providers))

        def get_inputs(self):
            return [SimpleNamespace(name="images")]

    fake = ModuleType("onnxruntime")
    fake.SessionOptions, fake.InferenceSession = SimpleNamespace, Session
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    engine = OnnxEngine(programs / "model.onnx", threads)
    options = {"intra_op_num_threads": threads or available_cores(), "log_severity_level": 3}
    assert made == [(str(programs / "model.onnx"), options, ["CPUExecutionProvider"])]
    assert engine.input == "images"


class Shape(list):
    is_dynamic = True


class Program:
    """As OpenVINO's: `shape` is what it is compiled for."""

    def __init__(self):
        self.shape = None

    def input(self, number):
        return SimpleNamespace(partial_shape=Shape([None, 3, 8, 8]))

    def clone(self):
        return Program()

    def reshape(self, shape):
        self.shape = list(shape)

    def get_ordered_ops(self):
        return []


@pytest.fixture
def openvino(monkeypatch):
    """The list of (shape, device, options) that a stand-in for OpenVINO has compiled."""
    compiled = []

    class Core:
        def read_model(self, path):
            return Program()

        def compile_model(self, program, device, options):
            compiled.append((program.shape, device, options))
            infer = lambda inputs, share_inputs: [np.zeros((len(inputs[0]), 10), "float32")]  # noqa: E731
            return SimpleNamespace(create_infer_request=lambda: SimpleNamespace(infer=infer))

    monkeypatch.setattr(backends, "openvino_core", Core)
    monkeypatch.setattr(backends, "multiplies_bfloat16", lambda: True)
    return compiled


@pytest.mark.parametrize(("precision", "hint"), [("fp32", "f32"), ("bf16", "bf16")])
@pytest.mark.parametrize("threads", [None, 3])
def test_openvino_has_so_many_threads_and_this_precision(programs, openvino, precision, hint, threads):
    OpenVinoEngine(programs / "model.onnx", threads, precision)(np.zeros((2, 3, 8, 8)))
    (shape, device, options) = openvino[0]
    assert (shape, device) == ([2, 3, 8, 8], "CPU")
    assert options["INFERENCE_NUM_THREADS"] == (threads or available_cores())
    assert options["INFERENCE_PRECISION_HINT"] == hint


@contextlib.contextmanager
def warns(expected):
    """Check that what is done inside warns so often that bfloat16 is float32 here, and of nothing else."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [str(one.message) for one in caught] == [backends.NO_BFLOAT16] * expected


@pytest.mark.parametrize(
    ("precision", "native", "said"), [("bf16", False, 1), ("bf16", True, 0), ("fp32", False, 0)]
)
def test_openvino_says_where_bfloat16_is_float32(programs, openvino, monkeypatch, precision, native, said):
    monkeypatch.setattr(backends, "multiplies_bfloat16", lambda: native)
    with warns(said):
        OpenVinoEngine(programs / "model.onnx", precision=precision)


@pytest.mark.parametrize(
    ("precision", "lacks", "said"), [("bf16", True, 1), ("bf16", False, 0), ("fp32", True, 0)]
)
def test_paddle_says_where_bfloat16_is_float32(monkeypatch, precision, lacks, said):
    monkeypatch.setattr(backends, "lacks_bfloat16", lambda engine: lacks and engine == "paddle")
    with warns(said):
        backends._use_onednn(Calls([]), True, precision)


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("flags : avx2", True),
        ("flags : avx512f avx512bw avx512dq", True),
        ("flags : avx512f avx512bw avx512dq avx512vl", False),  # which imitates it at least
        ("Features : asimd", True),
        ("something else", False),  # not known
    ],
)
def test_a_processor_without_bfloat16(tmp_path, monkeypatch, text, lacks):
    (tmp_path / "cpuinfo").write_text(text)
    assert backends.lacks_bfloat16("paddle", tmp_path / "cpuinfo") is lacks
    assert backends.lacks_bfloat16("paddle", tmp_path / "absent") is False
    for installed, native in ((True, False), (True, True), (False, False)):
        monkeypatch.setattr(backends, "_has_openvino", lambda found=installed: found)
        monkeypatch.setattr(backends, "multiplies_bfloat16", lambda found=native: found)
        assert backends.lacks_bfloat16("openvino") is (installed and not native)


@pytest.mark.parametrize(
    ("options", "native", "precision"),
    [
        (dict(engine="openvino", precision="bf16"), False, "fp32"),
        (dict(engine="openvino", precision="bf16"), True, "bf16"),
        (dict(engine="paddle", precision="bf16"), False, "fp32"),
        (dict(engine="paddle", precision="bf16", device="gpu"), False, "bf16"),
        (dict(engine="paddle", precision="bf16", onednn=False), False, "bf16"),  # which the engine refuses
        (dict(engine="openvino", precision="fp32"), False, "fp32"),
    ],
)
def test_a_predictor_says_where_bfloat16_is_float32(written, monkeypatch, options, native, precision):
    written(onnx=True)
    monkeypatch.setattr(predictor, "lacks_bfloat16", lambda engine: not native)
    changed = options["precision"] != precision
    with warns(int(changed)):
        found = predictor.Predictor(written.folder, **options)
    assert found.options["precision"] == precision
    assert found.why_precision == (backends.NO_BFLOAT16 if changed else None)


@pytest.mark.parametrize("own", [0, 1, 3])
def test_so_many_batch_sizes_have_a_program_of_their_own(programs, openvino, own):
    engine = OpenVinoEngine(programs / "model.onnx", batches=own)
    for size in (5, 5, 2, 1, 7, 2, 8, 5):
        assert engine(np.zeros((size, 3, 8, 8))).shape == (size, 10)
    assert list(engine.requests) == [*[5, 2, 1, 7, 8][:own], None]
    assert [shape and shape[0] for shape, _, _ in openvino] == [*[5, 2, 1, 7, 8][:own], None]


@pytest.fixture(scope="module")
def model():
    paddle.seed(0)
    return create_model("inline_deit_digits", img_size=8, depth=1, embed_dim=16, num_heads=2, drop_rate=0.5)


def images(count, seed=0):
    return np.random.RandomState(seed).standard_normal((count, 3, 8, 8)).astype("float32")


@pytest.mark.parametrize("training", [True, False])
def test_an_eager_model_is_asked_without_dropout_and_left_in_its_mode(model, training):
    model.train() if training else model.eval()
    engine = EagerEngine(model)
    first, second = engine(images(4)), engine(images(4))
    np.testing.assert_array_equal(first, second)
    assert model.training == training and all(layer.training == training for layer in model.sublayers())
    model.train()
    with paddle.no_grad():
        assert np.abs(model(paddle.to_tensor(images(4))).numpy() - first).max() > 1e-3


@pytest.mark.parametrize(("precision", "enabled"), [("fp32", False), ("bf16", True)])
def test_a_compiled_model_runs_in_this_precision(model, monkeypatch, precision, enabled):
    given = []

    @contextlib.contextmanager
    def auto_cast(**arguments):
        given.append(arguments)
        yield

    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle.jit, "to_static", lambda forward, **more: forward)
    monkeypatch.setattr(paddle.amp, "auto_cast", auto_cast)
    model.train()
    found = CompiledEngine(model, precision)(images(2))
    assert given == [{"enable": enabled, "dtype": "bfloat16"}]
    assert found.dtype == np.float32 and not model.training


def test_the_tolerance_of_an_export():
    """1e-5 of the largest logit, of 1 at least; what is no number does not agree."""
    assert checks.TOLERANCE == 1e-5
    truth = np.array([[1.0, 2.0, -4.0]])
    off = lambda by: truth + np.array([0, by, 0])  # noqa: E731
    assert compare([off(3.9e-5)], [truth], "e") == pytest.approx(3.9e-5 / 4)
    with pytest.raises(ExportError, match=r"e differs from the model by 1\.0e-05"):
        compare([off(4.1e-5)], [truth], "e")
    assert compare([truth / 8], [truth / 8 + 0.9e-5], "e") == pytest.approx(0.9e-5)  # of 1, not of 0.5
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ExportError):
            compare([off(wrong)], [truth], "e")
    with pytest.raises(ExportError, match=r"gives \(1, 2\)"):
        compare([truth[:, :2]], [truth], "e")
    with pytest.raises(ExportError):
        compare([truth, off(1)], [truth, truth], "e")  # in the second batch alone


@pytest.mark.parametrize(("batch", "sizes"), [(None, [1, 3]), (2, [2, 2])])
def test_every_engine_is_held_against_the_model_at_two_batches(model, monkeypatch, tmp_path, batch, sizes):
    """Of different sizes where it takes any, and of different images either way."""
    given, made = {}, []

    def engine(name):
        def make(*arguments, **options):
            made.append((name, options))
            return lambda batch: given.setdefault(name, []).append(batch) or EagerEngine(model)(batch)

        return make

    for name in ("PaddleEngine", "OnnxEngine", "OpenVinoEngine"):
        monkeypatch.setattr(checks, name, engine(name))
    apart = engine("apart")
    monkeypatch.setattr(checks, "run_onednn_apart", lambda *a: [apart()(one) for one in a[2]])
    monkeypatch.setattr(checks, "find_spec", lambda name: True)
    files = {"program": "p", "params": "q", "onnx": "o"}
    rows = check_engines(model, tmp_path, files, batch, log=lambda line: None)
    assert [row["engine"] for row in rows] == [
        *("Paddle Inference", "Paddle Inference with oneDNN", "ONNX Runtime", "OpenVINO")
    ]
    assert all(row["batches"] == sizes and row["error"] == 0 for row in rows)
    assert set(given) == {"PaddleEngine", "OnnxEngine", "OpenVinoEngine", "apart"}
    for first, second in given.values():
        assert [len(first), len(second)] == sizes
        assert second.std() > 2 * first.std() and not np.array_equal(first[:1], second[:1])
    options = dict(made)
    assert options["PaddleEngine"] == {"onednn": False} and options["OpenVinoEngine"] == {"batches": 1}


@pytest.mark.parametrize("which", ["PaddleEngine", "OnnxEngine", "OpenVinoEngine", "run_onednn_apart"])
def test_an_export_is_refused_where_one_engine_differs(model, monkeypatch, tmp_path, which):
    right = lambda *a, **k: EagerEngine(model)  # noqa: E731
    wrong = lambda *a, **k: lambda batch: EagerEngine(model)(batch) + 1e-3  # noqa: E731
    for name in ("PaddleEngine", "OnnxEngine", "OpenVinoEngine"):
        monkeypatch.setattr(checks, name, wrong if name == which else right)
    engine = (wrong if which == "run_onednn_apart" else right)()
    monkeypatch.setattr(checks, "run_onednn_apart", lambda *a: [engine(one) for one in a[2]])
    monkeypatch.setattr(checks, "find_spec", lambda name: True)
    monkeypatch.setattr(export, "onnx_writer", lambda: "paddle2onnx")
    monkeypatch.setattr(export, "write_files", lambda *a: {"program": "p", "params": "q", "onnx": "o"})
    with pytest.raises(ExportError, match="differs from the model"):
        export.export_model(model, tmp_path / "out", onnx=True, log=lambda line: None)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def written(model, monkeypatch, tmp_path):
    """Return the function (arguments of export_model) -> (card, what it said), with programs of a few bytes."""

    def write_files(model, folder, batch=None, onnx=False):
        for name in ("model.json", "model.pdiparams", *(["model.onnx"] if onnx else [])):
            (folder / name).write_text(f"{batch} {onnx}")
        return {"program": "model.json", "params": "model.pdiparams", "onnx": "model.onnx" if onnx else None}

    rows = [{"engine": "a", "batches": [1, 3], "error": 0.0}]
    monkeypatch.setattr(export, "onnx_writer", lambda: "paddle2onnx")
    monkeypatch.setattr(export, "write_files", write_files)
    monkeypatch.setattr(export, "check_engines", lambda *given: rows)
    monkeypatch.setattr(export, "try_bfloat16", lambda *given: {"images": 16, "agree": 15, "error": 0.1})

    def export_it(**given):
        said = []
        return export.export_model(model, tmp_path / "out", log=said.append, **given), said

    export_it.rows, export_it.folder = rows, tmp_path / "out"
    return export_it


def test_what_an_export_is_given_stands_in_its_card(written, tmp_path, model):
    model.description = {}
    transform = {
        "img_size": 8,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "interpolation": "bilinear",
        "crop": False,
    }
    (tmp_path / "w.bin").write_bytes(b"weights")
    given = dict(batch=2, onnx=True, preprocessing=transform, classes=list("abcdefghij"), top1=71.25)
    card, said = written(**given, weights=tmp_path / "w.bin")
    assert said == []  # nothing is assumed
    assert (card["top1"], card["classes"], card["onednn"]) == (71.25, list("abcdefghij"), True)
    assert card["input"]["shape"] == [2, 3, 8, 8] and card["output"]["shape"] == [2, 10]
    assert card["preprocessing"] == {**transform, "resize": "square", "crop_ratio": 0.875}
    assert card["weights"]["file"] == "w.bin" and card["tolerance"] == 1e-5 and card["checks"] == written.rows
    assert card["overrides"]["embed_dim"] == 16 and card["bf16"]["agree"] == 15


@pytest.mark.parametrize(
    ("engine", "native", "tried", "precision", "why"),
    [
        ("openvino", True, {"images": 16, "agree": 16}, "bf16", "16 of 16 images"),
        ("openvino", True, {"images": 16, "agree": 15}, "fp32", "15 of 16 images"),
        ("openvino", True, {}, "fp32", "None of None images"),  # says nothing
        ("openvino", True, None, "fp32", "not tried in bf16"),  # exported before, or elsewhere
        ("openvino", False, {"images": 16, "agree": 16}, "fp32", "does not multiply"),
        ("onnx", True, {"images": 16, "agree": 16}, "fp32", "this is onnx"),
    ],
)
def test_precision_auto_is_bfloat16_where_it_pays_and_agrees(
    written, monkeypatch, engine, native, tried, precision, why
):
    written(onnx=True)
    card = written.folder / "card.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "bf16": tried}))
    monkeypatch.setattr(predictor, "multiplies_bfloat16", lambda: native)
    found = predictor.Predictor(written.folder, engine=engine, precision="auto")
    assert found.options["precision"] == precision and why in found.why_precision
    assert predictor.Predictor(written.folder, engine=engine).why_precision is None


@pytest.mark.parametrize("batch", [None, 3])
def test_bfloat16_is_tried_on_sixteen_images(monkeypatch, tmp_path, batch):
    """What another engine answers is compared image by image; a processor without bfloat16 tries nothing."""
    given = []

    def engine(onnx, threads, precision):
        def run(batch):
            given.append((precision, batch))
            logits = np.tile(np.array([[1.0, 2.0]]), (len(batch), 1))
            if precision == "bf16" and len(given) == 2:
                logits[0] = [2.0, 1.5]
            return logits

        return run

    monkeypatch.setattr(checks, "OpenVinoEngine", engine)
    monkeypatch.setattr(checks, "multiplies_bfloat16", lambda: True)
    row = checks.try_bfloat16(tmp_path, (3, 8, 10), batch, log=lambda line: None)
    images = 16 if batch is None else 18
    assert row == {"images": images, "agree": images - 1, "error": 0.5}
    assert {one.shape for _, one in given} == {(batch or 16, 3, 8, 10)}
    monkeypatch.setattr(checks, "multiplies_bfloat16", lambda: False)
    assert checks.try_bfloat16(tmp_path, (3, 8, 10), batch, log=lambda line: None) is None


def test_what_an_export_is_not_given_it_says_and_leaves_open(written, model):
    model.description = {}
    card, said = written()
    assert (card["top1"], card["classes"], card["weights"], card["bf16"]) == (None, None, None, None)
    assert len(said) == 1 and "do not say how their images are made" in said[0]


def test_a_crash_of_onednn_is_in_the_card(written):
    written.rows.append({"engine": "b", "batches": [1, 3], "crash": "abort"})
    assert written()[0]["onednn"] is False


def test_an_export_takes_the_place_of_an_earlier_one(written):
    written(onnx=True)
    (written.folder / "notes.txt").write_text("mine")
    written()
    assert sorted(path.name for path in written.folder.iterdir()) == [
        *("card.json", "model.json", "model.pdiparams", "notes.txt")
    ]


def test_writing_onnx_looks_at_every_pad(tmp_path, monkeypatch):
    """The check is called by what writes: a file with a Pad of garbage is refused, one of zeros is not."""
    onnx = pytest.importorskip("onnx")

    def pad_model(path, value):
        helper, kind = onnx.helper, onnx.TensorProto
        pads = helper.make_tensor("pads", kind.INT64, [2], [1, 1])
        fill = helper.make_tensor("fill", kind.FLOAT, [], [value])
        node = helper.make_node("Pad", ["x", "pads", "fill"], ["y"], name="pad")
        x, y = (
            helper.make_tensor_value_info(name, kind.FLOAT, [size]) for name, size in (("x", 2), ("y", 4))
        )
        onnx.save(helper.make_model(helper.make_graph([node], "g", [x], [y], [pads, fill])), str(path))

    for value, fine in ((0.0, True), (-1.9e23, False), (float("nan"), False)):

        def translate(code, program, params, path, opset, value=value):
            assert opset == onnx_export.OPSET == 17
            pad_model(path, value)
            return SimpleNamespace(stderr="", returncode=0)

        monkeypatch.setattr(onnx_export, "run_python", translate)
        with (
            contextlib.nullcontext() if fine else pytest.raises(ExportError, match="the Pad 'pad' fills with")
        ):
            onnx_export.write_onnx(tmp_path / "p", tmp_path / "q", tmp_path / "model.onnx")
