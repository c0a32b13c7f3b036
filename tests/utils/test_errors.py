"""What a message shows of text that others wrote; which errors are a user's."""

from pathlib import Path

import pytest

from paddle_inline.utils.errors import (
    FileAccessError,
    MissingFileError,
    MissingPackageError,
    UserError,
    counted,
    short,
    shortened,
    unknown,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("head.weight", "head.weight"),
        ("x" * 80, "x" * 80),
        ("x" * 81, "x" * 80 + "..."),
        ("a\n\x1b[2Jb", "a\\n\\x1b[2Jb"),
        ("权重", "权重"),
        (384, "384"),
        ((1, "a"), "(1, 'a')"),
        (list(range(1000)), str(list(range(1000)))[:80] + "..."),
    ],
)
def test_short(value, shown):
    assert short(value) == shown


def test_counted():
    assert [counted(number, "epoch") for number in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]
    assert [counted(number, "class") for number in (1, 3)] == ["1 class", "3 classes"]
    assert [counted(f"{cores:g}", "core") for cores in (1.0, 1.5)] == ["1 core", "1.5 cores"]


def test_an_unknown_name_is_cut_and_its_neighbour_named():
    message = str(unknown("model", "y" * 10_000, ["soft_tiny"]))
    assert len(message) < 150
    assert "did you mean 'soft_tiny'" in str(unknown("model", "soft_tinny", ["soft_tiny"]))


@pytest.mark.parametrize("given", ["Mala", "MALA", " mala "])
def test_a_name_in_other_case_is_its_own_neighbour(given):
    assert "did you mean 'mala'" in str(unknown("form", given, ["rala", "mala"]))


def test_a_long_difference_is_cut_and_says_so():
    lines = [f"  - tensor{i} [1]" for i in range(42)]
    assert shortened(lines) == [*lines[:40], "  ... and 2 more"]
    assert shortened(lines[:40]) == lines[:40]
    assert shortened(lines, most=1) == [lines[0], "  ... and 41 more"]


def test_both_packages_have_the_same_errors():
    root = Path(__file__).parents[2]
    copies = [
        (root / package / "utils" / "errors.py").read_text() for package in ("paddle_inline", "torch_ref")
    ]
    assert copies[0] == copies[1]


@pytest.mark.parametrize(
    ("error", "also"),
    [(MissingFileError, FileNotFoundError), (FileAccessError, OSError), (MissingPackageError, ImportError)],
)
def test_a_users_error_is_also_python_s_own(error, also):
    assert issubclass(error, UserError) and issubclass(error, also) and issubclass(error, ValueError)
    assert str(error("no file a")) == "no file a"
