"""The page on the forms of attention: its table is what `list_attentions` says, its code runs, its options are all."""

import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("paddle")
sys.path.insert(0, str(Path(__file__).parent))

from fences import blocks

import paddle_inline

PAGE = Path(__file__).parents[2] / "docs" / "attention_zoo.md"
TEXT = PAGE.read_text(encoding="utf-8")
BEGIN, END = "<!-- table of list_attentions -->\n", "<!-- end of the table -->"


def table(forms):
    """The table of the page, of what `list_attentions` returns."""
    lines = [
        "| form | source | work | parameters | injective (rank) | backbones | grid | options |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in forms.items():
        said = {True: "yes", False: "no", None: "by m" if "m -" in row.row_dimension else "by a"}[
            row.injective
        ]
        injective = f"{said} ({row.row_dimension})" if row.rows else "no rows over tokens"
        backbones = "all" if "CSwin" in row.backbones else "not CSwin"
        grid = "bound" if row.grid_bound else "any"
        options = ", ".join(f"`{option}`" for option in row.options)
        cells = (
            f"`{name}`",
            row.source,
            row.complexity,
            row.extra_parameters,
            injective,
            backbones,
            grid,
            options,
        )
        lines.append(f"| {' | '.join(cells)} |".replace("  ", " "))
    return "\n".join(lines) + "\n"


def shown(text):
    return text.partition(BEGIN)[2].partition(END)[0]


def test_the_table_is_what_the_package_says():
    """To write it anew: print(table(paddle_inline.list_attentions()))."""
    assert shown(TEXT) == table(paddle_inline.list_attentions())


def test_another_number_in_the_table_shows():
    assert shown(TEXT.replace("2 N d C", "3 N d C")) != table(paddle_inline.list_attentions())


def test_every_option_is_explained():
    explained = {
        name: set(re.findall(r"`(\w+)`", owners))
        for name, owners in re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|", TEXT, re.M)
    }
    forms = paddle_inline.list_attentions()
    options = {option for row in forms.values() for option in row.options}
    assert explained == {
        option: {name for name, row in forms.items() if option in row.options} for option in options
    }


def test_the_code_runs(capsys):
    names = {}
    for block in blocks(TEXT, "python"):
        exec(compile(block, str(PAGE), "exec"), names)
    refusals = capsys.readouterr().out.splitlines()
    assert len(refusals) == len(names["mistakes"]) and all(len(line) > 40 for line in refusals)
