"""Run the notebooks: keep what they show in them, and the documentation's pictures.

    python docs/figures/make.py [NOTEBOOK ...]

A notebook is stored with what its cells have shown, as a host of repositories displays it: lines as they are printed
here, with paths from the repository on, pictures in 256 colours. A cell tagged `figure:NAME` gives
docs/figures/NAME.png as well; what notebooks with such cells print goes to docs/figures/NOTEBOOK.txt, the record of
the run that the pictures are from. Without names, all notebooks are run: twenty minutes on two cores.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import io
import os
import platform
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NOTEBOOKS = ROOT / "notebooks"
TAG = "figure:"
SHOWN = "output/notebooks"  # what the temporary folder is called: the one of a reader


def run(path: Path) -> nbformat.NotebookNode:
    """Execute a notebook in its folder, with its files in a temporary one, and return it as it is stored.

    Raises:
        CellExecutionError: a cell fails.
        ValueError: a cell writes to the error output: a warning that a reader would see in red.
    """
    notebook = nbformat.read(path, as_version=4)
    metadata = notebook.metadata.copy()
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "NOTEBOOK_OUTPUT": folder}
        env.pop("MPLBACKEND", None)  # the kernel's own draws into the notebook
        resources = {"metadata": {"path": str(path.parent)}}
        NotebookClient(notebook, timeout=3600, resources=resources).execute(env=env)
    notebook.metadata = metadata  # without the version of this Python
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":
            cell.outputs = tidy(
                cell.outputs, {os.path.realpath(folder): SHOWN, folder: SHOWN, str(ROOT): "."}
            )
    return notebook


def tidy(outputs: list[nbformat.NotebookNode], names: dict[str, str]) -> list[nbformat.NotebookNode]:
    """Return a cell's outputs with neighbouring texts joined, folders called by `names`, and small pictures."""
    kept: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                raise ValueError(f"a cell warns: {output.text}")
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
                continue
        elif "image/png" in output.get("data", {}):
            png = small(base64.b64decode(output.data["image/png"]))
            output.data["image/png"] = base64.b64encode(png).decode()
        kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            for folder, name in names.items():
                output.text = output.text.replace(folder, name)
            output.text = output.text.replace("\r\n", "\n")  # of a program that a cell starts
    return kept


def small(png: bytes) -> bytes:
    """Return a picture in 256 colours."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image = image.quantize(
        256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
    )  # which keeps rare colours
    with io.BytesIO() as file:
        image.save(file, "PNG", optimize=True)
        return file.getvalue()


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
    """Return all that the notebook's cells print."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", help="names without .ipynb")
    names = parser.parse_args().notebooks or [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    for name in names:
        path = NOTEBOOKS / f"{name}.ipynb"
        notebook = run(path)
        text = nbformat.writes(notebook, ensure_ascii=False).rstrip("\n") + "\n"
        path.write_text(text, encoding="utf-8")
        print(f"notebooks/{path.name}, {len(text.encode()) / 1000:.0f} kB")
        drawn = pictures(notebook)
        for picture, png in drawn.items():
            (HERE / f"{picture}.png").write_bytes(png)
            print(f"docs/figures/{picture}.png")
        if drawn:
            where = f"Python {platform.python_version()}, {os.cpu_count()} cores"
            text = f"{name}, {datetime.date.today()}, {where}\n\n{printed(notebook)}"
            (HERE / f"{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
