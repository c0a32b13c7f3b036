"""A file is written whole or not at all."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from paddle_inline.utils.errors import FileAccessError
from paddle_inline.weights import atomic
from paddle_inline.weights.atomic import atomic_write, is_stream, move_files, sha256, work_folder


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "model.pdparams"
    path.write_bytes(b"earlier")
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.suffix == ".pdparams" and temporary.parent == tmp_path
        assert path.read_bytes() == b"earlier"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["model.pdparams"]


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()])
def test_a_failure_leaves_the_earlier_file_alone(tmp_path, error):
    path = tmp_path / "a.json"
    path.write_text("earlier")
    with pytest.raises(type(error)), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "earlier"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_file_that_does_not_reach_the_disk_is_an_error(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), atomic_write(tmp_path / "a.json") as temporary:
        temporary.write_text("whole")
    assert os.listdir(tmp_path) == []


def test_the_contents_are_flushed_before_the_name_changes(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(atomic.os, "fsync", lambda handle: calls.append("fsync") or fsync(handle))
    monkeypatch.setattr(atomic.os, "replace", lambda *paths: calls.append("replace") or replace(*paths))
    with atomic_write(tmp_path / "a.json") as temporary:
        temporary.write_text("whole")
    assert calls == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize("size", [0, 5, (1 << 20) + 1])
def test_the_digest_is_that_of_hashlib(tmp_path, size):
    path = tmp_path / "data"
    path.write_bytes(bytes(i % 251 for i in range(size)))
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("target", ["there.json", "not_yet.json"])
def test_a_link_stays_and_its_target_is_written(tmp_path, target):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "there.json").write_text("earlier")
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "far" / target)
    with atomic_write(link, follow_links=True) as temporary:
        temporary.write_text("new")
    assert link.is_symlink() and (tmp_path / "far" / target).read_text() == "new"
    assert len(os.listdir(tmp_path)) == 2 and not list((tmp_path / "far").glob(".*"))


@pytest.mark.parametrize("target", ["there.json", "/dev/null"])
def test_a_link_is_replaced_and_its_target_stays(tmp_path, target):
    (tmp_path / "there.json").write_text("earlier")
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / target)
    with atomic_write(link) as temporary:
        temporary.write_text("new")
    assert not link.is_symlink() and link.read_text() == "new"
    assert (tmp_path / "there.json").read_text() == "earlier"


@pytest.mark.skipif(os.name == "nt", reason="has no such files")
def test_a_pipe_or_a_device_is_written_itself(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with atomic_write(pipe) as target:
        target.write_text("through")
    assert os.read(reader, 20) == b"through"
    os.close(reader)
    for path in (pipe, os.devnull, "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        assert is_stream(path)
    assert not is_stream(tmp_path) and not is_stream(tmp_path / "none") and not is_stream("/dev/shm/a")


@pytest.mark.parametrize("letter", ["a", "\u7535"], ids=ascii)
def test_names_of_the_greatest_length(tmp_path, letter):
    name = letter * ((255 - 5) // len(letter.encode())) + ".json"
    with atomic_write(tmp_path / name) as temporary:
        temporary.write_text("new")
    assert os.listdir(tmp_path) == [name]


def test_a_folder_s_files_come_in_together_and_the_last_one_last(tmp_path, monkeypatch):
    folder, moved, replace = tmp_path / "above" / "m", [], os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: moved.append(Path(new).name) or replace(old, new))
    with work_folder(folder) as work:
        for name in ("a.json", "b", "c"):
            (work / name).write_text("new")
        assert os.listdir(folder) == [work.name]
        move_files(work, folder, "a.json")
    assert sorted(os.listdir(folder)) == ["a.json", "b", "c"] and moved[-1] == "a.json"


def test_a_folder_of_work_that_fails_leaves_nothing_of_its_own(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "kept").touch()
    for folder, left in ((tmp_path / "old", ["kept"]), (tmp_path / "new", None)):
        with pytest.raises(KeyboardInterrupt), work_folder(folder) as work:
            (work / "a").touch()
            raise KeyboardInterrupt
        assert (os.listdir(folder) if folder.exists() else None) == left
    with (
        pytest.raises(FileAccessError, match="kept cannot be written"),
        work_folder(tmp_path / "old" / "kept"),
    ):
        pass
