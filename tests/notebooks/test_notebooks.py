"""The notebooks run to their end, on a CPU, and are stored with what they show, which is small and clean.

By default with a handful of steps (NOTEBOOK_TRIMMED), which runs every cell; `-m full` runs them as a
reader does.
"""

import json
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


def faults(notebook):
    """What is wrong with the outputs that a notebook is stored with."""
    nbformat.validate(notebook)
    found = []
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        found.append("not run from top to bottom")
    outputs = [output for cell in cells for output in cell.outputs]
    if len(json.dumps(outputs)) > 300_000:
        found.append("outputs of more than 300 kB")
    if not pictures(notebook):
        found.append("no picture")
    for output in outputs:
        text = output.get("text") or str({k: v for k, v in output.get("data", {}).items() if "png" not in k})
        if output.output_type == "error" or output.get("name") == "stderr":
            found.append(f"{output.output_type} {output.get('name', '')}")
        found += re.findall(
            r"[\r\x1b\u2501]|(?<![\w.])/(?:home|root|tmp|usr|work|Users|private|mnt)/\S*", text
        )
    return found


@every_notebook
def test_what_a_notebook_shows_is_small_and_clean(path):
    notebook = nbformat.read(path, as_version=4)
    assert not faults(notebook), "run docs/figures/make.py for it"


def test_what_is_wrong_with_outputs_is_seen():
    def shown(*outputs, count=1):
        cell = nbformat.v4.new_code_cell("1", execution_count=count, outputs=list(outputs))
        return faults(nbformat.v4.new_notebook(cells=[cell]))

    new = nbformat.v4.new_output
    drawn = new("display_data", {"image/png": "iVBOR/tmp/x"})
    assert shown(drawn, new("stream", text="epoch 1/2: ./train.log, output/notebooks/01\n")) == []
    assert shown(drawn, count=None) == ["not run from top to bottom"]
    assert shown() == ["no picture"]
    assert shown(new("display_data", {"image/png": 300_000 * "A"})) == ["outputs of more than 300 kB"]
    assert shown(drawn, new("stream", name="stderr", text="old")) == ["stream stderr"]
    assert shown(drawn, new("error", ename="a", evalue="b", traceback=[])) == ["error "]
    assert shown(drawn, new("stream", text="in /usr/lib/a.py, 5%\r\x1b[1m")) == [
        "/usr/lib/a.py,",
        "\r",
        "\x1b",
    ]
    assert shown(drawn, new("display_data", {"text/html": "<a href='/tmp/a.html'>"})) == ["/tmp/a.html'>\"}"]


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
