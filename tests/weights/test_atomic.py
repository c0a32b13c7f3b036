"""A file is written whole or not at all."""

import errno
import hashlib
import os

import pytest

from paddle_inline.weights import atomic
from paddle_inline.weights.atomic import atomic_write, sha256


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
