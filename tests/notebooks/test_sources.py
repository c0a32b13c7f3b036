"""The notebooks' own data helper: AI Studio's mounted archive is found, and a small one stands in for it."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks"))

import sources


def test_mounted_archive_is_found(tmp_path):
    assert sources.find_cifar10([tmp_path]) is None
    mounted = tmp_path / "data12345" / sources.ARCHIVE
    mounted.parent.mkdir()
    mounted.touch()
    assert sources.find_cifar10([tmp_path / "absent", tmp_path]) == mounted


def test_aistudio_is_detected(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "AISTUDIO", tmp_path)
    monkeypatch.delenv("NOTEBOOK_OUTPUT", raising=False)
    (tmp_path / "work").mkdir()
    assert sources.output_folder("01") == (tmp_path / "work" / "01").resolve()
    assert "not mounted" in sources.describe(None)
    assert "CIFAR-10, from /x" in sources.describe("/x")


def test_digits_as_arrays():
    images, labels = sources.arrays(train=False)
    assert images.shape == (364, 3, 32, 32) and images.dtype == np.float32 and labels.dtype == np.int64
    assert -1 <= images.min() < -0.9 and 0.9 < images.max() <= 1
    assert (np.bincount(labels) > 30).all()


def test_stand_in_archive_has_cifars_format(tmp_path):
    path = sources.digits_as_cifar10(tmp_path / sources.ARCHIVE)
    assert [file.name for file in tmp_path.iterdir()] == [sources.ARCHIVE]
    for train, count in ((True, 1433), (False, 364)):
        expected, labels = sources.arrays(train)
        images, found = sources.arrays(train, archive=path)
        assert len(images) == count and np.array_equal(found, labels)
        assert np.array_equal(images, expected)
