"""The one table of tolerances, and the documentation's copy of it."""

import re
from pathlib import Path

import pytest

from convert.parity import tolerance
from convert.parity.capture import DTYPES

PAGE = Path(__file__).parents[3] / "docs" / "parity.md"


def test_every_precision_has_limits_and_a_reason():
    for table in (tolerance.OUTPUT, tolerance.GRADIENT, tolerance.REASONS):
        assert set(table) == set(DTYPES)


@pytest.mark.parametrize(("row", "table"), [("outputs", tolerance.OUTPUT), ("gradients", tolerance.GRADIENT)])
def test_the_documentation_shows_this_table(row, table):
    text = PAGE.read_text(encoding="utf-8")
    heads = re.search(r"^\| +\|(.*)\|$", text, re.M)[1].split("|")
    cells = re.search(rf"^\| {row}, relative \|(.*)\|$", text, re.M)[1].split("|")
    assert {head.strip(): float(cell) for head, cell in zip(heads, cells)} == table
