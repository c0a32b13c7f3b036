"""Which pictures an int8 program is calibrated and measured on, and what is refused before anything is loaded."""

import numpy as np
import pytest
from PIL import Image

from paddle_inline.cli import export
from paddle_inline.cli.main import build_parser, main
from paddle_inline.data.split import Split, draw
from paddle_inline.inference import calibration, int8
from paddle_inline.inference.backends import multiplies_int8
from paddle_inline.inference.calibration import Pictures, calibration_of, check_max_drop
from paddle_inline.utils.errors import FileAccessError, MissingFileError, MissingPackageError, UserError
from tests.data.trees import tree

TRANSFORM = {"img_size": 8, "mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear", "crop": False}


def of(where, **more):
    lines = []
    given = {"transform": TRANSFORM, "num_classes": 2, "log": lines.append, **more}
    return calibration_of(where, **given), lines


def colours(pictures):
    """{the first pixel of each picture}, by which those of these tests are told apart."""
    return {tuple(np.round(255 * pictures.read(i)[:, 0, 0]).astype(int)) for i in range(pictures.count)}


def plain(folder, count, start=0):
    """Pictures of one colour each, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + count):
        Image.new("RGB", (9, 9), (i % 256, i // 256, 7)).save(folder / f"{i}.png")
    return folder


def test_digits_are_calibrated_on_training_pictures_and_measured_on_all_held_out_ones():
    pytest.importorskip("sklearn")
    found, lines = of("digits", num_classes=10)
    assert (found.training.count, found.held_out.count, found.max_drop) == (300, 364, 0.5)
    assert found.training.labels is None and sorted(set(found.held_out.labels)) == list(range(10))
    assert found.held_out.source == "held-out pictures of digits" and lines == []
    batches = list(found.training.batches(128))
    assert [batch.shape for batch in batches] == [(128, 3, 8, 8)] * 2 + [(44, 3, 8, 8)]


def test_a_folder_with_val_is_measured_on_all_of_it(tmp_path):
    for part, start in (("train", 0), ("val", 500)):
        for number, name in enumerate("ab"):
            plain(tmp_path / part / name, 20 + 10 * (part == "val"), start + 100 * number)
    found, lines = of(tmp_path, max_drop=2)
    assert (found.training.count, found.held_out.count, found.max_drop) == (40, 60, 2)
    assert found.held_out.labels == [0] * 30 + [1] * 30 and lines == []
    assert not colours(found.training) & colours(found.held_out)


def test_of_a_folder_of_classes_half_of_each_is_held_out_and_that_is_said(tmp_path):
    for number, name in enumerate("ab"):
        plain(tmp_path / name, 40, 100 * number)
    found, lines = of(tmp_path)
    assert (found.training.count, found.held_out.labels) == (40, [0] * 20 + [1] * 20)
    seen = colours(found.training) | colours(found.held_out)
    assert len(seen) == 80 and "50% of each class is held out here" in lines[0] and "learnt" in lines[0]
    again, _ = of(tmp_path)
    assert colours(again.held_out) == colours(found.held_out)


def test_what_the_run_held_out_is_held_out_here(tmp_path):
    for number, name in enumerate("ab"):
        plain(tmp_path / name, 100, 100 * number)
    names = [
        f"{name}/{i}.png" for number, name in enumerate("ab") for i in range(100 * number, 100 * number + 100)
    ]
    kept = draw(names, [0] * 100 + [1] * 100, 0.2, 3)
    found, lines = of(tmp_path, split=Split(0.2, 3, kept))
    assert found.held_out.labels == [0] * 20 + [1] * 20 and "as split.json of the run says" in lines[0]
    assert colours(found.held_out) == {
        (int(name[2:-4]) % 256, int(name[2:-4]) // 256, 7) for name in kept
    }  # fmt: skip


def test_plain_pictures_have_no_labels_and_are_halved(tmp_path, monkeypatch):
    plain(tmp_path, 81)
    found, _ = of(tmp_path, num_classes=1000)
    assert (found.training.count, found.held_out.count) == (41, 40)
    assert found.held_out.labels is None
    assert len(colours(found.training) | colours(found.held_out)) == 81
    monkeypatch.setattr(calibration, "CALIBRATION", 33)
    monkeypatch.setattr(calibration, "MOST_HELD_OUT", 35)
    found, _ = of(tmp_path, num_classes=1000)
    assert (found.training.count, found.held_out.count) == (33, 35)
    assert not colours(found.training) & colours(found.held_out)


def test_classes_are_matched_by_name(tmp_path):
    tree(tmp_path, "ab", count=40)
    found, _ = of(tmp_path, num_classes=3, classes=["b", "c", "a"])
    assert found.held_out.labels == [2] * 40 + [0] * 40
    with pytest.raises(UserError, match=r"images of b, which the model does not know"):
        of(tmp_path, classes=["a", "c"])


FEW = "calibrate on and {} to be measured on: int8 needs 64 at least, 32 for each; add some"


@pytest.mark.parametrize(
    ("make", "more", "message"),
    [
        (lambda root: None, {}, "no folder .* to calibrate on: give a folder of pictures, or digits"),
        (lambda root: root.mkdir(), {}, "no image"),
        (lambda root: tree(root, "ab", count=40), {"num_classes": 10}, "has 2 classes, the model 10: give"),
        (lambda root: plain(root, 1), {}, f"^1 picture found in .*p, 1 to {FEW.format(0)}"),
        (lambda root: plain(root, 10), {}, f"^10 pictures found in .*p, 5 to {FEW.format(5)}"),
        (lambda root: plain(root, 63), {}, f"^63 pictures found in .*p, 31 to {FEW.format(32)}"),
        (lambda root: tree(root, "ab", count=15), {}, f"^60 pictures found in .*p, 30 to {FEW.format(30)}"),
        (lambda root: plain(root / "a", 40), {"num_classes": 1}, f"^40 .*p, 20 to {FEW.format(20)}"),
        (lambda root: plain(root, 64), {"max_drop": -0.1}, r"--max-drop\) is -0.1: give points .* 0 to 100"),
        (lambda root: plain(root, 64), {"max_drop": float("nan")}, "is nan"),
        (lambda root: plain(root, 64), {"max_drop": "1"}, "is '1': give points"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, make, more, message):
    make(tmp_path / "p")
    with pytest.raises(UserError, match=message):
        of(tmp_path / "p", **more)


def test_an_empty_text_is_not_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(plain(tmp_path, 64))
    with pytest.raises(MissingFileError, match="no folder '' to calibrate on"):
        of("")


@pytest.mark.parametrize("folders", ["", "a/", "train/a/"])
def test_a_picture_that_cannot_be_read_is_named(tmp_path, folders):
    """Of plain pictures, of a folder of classes, of one with parts: whatever reads them."""
    plain(tmp_path / folders, 70)
    if folders == "train/a/":
        plain(tmp_path / "val/a", 35)
    for path in (tmp_path / folders).iterdir():
        path.write_bytes(b"")
    found, _ = of(tmp_path, num_classes=1)
    with pytest.raises(
        FileAccessError, match=rf"{tmp_path}/{folders}\d+\.png cannot be read .*: repair it, or take"
    ):
        next(found.training.batches(8))


def test_labels_that_say_nothing_are_told_from_those_of_the_model():
    pictures = Pictures(lambda index: None, 100, [0] * 100, "p")
    assert pictures.labels_fit(19.1, 10) and not pictures.labels_fit(18.9, 10)  # 10, and three times 3
    assert not pictures.labels_fit(100.0, 1) and not pictures.labels_fit(float("nan"), 10)
    assert not pictures.labels_fit(None, 10)


def test_the_borders_of_what_is_allowed(tmp_path):
    assert of(plain(tmp_path, 64))[0].held_out.count == 32
    for points in (0, 100):
        check_max_drop(points)
    with pytest.raises(UserError, match=r"100\.5"):
        check_max_drop(100.5)
    with pytest.raises(MissingFileError):
        of(tmp_path / "absent")


def test_the_last_batch_of_a_fixed_size_is_filled_with_its_last_picture():
    pictures = Pictures(lambda i: np.full((1, 1, 1), i, np.float32), 5, None, "p")
    assert [batch.ravel().tolist() for batch in pictures.batches(3)] == [[0, 1, 2], [3, 4]]
    assert [batch.ravel().tolist() for batch in pictures.batches(3, fill=True)] == [[0, 1, 2], [3, 4, 4]]


CALL = ["export", "--weights", "w", "--output", "o"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--int8"], "--int8 needs --calibrate PICTURES"),
        (["--calibrate", "digits"], "--calibrate goes with --int8"),
        (["--max-drop", "1"], "--max-drop goes with --int8"),
        (["--int8", "--calibrate", "digits", "--max-drop", "101"], "(--max-drop) is 101: give points"),
    ],
)
def test_options_that_do_not_fit_each_other_have_code_2(words, message, capsys):
    assert main([*CALL, *words]) == 2
    assert message in capsys.readouterr().err


def test_without_nncf_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(int8, "find_spec", lambda name: None if name == "nncf" else name)
    with pytest.raises(MissingPackageError, match=r"needs nncf: pip install 'paddle-inline\[int8\]'"):
        export.run(build_parser().parse_args([*CALL, "--int8", "--calibrate", "digits"]))


@pytest.mark.parametrize(("crop", "place"), [(True, "run"), (False, "step")])
def test_the_options_reach_the_pictures(monkeypatch, tmp_path, capsys, crop, place):
    seen = {}
    model = type("M", (), {"name": "m", "spec": type("S", (), {"num_classes": 7})})
    transform = {"crop_ratio": 0.9, "crop": True}
    monkeypatch.setattr(export, "check_packages", lambda: None)
    monkeypatch.setattr("paddle_inline.models.create_model", lambda *given, **more: model)
    weights = {"run": "run/w", "step": "run/checkpoints/step_1/w"}[place]
    monkeypatch.setattr("paddle_inline.weights.load.find_weights", lambda path: tmp_path / weights)
    monkeypatch.setattr(export, "evaluation_of", lambda model: (transform, ["a"] * 7, None))
    monkeypatch.setattr(export, "kept_split", lambda folder: f"split of {folder.name}")
    monkeypatch.setattr(export, "calibration_of", lambda where, **given: {"where": where, **given})
    monkeypatch.setattr(export, "export_model", lambda model, folder, **given: seen.update(given))
    monkeypatch.setattr(export, "add_to_ovms", lambda *given: "m/1")
    more = [] if crop else ["--no-crop", "--max-drop", "2", "--ovms", "m"]
    assert export.run(build_parser().parse_args([*CALL, "--int8", "--calibrate", "p", *more])) == 0
    assert ("model servers get the float32 program" in capsys.readouterr().out) is not crop
    assert seen["int8"] == {
        "where": "p",
        "transform": {"crop_ratio": 0.9, "crop": crop},
        "num_classes": 7,
        "classes": ["a"] * 7,
        "max_drop": 0.5 if crop else 2.0,
        "split": "split of run",
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("flags : fpu avx512_vnni sse2", True),
        ("flags : avx_vnni", True),
        ("flags : fpu avx2 avx512f", False),
        ("Features : fp asimddp", True),
        ("Features : fp asimd", False),
        ("something else", True),  # not known
    ],
)
def test_a_processor_s_instructions_for_int8(tmp_path, text, found):
    (tmp_path / "cpuinfo").write_text(text)
    assert multiplies_int8(tmp_path / "cpuinfo") is found
    assert multiplies_int8(tmp_path / "absent") is True
