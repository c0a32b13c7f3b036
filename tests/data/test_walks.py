"""What a walk takes, what it passes over and what it says: one rule for training and prediction."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_inline.data.folders import SYSTEM_NAMES, LeftOut, find_images, is_system_name, walk
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
    st.sampled_from(sorted(SYSTEM_NAMES))
    | st.text("abc.~", min_size=1, max_size=4).map(lambda t: "." + t).filter(lambda t: t != "..")
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


def test_more_of_what_systems_leave_behind():
    names = (
        "found.001",
        "RECYCLED",
        "$WinREAgent",
        "@Transcode",
        "0.png@SynoEAStream",
        "aquota.user",
        "Picasa.ini",
    )
    assert all(map(is_system_name, names))
    assert not any(
        map(is_system_name, (".", "..", "found.1", "recycle", "$5", "@home", "#1", "checkpoints", "tmp"))
    )


def test_links_that_lead_nowhere_or_to_themselves(tmp_path):
    tree(tmp_path, "ab")
    for name, target in (("c", "none"), ("d", "d"), ("a/e", "../a/e"), ("a/f", "none")):
        os.symlink(target, tmp_path / "train" / name)
    source = open_source("imagenet", str(tmp_path), train=True)
    assert source.classes == ("a", "b") and source.labels == [0, 0, 1, 1]
    (note,) = source.notes
    assert "links not followed" in note and "nowhere: c, d, a/e, a/f" in note
    said = []
    assert len(find_images([tmp_path / "train"], said)) == 4 and "nowhere: c, d, a/e, a/f" in said[0]


def test_one_folder_in_two_classes_is_said(tmp_path):
    tree(tmp_path, "ab")
    save(tmp_path / "more" / "0.png")
    for name in "ab":
        os.symlink(tmp_path / "more", tmp_path / "train" / name / "linked")
    for _ in range(2):
        (note,) = open_source("imagenet", str(tmp_path), train=True).notes
        assert "images have both labels: a and b" in note
        os.utime(tmp_path / "more", (1, 1))
    os.symlink("a", tmp_path / "train" / "c")
    assert "a and b, a and c" in open_source("imagenet", str(tmp_path), train=True).notes[0]


def test_every_suffix_is_counted(tmp_path):
    tree(tmp_path, "ab")
    for i in range(20):
        (tmp_path / "train" / "a" / f"0.x{i:02}").write_text("")
    (note,) = open_source("imagenet", str(tmp_path), train=True).notes
    assert "1 .x00" in note and "and 8 files of 8 more suffixes; images end in .bmp" in note


def test_train_and_val_that_are_one_folder(tmp_path):
    tree(tmp_path, "ab", [])
    os.symlink("train", tmp_path / "val")
    assert "train and val are one folder" in open_source("imagenet", str(tmp_path), train=False).notes[0]
    assert not open_source("imagenet", str(tmp_path), train=True).notes
    os.unlink(tmp_path / "val")
    tree(tmp_path, [], "a")
    os.symlink(tmp_path / "train" / "b", tmp_path / "val" / "b")
    (note,) = open_source("imagenet", str(tmp_path), train=False).notes
    assert "train and val share the class folders b: their accuracy is that of images learnt" in note


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "; it is empty"),
        ({"train/x.tgz": b""}, r"holds x\.tgz: only tar files that are not compressed"),
        ({"train/notes.md": b""}, r"train holds notes\.md"),
        ({"train": b""}, "train is no folder"),
        ({"train.zip": b"", "train_map.txt": b""}, r"it holds train\.zip: give --zip"),
        ({"train.txt": b""}, r"is the list train\.txt\? Rename it to train_list\.txt"),
        ({"ILSVRC2012_img_train.tar": b""}, r"it holds ILSVRC2012_img_train\.tar: .*called train\*\.tar"),
        (
            {"cat/0.png": b"", "dog/0.png": b""},
            "it holds cat, dog: if these are the classes, move them to train/",
        ),
        ({"cifar-10-batches-py/test_batch": b""}, "it holds CIFAR: set data.dataset"),
        ({"Train/a/0.png": b""}, "is it Train"),
    ],
)
def test_what_a_folder_holds_instead(tmp_path, files, message):
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(MissingFileError, match=message):
        open_source("imagenet", str(tmp_path), train=True)


def test_a_part_or_a_file_given_for_the_folder(tmp_path):
    tree(tmp_path, "ab")
    with pytest.raises(MissingFileError, match=rf"is a part itself: give {tmp_path}$"):
        open_source("imagenet", str(tmp_path / "train"), train=True)
    for name, data, message in (
        (
            "a.zip",
            b"PK\3\4",
            r"a\.zip is a file \(a zip archive\), no data set folder: unpack it, or .* --zip",
        ),
        (
            "a.tar",
            b"",
            r"a\.tar is a file \(an empty file\), no data set folder: unpack it; tar files of images",
        ),
        ("a.txt", b"x", r"a\.txt is a file \(text\), no data set folder: give the folder"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(MissingFileError, match=message):
            open_source("imagenet", str(tmp_path / name), train=True)
    with pytest.raises(MissingFileError, match="there is no such path"):
        open_source("imagenet", str(tmp_path / "none"), train=True)


KINDS = st.sampled_from(["image", "text", "hidden", "system", "folder", "loop", "nowhere", "linked"])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["", "x/", "x/y/"]), KINDS), max_size=12))
def test_any_tree_is_walked_once_and_all_of_it_said(tmp_path_factory, things):
    """Every image is read once and everything else is counted, whatever links and leftovers stand among them."""
    root = tmp_path_factory.mktemp("any")
    tree(root, "ab", count=1)
    save(root / "elsewhere" / "0.png")
    images, others, linked = 2, 0, set()
    for i, (name, below, kind) in enumerate(things):
        folder = root / "train" / name / below
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "image":
            save(folder / f"i{i}.png")
            images += 1
        elif kind == "folder":
            (folder / f"f{i}.png").mkdir()
        elif kind == "linked":
            os.symlink(root / "elsewhere", folder / f"l{i}")
            others += name in linked  # a class reads it once
            images += name not in linked
            linked.add(name)
        else:
            others += 1
            if kind == "text":
                (folder / f"{i}.txt").write_text("")
            elif kind in ("hidden", "system"):
                save(folder / {"hidden": f".h{i}", "system": "@eaDir"}[kind] / "0.png")
                others -= kind == "system" and any(t == (name, below, kind) for t in things[:i])
            else:
                os.symlink({"loop": root / "train" / name, "nowhere": "none"}[kind], folder / f"l{i}")
    source = open_source("imagenet", str(root), train=True)
    assert len(source) == images and {source.name(i) for i in range(images)} == set(
        map(source.name, range(images))
    )
    left_out = LeftOut()
    for name in "ab":
        left_out.add(walk(root / "train" / name).left_out)
    assert sum((left_out.suffixes + left_out.system).values()) + len(left_out.links) == others
    assert bool(source.notes) == (others > 0 or len(linked) == 2)
