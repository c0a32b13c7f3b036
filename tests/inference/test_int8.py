"""An int8 program has int8 in its linear layers alone, is measured, and is refused where it costs too much."""

import functools
import json
import os
import warnings
from importlib.util import find_spec

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

from paddle_inline import Predictor, create_model  # noqa: E402
from paddle_inline.cli.main import main  # noqa: E402
from paddle_inline.inference import backends, export, int8, onnx_export, predictor  # noqa: E402
from paddle_inline.inference.backends import EagerEngine  # noqa: E402
from paddle_inline.inference.calibration import Calibration, Pictures  # noqa: E402
from paddle_inline.inference.card import files_of, read_card  # noqa: E402
from paddle_inline.inference.export import export_model  # noqa: E402
from paddle_inline.inference.int8 import (  # noqa: E402
    check_drop,
    compare_logits,
    import_nncf,
    kind_of,
    quantise,
    table,
    write_int8,
)
from paddle_inline.inference.openvino_graph import openvino_core, simplify  # noqa: E402
from paddle_inline.utils.errors import FileAccessError, MissingPackageError, UserError  # noqa: E402
from tests.inference.test_export import run_here  # noqa: E402

MISSING = "paddle2onnx needs Paddle 3" if paddle.__version__.startswith("2.") else ""
for module in ("paddle2onnx", "onnxruntime", "openvino", "nncf"):
    MISSING = MISSING or ("" if find_spec(module) else f"{module} is not installed")
needs_nncf = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@functools.cache
def image(seed):
    random = np.random.RandomState(seed)
    patches = random.standard_normal((3, 4, 4)).repeat(8, 1).repeat(8, 2)
    return (patches + 0.3 * random.standard_normal((3, 32, 32))).astype(np.float32)


def pictures(start, count, labels=None):
    return Pictures(lambda index: image(start + index), count, labels, f"pictures from {start}")


def calibration(max_drop=100.0, labels=None):
    return Calibration(pictures(0, 32), pictures(100, 36, labels), max_drop)


@pytest.fixture(scope="module")
def quick():
    """Exports without processes of their own: the engines of other tests are not tried here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "check_engines", lambda *given: [])
        patch.setattr(export, "try_bfloat16", lambda *given: None)
        patch.setattr(onnx_export, "run_python", run_here)
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory, quick):
    """(folder of a small model's export in int8, its card, what was said)."""
    folder, lines = tmp_path_factory.mktemp("int8"), []
    paddle.seed(0)
    model = create_model("inline_deit_digits", depth=2)
    labels = EagerEngine(model)(np.stack([image(100 + i) for i in range(36)])).argmax(-1).tolist()
    labels[0] += 1 if labels[0] < 9 else -1
    card = export_model(model, folder, int8=calibration(labels=labels), log=lines.append)
    return folder, card, lines


def quantised(program):
    """Names of the products whose both operands are quantised."""
    names = []
    for node in program.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            users = [target.get_node() for target in node.output(0).get_target_inputs()]
            names += [user.get_friendly_name() for user in users]
    return names


def kinds(program):
    return [kind for kind in map(kind_of, program.get_ordered_ops()) if kind]


@needs_nncf
def test_linear_layers_are_in_int8_and_nothing_else(exported):
    core = openvino_core()
    full = core.read_model(str(exported[0] / "model.onnx"))
    simplify(full)
    assert sorted(kinds(full)) == sorted(["other", "first of an MLP", "second of an MLP", "other"] * 2)
    linear = [node.get_friendly_name() for node in full.get_ordered_ops() if kind_of(node)]
    products = [node for node in full.get_ordered_ops() if node.get_type_name() == "MatMul"]
    assert len(products) == 8 + 2 * 2 + 1  # two of each attention's own, and the head
    program = core.read_model(str(exported[0] / "model-int8.xml"))
    assert sorted(set(quantised(program))) == sorted(linear)
    weights = [
        node
        for node in program.get_ordered_ops()
        if str(node.get_output_element_type(0)) == "<Type: 'int8_t'>"
    ]
    assert len(weights) == 8
    assert (exported[0] / "model-int8.bin").stat().st_size < 0.5 * (exported[0] / "model.onnx").stat().st_size


@needs_nncf
def test_the_local_residual_is_one_convolution_in_int8_as_well(exported):
    program = openvino_core().read_model(str(exported[0] / "model-int8.xml"))
    before = [node.get_type_name() for node in program.get_ordered_ops()]
    shape = program.input(0).partial_shape
    shape[0] = 2
    program.reshape(shape)
    simplify(program)
    after = [node.get_type_name() for node in program.get_ordered_ops()]
    assert after.count("GroupConvolution") == before.count("GroupConvolution") + 2


@needs_nncf
def test_kinds_that_are_kept_stay_in_float(exported):
    onnx = exported[0] / "model.onnx"
    program = quantise(onnx, [image(0)[None]], ("first of an MLP", "second of an MLP"))
    assert len(set(quantised(program))) == 4  # projections of two attentions


@needs_nncf
def test_the_card_says_what_was_measured(exported):
    folder, card, lines = exported
    assert read_card(folder) == json.loads((folder / "card.json").read_text()) == card
    assert sorted(path.name for path in folder.iterdir()) == sorted(files_of(card))
    assert card["files"]["int8"] == "model-int8.xml" and set(card["sha256"]) == {*files_of(card)} - {
        "card.json"
    }
    found = card["int8"]
    assert found["calibration"] == {"pictures": 32, "of": "pictures from 0"}
    assert found["held_out"] == {"pictures": 36, "of": "pictures from 100"}
    assert found["max_drop"] == 100 and found["rest"] == (
        "bf16" if backends.multiplies_bfloat16() else "fp32"
    )
    rows = {row["precision"]: row for row in found["rows"]}
    assert rows["fp32"]["agree"] == 36 and rows["fp32"]["error"] == 0 < rows["int8"]["error"] < 0.3
    assert rows["fp32"]["top1"] == pytest.approx(100 * 35 / 36)
    assert (
        lines[-len(found["rows"]) - 2]
        == "int8: calibrated on 32 pictures from 0, measured on 36 pictures from 100"
    )
    assert lines[-1].startswith("int8") and f"{rows['int8']['agree']} of 36" in lines[-1]


@needs_nncf
def test_a_predictor_answers_in_int8(exported):
    folder, card, _ = exported
    images = np.stack([image(100 + i) for i in range(36)])
    with pytest.raises(UserError, match="engine openvino, for int8, runs on the CPU; use cpu"):
        Predictor(folder, device="gpu", precision="int8")
    served = Predictor(folder, precision="int8")
    assert (served.engine, served.options["precision"]) == ("openvino", "int8")
    full, answers = Predictor(folder).logits(images), served.logits(images)
    row = card["int8"]["rows"][-1]
    assert (answers.argmax(-1) == full.argmax(-1)).sum() == row["agree"]
    assert np.abs(answers - full).max() > 0
    np.testing.assert_allclose(answers, full, rtol=0, atol=1.5 * row["error"] * max(1, np.abs(full).max()))


@needs_nncf
def test_an_int8_program_is_timed_beside_the_others(exported, tmp_path, capsys):
    words = ["bench", "--export", str(exported[0]), "--batch-size", "2", "--rounds", "1"]
    words += ["--engines", "openvino-int8", "openvino", "--json", str(tmp_path / "o.json")]
    assert main(words) == 0
    found = json.loads((tmp_path / "o.json").read_text())
    assert [row["engine"] for row in found["rows"]] == ["openvino-int8", "openvino"] and not found["failed"]
    assert all(row["seconds"]["median"] > 0 for row in found["rows"])
    (tmp_path / "x").mkdir()
    for path in exported[0].iterdir():
        if path.name != "model-int8.bin":
            (tmp_path / "x" / path.name).write_bytes(path.read_bytes())
    capsys.readouterr()
    assert main(["bench", "--export", str(tmp_path / "x"), *words[3:]]) == 1
    assert "COULD NOT RUN openvino-int8: " in capsys.readouterr().err


@needs_nncf
@pytest.mark.parametrize("name", ["model-int8.xml", "model-int8.bin"])
def test_a_damaged_int8_program_is_refused(exported, tmp_path, name):
    for path in exported[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    images = image(0)[None]
    with pytest.raises(UserError, match=f"{name} is damaged"):
        Predictor(tmp_path, precision="int8").logits(images)
    Predictor(tmp_path).logits(images)  # the others are whole
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        Predictor(tmp_path, precision="int8").logits(images)


@needs_nncf
def test_an_int8_program_that_costs_too_much_leaves_an_earlier_export_as_it_was(exported, monkeypatch):
    folder = exported[0]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(int8, "measure", lambda *given: rows(90.0, 80.0))
    monkeypatch.setattr(int8, "quantise", unquantised)
    model = create_model("inline_deit_digits", depth=2)
    with pytest.raises(UserError, match=r"by 10\.00 points over 36 held-out pictures, --max-drop allows 9"):
        export_model(model, folder, int8=calibration(9.0), log=lambda line: None)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def unquantised(onnx, batches, kept=()):
    return openvino_core().read_model(str(onnx))


@needs_nncf
@pytest.mark.parametrize(
    ("changed", "kept", "said"),
    [
        ([1, 9, 9], (), 0),
        ([9, 1, 0], ("second of an MLP",), 1),
        ([9, 5, 7], ("second of an MLP",), 3),  # none keeps its classes: the best
    ],
)
def test_layers_go_back_to_float_until_the_calibration_keeps_its_classes(
    exported, tmp_path, monkeypatch, changed, kept, said
):
    tried, lines = [], []

    def quantise(onnx, batches, kept):
        tried.append(kept)
        assert len(list(batches)) == 32
        return unquantised(onnx, batches)

    def logits_of(engine, given, batch):
        assert given.source == "pictures from 0"  # the held-out ones choose nothing
        logits = np.tile([1.0, 0.0], (32, 1))
        if tried:
            logits[: changed[len(tried) - 1]] = [0.0, 1.0]
        return logits

    monkeypatch.setattr(int8, "quantise", quantise)
    monkeypatch.setattr(int8, "logits_of", logits_of)
    files, found = write_int8(
        exported[0] / "model.onnx", tmp_path, calibration(100 * 2 / 32), None, lines.append
    )
    assert tried == list(int8.STEPS[: max(said, len(tried))]) and found["float"] == list(kept)
    assert sum("changes the class of" in line for line in lines) == said
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files.values())


@needs_nncf
def test_without_labels_it_is_said_and_classes_are_compared(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "quantise", unquantised)
    monkeypatch.setattr(int8, "multiplies_int8", lambda: False)
    lines = []
    _, found = write_int8(exported[0] / "model.onnx", tmp_path, calibration(), None, lines.append)
    assert "have no labels" in lines[2] and lines[0].startswith(
        "note: this processor has no instructions for int8"
    )
    assert [row["top1"] for row in found["rows"]] == [None] * len(found["rows"])


@needs_nncf
def test_labels_of_other_classes_let_no_program_through(exported, tmp_path, monkeypatch):
    """Top-1 of both is about nothing then, and its difference is none, whatever int8 answers."""
    monkeypatch.setattr(int8, "quantise", unquantised)
    monkeypatch.setattr(int8, "measure", lambda *given: rows(10.0, 10.0, agree=20))
    lines = []
    with pytest.raises(UserError, match=r"pictures with float32's class by 44\.44 points over 36"):
        write_int8(exported[0] / "model.onnx", tmp_path, calibration(0.5, [3] * 36), None, lines.append)
    assert "no better than chance (are the labels the model's?)" in lines[-1]


@needs_nncf
def test_a_program_for_one_batch_size_is_filled_up(quick, tmp_path):
    model = create_model("inline_deit_digits", depth=1)
    card = export_model(model, tmp_path, batch=5, int8=calibration(), log=lambda line: None)
    assert card["int8"]["rows"][0]["agree"] == 36
    answers = Predictor(tmp_path, precision="int8").logits(np.stack([image(i) for i in range(7)]))
    full = Predictor(tmp_path).logits(np.stack([image(i) for i in range(7)]))
    assert answers.shape == (7, 10) and 0 < np.abs(answers - full).max() < 0.3 * max(1, np.abs(full).max())


@needs_nncf
def test_nncf_reports_nothing_and_the_environment_is_as_before():
    """It reads the switch when it is imported, which nothing else here does."""
    import_nncf()
    from nncf.telemetry import wrapper

    assert (type(wrapper.telemetry).__name__, os.environ.get("NNCF_CI")) == ("MagicMock", None)


def test_logits_are_compared_with_those_of_float32():
    full = np.array([[4.0, 0.0], [0.0, 2.0], [1.0, 3.0], [0.0, 1.0]])
    other = full.copy()
    other[1] = [3.0, 2.0]
    assert compare_logits(other, full) == {"top1": None, "agree": 3, "error": 0.75}
    assert compare_logits(other, full, [0, 0, 0, 1])["top1"] == 75.0
    assert compare_logits(other / 8, full / 8)["error"] == 3 / 8  # of 1 at least


def rows(full, other, agree=100):
    return [
        {"precision": "fp32", "top1": full, "agree": 100, "error": 0.0},
        {"precision": "int8", "top1": other, "agree": agree, "error": 0.031},
    ]


def test_the_border_of_what_int8_may_cost():
    check_drop(rows(90.0, 89.5), 100, 0.5, True)
    check_drop(rows(90.0, 91.0), 100, 0, True)
    check_drop(rows(None, None, 98), 100, 2, False)
    for found, most, message in (
        (
            rows(90.0, 89.49),
            0.5,
            r"lowers top-1 by 0\.51 points over 100 .* allows 0\.5: nothing was written",
        ),
        (rows(90.0, float("nan")), 0.5, "by nan points"),
        (rows(None, None, 97), 2, r"lowers the share of pictures with float32's class by 3\.00"),
    ):
        with pytest.raises(UserError, match=message):
            check_drop(found, 100, most, found[0]["top1"] is not None)


def test_the_table_has_a_line_for_each_precision():
    assert table(rows(97.5, 97.25, 99), 100)[1:] == [
        "fp32   97.50 %   100 of 100   0 %",
        "int8   97.25 %   99 of 100   3.1 %",
    ]
    assert table(rows(None, None), 100)[1].split() == ["fp32", "-", "100", "of", "100", "0", "%"]


CARD = {"files": {"int8": "a.xml", "int8_weights": "a.bin"}, "int8": {"rest": "bf16"}}


@pytest.mark.parametrize(
    ("card", "engine", "message"),
    [
        (CARD, "onnx", "engine onnx does not run int8"),
        (CARD, "paddle", "engine paddle does not run int8"),
        (
            {"files": {"onnx": "a"}},
            "auto",
            "DIR holds no int8 program: `.* --output DIR --dynamic-batch --int8",
        ),
        ({**CARD, "int8": None}, "auto", "holds no int8 program"),
        ({**CARD, "int8": {"rest": "int4"}}, "auto", "lacks the precision of the rest"),
    ],
)
def test_what_cannot_run_int8_is_refused(card, engine, message):
    with pytest.raises(UserError, match=message):
        int8.int8_engine(card, engine, "DIR")


def test_a_processor_without_instructions_for_int8_is_warned_of(monkeypatch):
    monkeypatch.setattr(int8, "multiplies_int8", lambda: False)
    with pytest.warns(UserWarning, match="no instructions for int8"):
        assert int8.int8_engine(CARD, "auto", "DIR") == "openvino"
    monkeypatch.setattr(int8, "multiplies_int8", lambda: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert int8.int8_engine(CARD, "openvino", "DIR") == "openvino"


def test_precisions_that_do_not_exist_are_refused_and_auto_never_takes_int8(tmp_path):
    with pytest.raises(UserError, match="Known: auto, fp32, bf16, int8"):
        Predictor(tmp_path, precision="int4")
    assert predictor.choose_precision({**CARD, "bf16": None}, "openvino")[0] == "fp32"


@pytest.mark.parametrize("part", ["training", "held_out"])
def test_pictures_made_for_another_model_are_refused(tmp_path, monkeypatch, part):
    monkeypatch.setattr(export, "check_packages", lambda: None)
    model = create_model("inline_deit_digits", depth=1, in_chans=1)
    parts = {name: pictures(0, 36) for name in ("training", "held_out")}
    grey = Pictures(lambda index: image(index)[:1], 36, None, "grey ones")
    parts.update({name: grey for name in parts if name != part})
    with pytest.raises(
        UserError, match=r"made as images of \[3, 32, 32\], inline_deit_digits takes \[1, 32, 32\]"
    ):
        export_model(model, tmp_path / "out", int8=Calibration(**parts), log=lambda line: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("part", "number"), [("training", 31), ("held_out", 35), (None, 0)])
def test_a_picture_that_cannot_be_read_is_found_before_the_long_work(tmp_path, monkeypatch, part, number):
    class Begun(Exception):
        pass

    def begin(*given):
        raise Begun

    def read(index):
        if index == number:
            raise FileAccessError(f"{index}.png cannot be read as an image")
        return image(index)

    monkeypatch.setattr(export, "check_packages", lambda: None)
    monkeypatch.setattr(export, "onnx_writer", lambda: "paddle2onnx")
    monkeypatch.setattr(export, "write_files", begin)
    parts = {"training": pictures(0, 32), "held_out": pictures(100, 36)}
    if part is not None:
        parts[part] = Pictures(read, parts[part].count, None, "p")
    model = create_model("inline_deit_digits", depth=1)
    expected = (FileAccessError, rf"^{number}\.png cannot be read") if part else (Begun, None)
    with pytest.raises(expected[0], match=expected[1]):
        export_model(model, tmp_path / "out", int8=Calibration(**parts), log=lambda line: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("card", ["{", '{"format": 2, "files": {}}'])
def test_an_export_whose_files_are_not_known_is_refused_before_anything_is_done(tmp_path, monkeypatch, card):
    monkeypatch.setattr(export, "write_files", None)
    (tmp_path / "card.json").write_text(card)
    with pytest.raises(
        UserError, match=r"files are not known: .*card\.json .* Remove it, or give another folder"
    ):
        export_model(create_model("inline_deit_digits", depth=1), tmp_path, log=lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


def test_without_nncf_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(int8, "find_spec", lambda name: None)
    model = create_model("inline_deit_digits", depth=1)
    with pytest.raises(MissingPackageError, match="needs nncf and openvino"):
        export_model(model, tmp_path / "out", int8=calibration(), log=lambda line: None)
    assert not (tmp_path / "out").exists()


@needs_nncf
def test_nncf_prints_nothing(exported, capfd):
    quantise(exported[0] / "model.onnx", [image(0)[None]])
    assert capfd.readouterr().out == ""
