"""What a walk takes, what it passes over and what it says: one rule for training and prediction."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_inline.data.folders import SYSTEM_NAMES, find_images, is_system_name
from paddle_inline.data.sources import open_source
from paddle_inline.utils.errors import MissingFileError
from tests.data.trees import picture, tree

LEFT_BEHIND = (
    ".ipynb_checkpoints",
    "__MACOSX",
    "@eaDir",
    "$RECYCLE.BIN",
    "System Volume Information",
    ".git",
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture().save(path, "PNG")


def test_what_systems_leave_behind_is_no_class_and_no_image(tmp_path):
    tree(tmp_path, "ab")
    for part in ("train", "val"):
        for name in LEFT_BEHIND:
            save(tmp_path / part / name / "0.png")
            save(tmp_path / part / "a" / name / "0.png")
        save(tmp_path / part / "a" / "._0.png")
        save(tmp_path / part / "a" / "0.png~")
    for train in (True, False):
        source = open_source("imagenet", str(tmp_path), train=train)
        assert source.classes == ("a", "b") and source.labels == [0, 0, 1, 1]
        (note,) = source.notes
        assert "passed over" in note and ".ipynb_checkpoints (2)" in note and "__MACOSX (2)" in note
    notes = []
    found = find_images([tmp_path / "train"], notes)
    assert [path.name for path in found] == ["0.png", "1.png"] * 2 and len(notes) == 1
    again = open_source("imagenet", str(tmp_path), train=False).notes  # of the list that is kept
    assert again == [note]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(SYSTEM_NAMES)) | st.text("abc.~", min_size=1, max_size=4).map(lambda t: "." + t)
)
def test_system_names_in_any_case(name):
    assert is_system_name(name) and is_system_name(name.upper()) and is_system_name(name.capitalize())
    assert not is_system_name("n" + name.rstrip("~"))


def test_images_below_the_class_folders_are_read(tmp_path):
    tree(tmp_path, "ab")
    save(tmp_path / "train" / "a" / "more" / "deep" / "9.png")
    source = open_source("imagenet", str(tmp_path), train=True)
    assert source.labels == [0, 0, 0, 1, 1]
    assert source.name(2) == str(tmp_path / "train" / "a" / "more" / "deep" / "9.png")
    save(tmp_path / "train" / "a" / "more" / "deep" / "91.png")  # the list that is kept notices
    os.utime(tmp_path / "train" / "a" / "more" / "deep", (1, 1))
    assert len(open_source("imagenet", str(tmp_path), train=True)) == 6


def test_links_are_followed_and_end(tmp_path):
    tree(tmp_path, "ab")
    save(tmp_path / "elsewhere" / "x" / "5.png")
    os.symlink(tmp_path / "elsewhere", tmp_path / "train" / "a" / "linked")
    os.symlink(tmp_path / "train", tmp_path / "train" / "a" / "up")
    os.symlink(tmp_path / "elsewhere", tmp_path / "elsewhere" / "x" / "round")
    source = open_source("imagenet", str(tmp_path), train=True)
    assert source.labels == [0, 0, 0, 1, 1]
    (note,) = source.notes
    assert "not followed" in note and "a/up" in note and "a/linked/x/round" in note


def test_what_is_left_out_is_counted_by_suffix(tmp_path):
    tree(tmp_path, "ab")
    for name in ("1.heic", "2.HEIC", "a.txt", "README", "x.avif"):
        (tmp_path / "train" / "a" / name).write_text("")
    save(tmp_path / "train" / "loose.png")
    notes = open_source("imagenet", str(tmp_path), train=True).notes
    assert "2 .heic, " in notes[0] and "1 .txt" in notes[0] and "1 files without a suffix" in notes[0]
    assert "1 images beside the class folders (loose.png ...)" in notes[1]
    said = []
    assert len(find_images([tmp_path / "train"], said)) == 5 and "2 .heic" in said[0]


def test_patterns(tmp_path):
    tree(tmp_path, "ab")
    (tmp_path / "train" / "a" / "notes.txt").write_text("")
    notes = []
    assert len(find_images([f"{tmp_path}/train/*"], notes)) == 4
    assert len(find_images([f"{tmp_path}/train/a/*"])) == 2
    assert len(find_images([f"{tmp_path}/train/**"])) == 4
    assert "1 .txt" in notes[0]
    with pytest.raises(MissingFileError, match=r"no image .*left out: 1 \.txt"):
        find_images([f"{tmp_path}/train/a/*.txt"])


def test_tiny_imagenet(tmp_path):
    for name in ("n01", "n02"):
        for i in range(2):
            save(tmp_path / "train" / name / "images" / f"{name}_{i}.JPEG")
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("")
    rows = [("val_0.JPEG", "n02"), ("val_1.JPEG", "n01")]
    for name, _ in rows:
        save(tmp_path / "val" / "images" / name)
    table = tmp_path / "val" / "val_annotations.txt"
    table.write_text("".join(f"{name}\t{label}\t0\t0\t1\t1\n" for name, label in rows))
    train, val = (open_source("imagenet", str(tmp_path), train=part) for part in (True, False))
    assert train.classes == val.classes == ("n01", "n02")
    assert train.labels == [0, 0, 1, 1] and val.labels == [1, 0]
    assert val[0][0].mode == "RGB" and val.name(0).endswith("images/val_0.JPEG")
    table.write_text("val_0.JPEG\n")
    with pytest.raises(ValueError, match=r"line 1: 'val_0\.JPEG' is not"):
        open_source("imagenet", str(tmp_path), train=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: save(root / "train" / "0.png"), "has 1 images, in no class folder|1 images beside"),
        (lambda root: save(root / "cat" / "0.png"), "it holds cat"),
        (lambda root: save(root / "Training" / "cat" / "0.png"), "is it Training"),
        (lambda root: save(root / "data" / "train" / "cat" / "0.png"), "data has one: give that folder"),
    ],
)
def test_another_level_is_named(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(MissingFileError, match=message):
        open_source("imagenet", str(tmp_path), train=True)
