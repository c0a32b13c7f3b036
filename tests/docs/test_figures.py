"""The pictures' script keeps what tagged cells draw and what notebooks say, and no path of the machine."""

import importlib.util
from pathlib import Path

import pytest

for name in ("nbclient", "ipykernel", "matplotlib"):
    pytest.importorskip(name)

nbformat = pytest.importorskip("nbformat")

SCRIPT = Path(__file__).parents[2] / "docs" / "figures" / "make.py"
spec = importlib.util.spec_from_file_location("figures_make", SCRIPT)
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)


def notebook(*sources, tag):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[-1].metadata["tags"] = [tag]
    return nbformat.v4.new_notebook(cells=cells)


def test_picture_and_record(tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)
    say = "import os\nprint(os.environ['NOTEBOOK_OUTPUT'] + '/01')\nprint('50 % ━━━\\n\\x1b[1mdone\\x1b[0m')"
    draw = "import matplotlib.pyplot as plt\nplt.plot([0, 1])\nplt.show()"
    path = tmp_path / "one.ipynb"
    nbformat.write(notebook(say, draw, tag="figure:line"), path)
    done = make.run(path)
    assert make.printed(done) == "OUTPUT/01\ndone\n"
    found = make.pictures(done)
    assert list(found) == ["line"] and found["line"].startswith(b"\x89PNG")


def test_a_tagged_cell_without_a_picture_is_refused():
    with pytest.raises(ValueError, match="figure:none draws 0 pictures"):
        make.pictures(notebook("1 + 1", tag="figure:none"))


def test_every_picture_of_the_notebooks_is_in_place():
    for path in make.NOTEBOOKS.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            for tag in cell.metadata.get("tags", []):
                assert (make.HERE / f"{tag[len(make.TAG) :]}.png").is_file(), tag
