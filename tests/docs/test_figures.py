"""The script that runs the notebooks keeps what they draw and say, and no path of the machine."""

import base64
import importlib.util
import io
from pathlib import Path

import pytest
from PIL import Image

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
    monkeypatch.setattr(make, "ROOT", tmp_path)
    say = "import os\nprint(os.environ['NOTEBOOK_OUTPUT'] + '/01')\n!pwd; echo two"
    draw = "import matplotlib.pyplot as plt\nplt.plot([0, 1])\nplt.show()"
    path = tmp_path / "one.ipynb"
    nbformat.write(notebook(say, draw, tag="figure:line"), path)
    done = make.run(path)
    assert make.printed(done) == "output/notebooks/01\n.\ntwo\n"
    assert len(done.cells[0].outputs) == 1 and list(done.cells[0].metadata) == [] == list(done.metadata)
    found = make.pictures(done)
    assert list(found) == ["line"] and found["line"].startswith(b"\x89PNG")


def test_what_a_cell_says_in_red_is_refused(tmp_path):
    path = tmp_path / "one.ipynb"
    nbformat.write(notebook("import warnings\nwarnings.warn('old')", tag="figure:none"), path)
    with pytest.raises(ValueError, match=r"a cell warns: .*old"):
        make.run(path)


def test_pictures_are_made_small():
    """All that a drawing has of colours is kept, if there are not many."""
    image = Image.linear_gradient("L").convert("RGBA")
    image.paste((192, 57, 43), (0, 0, 256, 1))  # a rare colour, in the place of black
    with io.BytesIO() as file:
        image.save(file, "PNG")
        png = make.small(file.getvalue())
    again = Image.open(io.BytesIO(png))
    assert again.mode == "P" and again.convert("RGB").tobytes() == image.convert("RGB").tobytes()
    assert base64.b64encode(png).decode().startswith("iVBOR")


def test_a_tagged_cell_without_a_picture_is_refused():
    with pytest.raises(ValueError, match="figure:none draws 0 pictures"):
        make.pictures(notebook("1 + 1", tag="figure:none"))


def test_every_picture_of_the_notebooks_is_in_place():
    for path in make.NOTEBOOKS.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            for tag in cell.metadata.get("tags", []):
                assert (make.HERE / f"{tag[len(make.TAG) :]}.png").is_file(), tag
