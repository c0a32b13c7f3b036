"""The comparison in the documentation is that of its record."""

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("paddle")
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "figures" / "attention_zoo.py"
spec = importlib.util.spec_from_file_location("figures_attention_zoo", SCRIPT)
figure = importlib.util.module_from_spec(spec)
spec.loader.exec_module(figure)

RECORD = SCRIPT.with_suffix(".json")
PAGE = figure.PAGE.read_text(encoding="utf-8")


def test_the_table_is_that_of_the_record():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert figure.in_page(PAGE, record) == PAGE
    record["rows"][0]["params"] += 1
    assert figure.in_page(PAGE, record) != PAGE


def test_the_record_has_every_form_and_the_controls():
    from paddle_inline import list_attentions
    from paddle_inline.compare.plan import default_forms

    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert [row["name"] for row in record["rows"]] == default_forms(list(list_attentions()))
    assert record["settings"]["backbone"] == "inline_deit_digits"
    assert all(row["params"] for row in record["rows"])


def test_numbers_keep_five_digits_and_maps_are_left_out():
    assert figure.rounded({"a": [1.23456789, 2], "maps": 3, "b": None}) == {"a": [1.2346, 2], "b": None}
