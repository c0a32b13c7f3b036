"""The notebooks run to their end, on a CPU, and are stored without outputs.

By default with a handful of steps (NOTEBOOK_TRIMMED), which runs every cell; `-m full` runs them as a
reader does.
"""

import os
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
for name in ("ipykernel", "matplotlib", "sklearn"):
    pytest.importorskip(name)

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NEEDS_TORCH = {"04_convert_and_verify"}
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def execute(notebook, output, trimmed=False):
    """Run all cells; what they write goes to the folder `output`. Raises CellExecutionError."""
    env = {**os.environ, "NOTEBOOK_OUTPUT": str(output), "CUDA_VISIBLE_DEVICES": ""}
    env.pop("MPLBACKEND", None)  # the kernel's own draws into the notebook
    if trimmed:
        env["NOTEBOOK_TRIMMED"] = "1"
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}})
    client.execute(env=env)


def skip_without_torch(path):
    if path.stem in NEEDS_TORCH:
        pytest.importorskip("torch")


def pictures(notebook):
    return [
        out
        for cell in notebook.cells
        for out in cell.get("outputs", [])
        if "image/png" in out.get("data", {})
    ]


@every_notebook
def test_notebook_runs(path, tmp_path):
    skip_without_torch(path)
    notebook = nbformat.read(path, as_version=4)
    before = sorted(FOLDER.rglob("*"))
    execute(notebook, tmp_path, trimmed=True)
    assert len(pictures(notebook)) >= 1
    left = [
        file for file in sorted(FOLDER.rglob("*")) if file not in before and "__pycache__" not in file.parts
    ]
    assert not left, "a notebook writes into its own folder"


@pytest.mark.full
@every_notebook
def test_notebook_runs_in_full(path, tmp_path):
    skip_without_torch(path)
    execute(nbformat.read(path, as_version=4), tmp_path)


@every_notebook
def test_notebook_is_stored_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None, "clear all outputs before saving"


@every_notebook
def test_notebook_speaks_both_languages(path):
    notebook = nbformat.read(path, as_version=4)
    headings = [
        line
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if re.match(r"#+ ", line)
    ]
    assert headings
    for heading in headings:
        assert re.search(r"[A-Za-z]{3}", heading) and re.search(r"[\u4e00-\u9fff]", heading), heading


def test_a_failing_cell_is_seen(tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("raise RuntimeError('as it should')")]
    )
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="as it should"):
        execute(notebook, tmp_path)
