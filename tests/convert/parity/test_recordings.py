"""Each framework records alone, in a process of its own; a third compares with numpy alone."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from convert.parity.comparison import compare_recordings
from convert.parity.recording import Call, Recording, Value, load_recording, save_recording

SPEC = ["--model", "inline_deit_digits", "--opts", "depth", "1", "embed_dim", "16", "num_heads", "2"]

# A process in which some packages cannot be imported, as if they were not installed.
WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from convert.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def convert(*arguments, absent):
    code = WITHOUT.format(absent=set(absent))
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Recordings of both frameworks, and of the truth, each made without the other framework."""
    pytest.importorskip("torch")
    root = tmp_path_factory.mktemp("recordings")
    for framework, other in (("torch", "paddle"), ("paddle", "torch")):
        for dtype in ("float64", "float32"):
            truth = ["--truth", root / "truth"] if (framework, dtype) == ("torch", "float32") else []
            options = ["--framework", framework, "--dtype", dtype, "--backward", *truth, *SPEC]
            done = convert("record", root / f"{framework}_{dtype}", *options, absent=[other, "timm"])
            assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_recordings_agree_with_numpy_alone(folders, dtype, tmp_path):
    truth = ["--truth", folders / "truth"] if dtype == "float32" else []
    done = convert(
        "compare",
        folders / f"torch_{dtype}",
        folders / f"paddle_{dtype}",
        *truth,
        "--json",
        tmp_path / "report.json",
        absent=["torch", "paddle", "jinja2", "PIL"],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = json.loads((tmp_path / "report.json").read_text())["reports"]
    assert report["passed"] and report["first_divergence"] is None
    assert set(report["versions"]) == {"torch", "paddle"}
    outputs = [row for row in report["rows"] if row["kind"] == "output"]
    assert len(outputs) > 15
    assert all((row["torch_distance"] is not None) == (dtype == "float32") for row in outputs)


def test_a_difference_between_recordings_is_named(folders, tmp_path):
    nudged = load_recording(folders / "paddle_float64")
    for call in nudged.calls:
        if call.name == "blocks.0.mlp.fc1":
            call.output.array = np.array(call.output.array)
            call.output.array[0, 1, 2] += 1e-6
    nudged.weights["norm.weight"] += 1
    save_recording(nudged, tmp_path / "nudged")
    done = convert("compare", folders / "torch_float64", tmp_path / "nudged", absent=["torch", "paddle"])
    assert done.returncode == 1
    assert "first divergence: blocks.0.mlp.fc1 (Linear)" in done.stdout
    report = compare_recordings(load_recording(folders / "torch_float64"), nudged)
    assert [row.name for row in report.of_kind("weight")] == ["norm.weight"]


def test_a_recording_survives_its_folder(folders, tmp_path):
    recording = load_recording(folders / "torch_float64")
    recording.step_losses, recording.step_weights = np.arange(3.0), {"a.b": np.ones((2, 3))}
    save_recording(recording, tmp_path / "copy")
    save_recording(recording, tmp_path / "copy")  # takes the place of the first
    again = load_recording(tmp_path / "copy")
    assert [call.name for call in again.calls] == [call.name for call in recording.calls]
    for before, after in zip(recording.calls, again.calls):
        np.testing.assert_array_equal(before.output.array, after.output.array)
        assert len(before.inputs) == len(after.inputs)
    block = again.by_name["blocks.0"].output
    assert block is again.by_name["norm"].inputs[0]  # one tensor is still one
    np.testing.assert_array_equal(again.step_losses, recording.step_losses)
    np.testing.assert_array_equal(again.step_weights["a.b"], np.ones((2, 3)))
    assert again.subject == recording.subject and again.machine == recording.machine
    assert not list(tmp_path.glob("*.tmp*"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "recording.json").unlink(), "is not a recording"),
        (lambda folder: (folder / "recording.json").write_text("{"), "not a whole recording"),
        (lambda folder: (folder / "recording.json").write_text('{"format": 0}'), "not a whole recording"),
        (lambda folder: (folder / "arrays" / "0.npy").unlink(), "not a whole recording"),
        (lambda folder: (folder / "arrays" / "1.npy").write_bytes(b"12"), "not a whole recording"),
    ],
)
def test_a_damaged_recording_is_one_clear_message(damage, message, tmp_path):
    value = Value(np.ones((1, 2)), np.ones((1, 2)))
    recording = Recording("torch", "2", "m", "float64", calls=[Call("(model)", "M", [value], value)])
    recording.loss = np.ones(())
    save_recording(recording, tmp_path / "r")
    assert load_recording(tmp_path / "r").logits.shape == (1, 2)
    damage(tmp_path / "r")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_recording(tmp_path / "r")


def test_nothing_but_a_recording_is_replaced(tmp_path):
    recording = Recording("torch", "2", "m", "float64")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for target in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(ValueError, match="is not a recording; name another"):
            save_recording(recording, target)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


@pytest.mark.parametrize(
    ("what", "value"), [("model", "other"), ("dtype", "float32"), ("subject", {"seed": 1})]
)
def test_recordings_of_different_things_are_refused(what, value):
    output = Value(np.ones((1, 2)))
    one, two = (
        Recording("t", "2", "m", "float64", {"seed": 0}, calls=[Call("(model)", "M", [], output)])
        for _ in range(2)
    )
    setattr(two, what, value)
    with pytest.raises(ValueError, match="record the same twice"):
        compare_recordings(one, two)


def test_a_mistake_is_one_line_and_code_2(tmp_path):
    pytest.importorskip("torch")
    for arguments in (
        ["record", tmp_path / "x", "--framework", "torch", "--model", "inline_deit_digit"],
        ["record", tmp_path / "x", "--framework", "torch", *SPEC, "num_classes"],
        ["compare", tmp_path / "x", tmp_path / "y"],
    ):
        done = convert(*arguments, absent=["paddle"])
        assert done.returncode in (2, 3), done.stdout
        assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_float32_is_recorded_without_tf32(monkeypatch):
    paddle = pytest.importorskip("paddle")
    from convert.parity.capture import record_paddle
    from tests.utils.test_tf32 import switches

    values, seen = switches(monkeypatch, cublas=True, cudnn=True), []  # as Paddle 2.6 has them on a GPU

    class Looks(paddle.nn.Linear):
        def forward(self, x):
            seen.append(dict(values))
            return super().forward(x)

    images, labels = np.ones([2, 3], "float32"), np.zeros([2], "int64")
    record_paddle(Looks(3, 2), images, labels, "float32", backward=False)
    assert seen == [{"cublas": False, "cudnn": False}] and values == {"cublas": True, "cudnn": True}
