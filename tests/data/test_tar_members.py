"""Tar files of images as they are met: links, more files of an image, damage that `tarfile` passes over in silence."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_inline.data.folders import LeftOut
from paddle_inline.data.sources import open_source
from paddle_inline.data.tar_members import read_members
from paddle_inline.utils.errors import UserError
from tests.data.trees import picture


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def data(seed=0):
    file = io.BytesIO()
    picture(seed).save(file, "PNG")
    return file.getvalue()


PNG = data()
TWO = [("0.png", PNG), ("0.cls", b"0"), ("1.png", PNG), ("1.cls", b"1")]


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def write(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return path


def rows(path, members):
    """({image: class}, what was left out) of a tar file."""
    left_out = LeftOut()
    found = read_members(str(write(path, members)), left_out)
    return {name: label for name, *_, label in found}, {**left_out.suffixes, **left_out.system}


@pytest.mark.parametrize(
    ("members", "expected", "left_out"),
    [
        (TWO, {"0.png": 0, "1.png": 1}, {}),
        ([("0.JPG", PNG), ("0.CLS", b" 3\r\n")], {"0.JPG": 3}, {}),
        ([("a.b.png", PNG), ("a.b.cls", b"0"), ("a.c.cls", b"1"), ("a.c.png", PNG)], {"a.b.png": 0, "a.c.png": 1}, {}),
        ([("/x/0.png", PNG), ("/x/0.cls", b"0")], {"/x/0.png": 0}, {}),
        ([("../0.png", PNG), ("../0.cls", b"0")], {"../0.png": 0}, {}),
        # what belongs to an image beside it, before it and behind it
        ([("0.jpg", PNG), ("0.a.png", PNG), ("0.cls", b"0"), ("0.json", b"")], {"0.jpg": 0}, {".a.png": 1, ".json": 1}),
        ([("0.cls", b"0"), ("0.mask.png", PNG), ("0.png", PNG)], {"0.png": 0}, {".mask.png": 1}),
        ([("0.mask.png", PNG), ("0.png", PNG), ("0.cls", b"0")], {"0.png": 0}, {".mask.png": 1}),
        ([("0.mask.png", PNG), ("0.cls", b"0"), ("0.png", PNG)], {"0.png": 0}, {".mask.png": 1}),
        ([("0.cls", b"0"), ("0.png", PNG), ("0.seg.png", PNG), *TWO[2:]], {"0.png": 0, "1.png": 1}, {".seg.png": 1}),
        ([("._0.png", b"x"), ("__MACOSX/0.cls", b"x"), *TWO[:2]], {"0.png": 0}, {"._0.png": 1, "__MACOSX": 1}),
        ([*TWO, link("2.png", "0.png", tarfile.LNKTYPE), ("2.cls", b"1")], {"0.png": 0, "1.png": 1, "2.png": 1}, {}),
        (
            [("a/0.png", PNG), ("a/0.cls", b"0"), link("b/1.png", "../a/0.png"), ("b/1.cls", b"1")],
            {"a/0.png": 0, "b/1.png": 1},
            {},
        ),
    ],
)  # fmt: skip
def test_what_is_read(tmp_path, members, expected, left_out):
    assert rows(tmp_path / "0.tar", members) == (expected, left_out)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("0.png", PNG), ("0.cls", b"99999999999999999999")], "0.cls holds b'9+', not a class number"),
        ([("0.png", PNG), ("0.cls", b"-1")], "0.cls holds b'-1', not a class number"),
        ([("0.png", PNG), ("0.cls", "²".encode())], "0.cls holds .*, not a class number .a whole number from 0"),
        ([("0.png", PNG), ("0.cls", b"")], "0.cls holds b'', not a class number"),
        ([*TWO, ("2.cls", b"0")], "2.cls has no image beside it"),
        ([("0.cls", b"0"), ("1.cls", b"0"), ("0.png", PNG)], "0.cls has no image beside it"),
        ([("0.png", PNG), ("1.png", PNG), ("0.cls", b"0"), ("1.cls", b"0")], "0.png has no .cls beside it; .* behind"),
        ([("n01_1.JPEG", PNG), ("n01_2.JPEG", PNG)], "n01_1.JPEG has no .cls beside it; .*unpacked into train/CLASS/"),
        ([*TWO, link("2.png", "/etc/passwd"), ("2.cls", b"0")], "2.png is a link to /etc/passwd"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, members, message):
    with pytest.raises(UserError, match=rf"0\.tar: {message}"):
        rows(tmp_path / "0.tar", members)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda whole: whole[:2048] + b"\xff" + whole[2049:], "whole tar file: behind byte 2048 the header is damaged"),
        (lambda whole: whole[:2048], "no whole tar file: behind byte 2048 it ends there .*cut off"),
        (lambda whole: whole[:4096], "no whole tar file: behind byte 4096 it ends there"),
        (lambda whole: whole[:1300], "0.tar .*copy or download it again"),
        (lambda whole: whole[:2048] + bytes(1024) + whole[2048:], "goes on behind its end mark at byte 2048"),
        (lambda whole: whole + whole, "goes on behind its end mark"),
        (lambda whole: b"", "it is an empty file"),
        (lambda whole: b"<html>" + bytes(600), "it is a web page"),
        (lambda whole: b"\x1f\x8b" + bytes(600), "it is a gzip archive"),
    ],
)  # fmt: skip
def test_files_that_are_cut_off_or_damaged(tmp_path, change, message):
    path = write(tmp_path / "0.tar", TWO)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=message):
        read_members(str(path), LeftOut())


def test_what_shards_leave_out_is_said_each_time(tmp_path):
    write(tmp_path / "train" / "0.tar", [*TWO, ("2.json", b""), ("._3.png", b"")])
    write(tmp_path / "val" / "0.tar", TWO)
    picture().save(tmp_path / "train" / "loose.png")
    (tmp_path / "train" / "1.tar.part").write_bytes(b"")
    first, again = (open_source("imagenet", str(tmp_path), train=True).notes for _ in range(2))
    assert first == again
    said = "\n".join(first)
    for expected in ("1 .json", "._3.png", "1 .part", "left out beside the tar files: loose.png"):
        assert expected in said
    assert not open_source("imagenet", str(tmp_path), train=False).notes


def test_a_tar_file_that_has_become_shorter(tmp_path):
    path = write(tmp_path / "train.tar", TWO)
    source = open_source("imagenet", str(tmp_path), train=True)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(OSError, match="shorter since it was listed"):
        source[1]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 50), st.sampled_from(["", ".mask", ".x.y"])), min_size=1
    ),
    st.data(),
)
def test_any_order_of_pairs_and_any_byte_of_damage(tmp_path_factory, samples, draws):  # fmt: skip
    """All images come back with their class; with a byte of a header changed, all or an error that names the file."""
    members = []
    for i, (first, label, more) in enumerate(samples):
        pair = [(f"{i:03d}.png", b"x"), (f"{i:03d}.cls", str(label).encode())]
        members += [*pair[:: 1 if first else -1], *([(f"{i:03d}{more}.png", b"")] if more else [])]
    path = tmp_path_factory.getbasetemp() / "any.tar"
    expected = {f"{i:03d}.png": label for i, (_, label, _) in enumerate(samples)}
    assert rows(path, members)[0] == expected
    whole = bytearray(path.read_bytes())
    header = draws.draw(st.integers(0, len(members) - 1)) * 1024 if all(m[1] for m in members) else 0
    whole[header + draws.draw(st.integers(0, 511))] ^= draws.draw(st.integers(1, 255))
    path.write_bytes(whole)
    try:
        found = {name: label for name, *_, label in read_members(str(path), LeftOut())}
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert found == expected
