"""What every reader of weight files checks first: that the file is one, and that its numbers are."""

import numpy as np
import pytest

from paddle_inline.weights.lazy_array import WeightsFileError, check_file, nonfinite


def test_what_is_not_a_file_is_named(tmp_path):
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "empty").touch()
    for path, message in (
        (tmp_path, "folder"),
        (tmp_path / "device", "device"),
        (tmp_path / "empty", "empty"),
    ):
        with pytest.raises(WeightsFileError, match=message):
            check_file(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        check_file(tmp_path / "none")


def test_numbers_that_are_none_are_counted():
    assert nonfinite(np.array([1, np.nan, -np.inf, 0], "float16")) == 2
    assert nonfinite(np.array([0x3F80, 0x7F80, 0xFF81, 0x7F7F], "uint16")) == 2  # 1, inf, nan, largest
    assert nonfinite(np.array([1, 2])) == 0


def test_a_name_that_the_system_refuses(tmp_path):
    with pytest.raises(WeightsFileError, match=r"^.{400}\.\.\. cannot be read: File name too long$"):
        check_file("x" * 5000)
