"""Put a comparison into the documentation: its record, its picture and its table.

    python docs/figures/attention_zoo.py FOLDER

FOLDER is what `python -m paddle_inline compare --output FOLDER` wrote. Gives docs/figures/attention_zoo.json (numbers
to five digits, no maps) and attention_zoo.png, and writes the table in docs/attention_zoo.md anew.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from paddle_inline.compare.summary import COLUMNS, shown  # noqa: E402

PAGE = HERE.parent / "attention_zoo.md"
BEGIN, END = "<!-- table of compare -->", "<!-- end of the comparison -->"
# what a reader of the page needs first; the others are in the record
SHOWN = ("top1", "spread", "params", "macs", "speed", "speed4", "time_slope", "confused", "rank", "local")
SHOWN += ("without_local", "without_random")


def table(results: Mapping[str, Any]) -> str:
    """Return the record's rows as a table in Markdown, the most accurate form first."""
    columns = [column for column in COLUMNS if column.key in SHOWN]
    lines = ["| form | " + " | ".join(column.title for column in columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    for row in sorted(results["rows"], key=lambda row: (-(row["top1"] or 0), row["name"])):
        lines.append(f"| `{row['name']}` | " + " | ".join(shown(row, column) for column in columns) + " |")
    return "\n".join(lines)


def in_page(text: str, results: Mapping[str, Any]) -> str:
    """Return a page's text with the table of these results between its marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table(results)}\n{END}{rest.split(END)[1]}"


def rounded(value: Any) -> Any:
    """Return a value whose numbers have five digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items() if key != "maps"}
    return [rounded(part) for part in value] if isinstance(value, list) else value


def main(folder: str) -> None:
    results = rounded(json.loads((Path(folder) / "results.json").read_text(encoding="utf-8")))
    lines = ",\n".join(json.dumps(row) for row in results.pop("rows"))  # a form a line
    head = json.dumps(results, indent=1)[:-2]
    (HERE / "attention_zoo.json").write_text(f'{head},\n "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    shutil.copy(Path(folder) / "results.png", HERE / "attention_zoo.png")
    record = json.loads((HERE / "attention_zoo.json").read_text(encoding="utf-8"))
    PAGE.write_text(in_page(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
