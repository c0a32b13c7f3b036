"""Draw the documentation's pictures: run the notebooks and keep what their tagged cells draw.

    python docs/figures/make.py [NOTEBOOK ...]

A cell tagged `figure:NAME` gives docs/figures/NAME.png. Without names, all notebooks with such cells are run.
What they print goes to docs/figures/NOTEBOOK.txt, the record of the run that the pictures are from.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import os
import platform
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
NOTEBOOKS = HERE.parents[1] / "notebooks"
TAG = "figure:"
# progress bars, and Paddle's advice
NOISE = re.compile("━|warnings.warn|UserWarning|OMP_NUM_THREADS|PLEASE USE")


def run(path: Path) -> nbformat.NotebookNode:
    """Execute a notebook in its folder; its files go to a temporary one, which its text calls OUTPUT."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "NOTEBOOK_OUTPUT": folder}
        resources = {"metadata": {"path": str(path.parent)}}
        NotebookClient(notebook, timeout=3600, resources=resources).execute(env=env)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if output.output_type == "stream":
            output.text = output.text.replace(folder, "OUTPUT")
    return notebook


def pictures(notebook: nbformat.NotebookNode) -> dict[str, bytes]:
    """Return {name: PNG} of the cells tagged `figure:NAME`; ValueError for one that draws nothing, or twice."""
    found = {}
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            if tag.startswith(TAG):
                drawn = [
                    output.data["image/png"]
                    for output in cell.outputs
                    if "image/png" in output.get("data", {})
                ]
                if len(drawn) != 1:
                    raise ValueError(f"the cell of {tag} draws {len(drawn)} pictures, not one")
                found[tag[len(TAG) :]] = base64.b64decode(drawn[0])
    return found


def printed(notebook: nbformat.NotebookNode) -> str:
    """All that the notebook's cells print, as a terminal shows it: without colours and finished bars."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(out.text for out in outputs if out.output_type == "stream" and out.name == "stdout")
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text).splitlines(keepends=True)
    kept = "".join(line for line in lines if not NOISE.search(line))
    return re.sub(r"\n{3,}", "\n\n", kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", help="names without .ipynb")
    names = parser.parse_args().notebooks or [
        path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb")) if TAG in path.read_text(encoding="utf-8")
    ]
    for name in names:
        notebook = run(NOTEBOOKS / f"{name}.ipynb")
        for picture, png in pictures(notebook).items():
            (HERE / f"{picture}.png").write_bytes(png)
            print(f"docs/figures/{picture}.png")
        head = (
            f"{name}, {datetime.date.today()}, Python {platform.python_version()}, {os.cpu_count()} cores\n\n"
        )
        (HERE / f"{name}.txt").write_text(head + printed(notebook), encoding="utf-8")


if __name__ == "__main__":
    main()
