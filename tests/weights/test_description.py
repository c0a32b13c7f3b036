"""What weights say of themselves: written in one form, checked when read, carried through every loader."""

import json

import pytest

paddle = pytest.importorskip("paddle")

from paddle_inline import create_model, load_weights  # noqa: E402
from paddle_inline.data.transforms import eval_transform  # noqa: E402
from paddle_inline.training.checkpoint import save_weights  # noqa: E402
from paddle_inline.weights import WeightsFileError, open_weights  # noqa: E402
from paddle_inline.weights.description import (  # noqa: E402
    DEFAULTS,
    check_transform,
    describe,
    fitted,
    plain_transform,
    read_description,
)

TRANSFORM = {"img_size": 32, "mean": [0.9, 0.8, 0.7], "std": [0.1, 0.2, 0.3], "crop": False}
FULL = {**DEFAULTS, **TRANSFORM}


def test_a_description_comes_back_as_it_was_written(tmp_path):
    model = create_model("inline_deit_digits", depth=1)
    description = describe("inline_deit_digits", {"depth": 1}, TRANSFORM, ["é", "b\udcff", "a b"])
    save_weights(tmp_path / "w.pdparams", model.state_dict(), description)
    found = open_weights(tmp_path / "w.pdparams")[1]
    assert found == {
        "format": 1,
        "model": "inline_deit_digits",
        "overrides": {"depth": 1},
        "transform": FULL,
        "classes": ["é", "b\udcff", "a b"],
    }
    loaded = create_model(weights=tmp_path / "w.pdparams")
    assert loaded.description == found
    load_weights(loaded, tmp_path / "w.pdparams", skip=("head",))
    assert "classes" not in loaded.description and loaded.description["transform"] == FULL
    load_weights(loaded, model.state_dict())
    assert loaded.description == {}


def test_a_long_description_is_read_whole(tmp_path):
    names = [f"a long name of a class {i}" * 10 for i in range(10_000)]
    model = create_model("inline_deit_digits", depth=1)
    save_weights(tmp_path / "w.pdparams", model.state_dict(), describe("inline_deit_digits", {}, None, names))
    assert open_weights(tmp_path / "w.pdparams")[1]["classes"] == names


def test_files_of_version_0_1_say_less():
    old = {"model": "m", "overrides": {"img_size": [32, 64]}}
    assert read_description(old) == {"model": "m", "overrides": {"img_size": (32, 64)}}


@pytest.mark.parametrize(
    "found", [None, 1, [], {}, {"model": 1, "overrides": {}}, {"model": "m", "overrides": []}]
)
def test_other_things_are_no_description(found):
    assert read_description(found) is None


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": 2}, "format 2; this version of paddle-inline reads 1"),
        ({"format": "1"}, "format"),
        ({"format": 0}, "format"),
        ({"classes": "cat"}, "classes"),
        ({"classes": []}, "classes"),
        ({"classes": ["cat", 1]}, "classes"),
        ({"transform": []}, "transform is not a dictionary"),
    ],
)
def test_a_wrong_entry_is_named(entries, message):
    with pytest.raises(WeightsFileError, match=message):
        read_description({"model": "m", "overrides": {}, **entries})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("img_size", value) for value in (0, -1, 1.5, True, "32", [32], [32, 0], 10**6, None)),
        *(("mean", value) for value in (0.5, [], ["a"], [float("nan")], [0.5] * 17)),
        *(("std", value) for value in ([0.1, 0.0, 0.1], [0.1], [-1, 1, 1], [float("inf")] * 3)),
        *(("interpolation", value) for value in ("nearest", 3, None, "random")),
        *(("crop", value) for value in (1, "yes", None)),
        *(("resize", value) for value in ("long", True, None)),
        *(("crop_ratio", value) for value in (0, 2, "0.9", float("nan"), None)),
        ("gamma", 2.2),
    ],
)
def test_a_transform_that_no_writer_makes_is_refused_by_the_entry(key, value):
    with pytest.raises(WeightsFileError, match=key):
        check_transform({**TRANSFORM, key: value})


@pytest.mark.parametrize("key", ["img_size", "mean", "std"])
def test_a_transform_needs_what_has_no_default(key):
    values = dict(TRANSFORM)
    del values[key]
    with pytest.raises(WeightsFileError, match=f"no entry.*{key}"):
        check_transform(values)


def test_what_is_written_is_what_the_transform_takes():
    values = plain_transform(
        {**TRANSFORM, "mean": (0.5,) * 3, "interpolation": "random", "img_size": (64, 64)}
    )
    assert check_transform(json.loads(json.dumps(values))) == values
    assert values["interpolation"] == "bicubic" and values["img_size"] == 64
    assert plain_transform({**TRANSFORM, "img_size": (64, 32)})["img_size"] == [64, 32]
    eval_transform(values.pop("img_size"), **values)


def test_a_change_of_size_or_classes_changes_what_is_said():
    description = describe("m", {}, TRANSFORM, ["a", "b"])
    larger = fitted(description, "m", {"img_size": 64}, img_size=64)
    assert larger["transform"] == {**FULL, "img_size": 64} and larger["classes"] == ["a", "b"]
    assert "classes" not in fitted(description, "m", {"num_classes": 5}, classes=5)
    assert description["transform"]["img_size"] == 32


def test_a_file_that_says_what_it_cannot_is_named(tmp_path):
    model = create_model("inline_deit_digits", depth=1)
    for suffix in ("pdparams",):
        path = tmp_path / f"w.{suffix}"
        save_weights(path, model.state_dict(), {"model": "m", "overrides": {}, "format": 9})
        with pytest.raises(WeightsFileError, match=rf"w\.{suffix} is not read.*format 9"):
            open_weights(path)
