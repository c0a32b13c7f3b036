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
    from paddle.vision.datasets import Cifar10

    path = sources.digits_as_cifar10(tmp_path / sources.ARCHIVE)
    assert [file.name for file in tmp_path.iterdir()] == [sources.ARCHIVE]
    expected, labels = sources.arrays(train=False, mean=(0,) * 3, std=(1 / 255,) * 3)
    expected = np.round(expected)
    test_set = Cifar10(data_file=str(path), mode="test", download=False, backend="cv2")
    train_set = Cifar10(data_file=str(path), mode="train", download=False, backend="cv2")
    assert len(train_set) == 1433 and len(test_set) == len(expected)
    for i in (0, 100, 363):
        image, label = test_set[i]
        assert np.array_equal(np.asarray(image), expected[i].transpose(1, 2, 0)) and label == labels[i]
