"""Lists beside images and zip files: labels, files that are not there, and what is said about either."""

import io
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_inline.data.classes import MOST_CLASSES
from paddle_inline.data.lists import read_map
from paddle_inline.data.sources import open_source
from paddle_inline.utils.errors import MissingFileError, UserError
from tests.data.trees import picture

GOOD = "train/0.png 0\ntrain/1.png 1\n"


def opened(root, lines, names=("train/0.png", "train/1.png"), classes=None):
    """The training images of a list."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(root / name)
    (root / "train_list.txt").write_text(lines)
    if classes:
        (root / "classes.txt").write_text(classes)
    return open_source("imagenet", str(root), train=True)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "a.png 99999999999999999999\n",
            r"line 1: .*'99999999999999999999' is no class number \(.*below 1,000,000",
        ),
        (f"a.png 0\nb.png {MOST_CLASSES}\n", "line 2: .*is no class number"),
        (f"a.png {'9' * 5000}\n", "line 1: .*is no class number"),
        ("a.png -1\n", "line 1: .*'-1' is no class number"),
        ("a.png 1.0\n", "line 1: .*'1.0' is no class number"),
        ("a.png cat\n", r"line 1: .*'cat' is no class number .*classes\.txt"),
        ("a.png 0 1\n", "line 1: .*several labels"),
        ("a.png,0,1\n", "line 1: .*several labels"),
        ("0 a.png\n", "line 1: .*the file comes first"),
        ("a.png\n", "line 1: .*it has no label"),
        ("a.png 0\n# comment\n", "line 2"),
    ],
)
def test_labels_that_are_refused(tmp_path, lines, message):
    (tmp_path / "list.txt").write_text(lines)
    with pytest.raises(UserError, match=r"list\.txt, " + message):
        read_map(tmp_path / "list.txt")


def test_labels_from_one(tmp_path):
    lines = "train/0.png 1\ntrain/1.png 2\n"
    (note,) = opened(tmp_path, lines).notes
    assert "train_list.txt: no image of class 0. Do its labels start at 1? They start at 0" in note
    with pytest.raises(
        UserError, match=r"names 2 classes; .*train_list\.txt has class 2: do the labels start at 1"
    ):
        opened(tmp_path, lines, classes="cat\ndog\n")


def test_files_that_are_named_twice(tmp_path):
    notes = opened(tmp_path, GOOD + "train/0.png 0\n").notes
    assert len(notes) == 1 and "names 1 files more than once" in notes[0]
    notes = opened(tmp_path, GOOD + "train/0.png 1\n").notes
    assert "gives 1 files several labels: train/0.png [0, 1]" in notes[1]


def test_classes_that_are_called_alike(tmp_path):
    """As two of ImageNet's are, by their readable names."""
    source = opened(tmp_path, GOOD, classes="crane\ncrane\n")
    assert source.classes == ("crane", "crane") and "several classes are called crane" in source.notes[0]


def test_files_that_are_no_images_by_their_names(tmp_path):
    (note,) = opened(tmp_path, GOOD + "train/x.npy 0\n").notes
    assert "names files that do not end as images do: 1 .npy" in note


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("0.png 0\n1.png 1\n", r"train has it: write train/0\.png in the list"),
        ("x/0.png 0\n", "files are named as they lie in"),
    ],
)
def test_files_that_are_elsewhere(tmp_path, lines, message):
    with pytest.raises(MissingFileError, match=message):
        opened(tmp_path, lines)


# ---------------------------------------------------------------- zip files


def data(seed=0):
    file = io.BytesIO()
    picture(seed).save(file, "PNG")
    return file.getvalue()


def zipped(root, members, lines, change=None):
    """The training images of a zip file with members {name: bytes}."""
    with zipfile.ZipFile(root / "train.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    if change:
        path = root / "train.zip"
        path.write_bytes(change(path.read_bytes()))
    (root / "train_map.txt").write_text(lines, encoding="utf-8")
    return open_source("imagenet", str(root), train=True, zip_mode=True)


@pytest.mark.parametrize(
    ("inside", "listed"),
    [
        ("a/0.png", "a/0.png"),
        ("a\\0.png", "a/0.png"),
        ("a/0.png", "a\\0.png"),
        ("./a/0.png", "a/0.png"),
        ("a/0.png", "/a/0.png"),
        ("train/a/0.png", "a/0.png"),
        ("imagenet/a/0.png", "a/0.png"),
        ("猫/0.png", "猫/0.png"),
    ],
)
def test_names_inside_and_in_the_list(tmp_path, inside, listed):
    source = zipped(tmp_path, {inside: data()}, f"{listed}\t0\n")
    assert source[0][0].size == (8, 6) and len(source.notes) == 1 and "has one class, '0'" in source.notes[0]


def test_a_folder_at_the_top_whose_first_file_is_missing(tmp_path):
    source = zipped(tmp_path, {"x/1.png": data(), "x/2.png": data()}, "0.png\t0\n1.png\t1\n2.png\t1\n")
    assert source[1][1] == 1 and source[2][0].size == (8, 6) and "lacks: 0.png" in source.notes[0]


@pytest.mark.parametrize("encoding", ["gb18030", "utf-8"])
def test_names_in_an_encoding_that_the_zip_file_does_not_name(tmp_path, encoding):
    raw = "猫/0.png".encode(encoding).decode("cp437")
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("x" * len(raw), data())
    path = tmp_path / "train.zip"
    path.write_bytes(path.read_bytes().replace(b"x" * len(raw), raw.encode("cp437")))
    (tmp_path / "train_map.txt").write_text("猫/0.png\t0\n", encoding="utf-8")
    assert open_source("imagenet", str(tmp_path), train=True, zip_mode=True)[0][0].size == (8, 6)


def test_what_list_and_zip_file_lack_of_each_other_is_said(tmp_path):
    members = {"0.png": data(), "1.png": data(), "a.txt": b"", "__MACOSX/0.png": b"", "x/.DS_Store": b""}
    source = zipped(tmp_path, members, "0.png\t0\nnone.png\t1\n")
    notes = "\n".join(source.notes)
    assert "names 1 files that" in notes and "lacks: none.png" in notes
    assert "left out: 1 images that the list does not name" in notes
    assert "1 .txt" in notes and "__MACOSX" in notes and ".DS_Store" in notes
    with pytest.raises(OSError, match=r"no item named 'none\.png'"):
        source[1]


def test_an_image_that_unpacks_to_more_than_any_has(tmp_path, monkeypatch):
    monkeypatch.setattr("paddle_inline.data.lists.MOST_BYTES", 1 << 20)
    source = zipped(tmp_path, {"0.png": bytes(3 << 20)}, "0.png\t0\n")
    with pytest.raises(OSError, match="it unpacks to 3 MiB; an image has 1 at most"):
        source[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda whole: whole[: len(whole) // 2],
            "has the beginning of a zip file and not its end: it is cut off",
        ),
        (lambda whole: b"<html>quota exceeded", "is no zip file but a web page"),
        (lambda whole: b"", "is no zip file but an empty file"),
    ],
)
def test_zip_files_that_are_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=r"train\.zip " + message):
        zipped(tmp_path, {"0.png": data()}, "0.png\t0\n", change)


def test_zip_files_that_are_not_there(tmp_path):
    (tmp_path / "train.zip").mkdir()
    (tmp_path / "train_map.txt").write_text("0.png\t0\n")
    with pytest.raises(UserError, match="is a folder, no zip file: leave --zip out"):
        open_source("imagenet", str(tmp_path), train=True, zip_mode=True)
    (tmp_path / "train.zip").rmdir()
    with pytest.raises(
        MissingFileError, match=r"train\.zip does not exist; --zip takes train\.zip and train_map\.txt"
    ):
        open_source("imagenet", str(tmp_path), train=True, zip_mode=True)


def test_an_encrypted_member_is_a_bad_image(tmp_path):
    def encrypted(whole):
        local, central = whole.index(b"PK\3\4"), whole.index(b"PK\1\2")
        flagged = bytearray(whole)
        flagged[local + 6] |= 1
        flagged[central + 8] |= 1
        return bytes(flagged)

    source = zipped(tmp_path, {"0.png": data()}, "0.png\t0\n", encrypted)
    with pytest.raises(OSError, match="encrypted"):
        source[0]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.text("ab é猫'$%-_", min_size=1, max_size=8).map(lambda name: f"n{name}n.png"),
            st.integers(0, MOST_CLASSES - 1),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([" ", "\t", ",", ", ", "  "]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_any_list_is_read_as_it_was_written(tmp_path_factory, rows, separator, end):
    path = tmp_path_factory.getbasetemp() / "any_list.txt"
    path.write_bytes("".join(f"{name}{separator}{label}{end}" for name, label in rows).encode("utf-8-sig"))
    assert read_map(path) == rows
