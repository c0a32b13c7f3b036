"""An exported model as an entry of a model server's repository: Triton Inference Server, OpenVINO Model Server.

Both read a folder for each model with numbered versions in it, and serve the newest:

    REPOSITORY/NAME/1/model.onnx    the program; card.json beside it says how its images are made
    REPOSITORY/NAME/config.pbtxt    Triton's: inputs, outputs, batches (its ModelConfig message, as text)
    REPOSITORY/NAME/labels.txt      Triton's: class names
    REPOSITORY/config.json          OpenVINO Model Server's: the list of models
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from ..utils.errors import FileAccessError, UserError
from ..utils.paths import expand
from ..weights.atomic import atomic_write, work_folder
from .card import CARD, read_card

MAX_BATCH = 64  # of a program for any batch size, in Triton: requests that wait are joined up to it


def add_to_triton(export: str | Path, repository: str | Path, name: str | None = None) -> Path:
    """Add an export to the model repository of a Triton Inference Server.

    Args:
        export: a folder of `export_model` with an ONNX file.
        repository: the folder that `tritonserver --model-repository` is given; it is made.
        name: under which the model is served; None: the model's own.

    Returns:
        The folder of the new version.

    Raises:
        UserError: there is no ONNX file, the name cannot be served, or earlier versions of this name have another
            input, other outputs or other classes.
        FileAccessError: the repository cannot be written.
    """
    card, name = _servable(export, name)
    folder = Path(expand(repository)) / name
    files = {"config.pbtxt": triton_config(Path(expand(export)), card, name)}
    if card["classes"]:
        files["labels.txt"] = "".join(f"{' '.join(label.split()) or '-'}\n" for label in card["classes"])
    for file, text in files.items():
        if (folder / file).is_file() and (folder / file).read_text(encoding="utf-8") != text:
            raise UserError(
                f"{folder / file} is of another model than {export}, and all versions of a name share it: give another "
                "name (--name), or remove that folder"
            )
    version = _add_version(export, card, folder)
    for file, text in files.items():
        _write(folder / file, text)
    return version


def add_to_ovms(export: str | Path, repository: str | Path, name: str | None = None) -> Path:
    """Add an export to a folder for OpenVINO Model Server; arguments, result and errors as for `add_to_triton`.

    The server is started with `--config_path REPOSITORY/config.json`. Other models in that file stay.
    """
    card, name = _servable(export, name)
    listing = Path(expand(repository)) / "config.json"
    known: dict[str, Any] = {"model_config_list": []}
    if listing.is_file():
        try:
            known = json.loads(listing.read_text(encoding="utf-8"))
            names = [entry["config"]["name"] for entry in known["model_config_list"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{listing} is no configuration of OpenVINO Model Server: remove it") from None
    else:
        names = []
    version = _add_version(export, card, listing.parent / name)
    if name not in names:  # a path that is not absolute is taken from the folder of this file
        known["model_config_list"].append({"config": {"name": name, "base_path": name}})
        _write(listing, json.dumps(known, indent=2) + "\n")
    return version


def triton_config(export: Path, card: dict[str, Any], name: str) -> str:
    """Return the text of config.pbtxt; the names of input and output are those of the ONNX file."""
    import onnx

    graph = onnx.load(str(export / card["files"]["onnx"]), load_external_data=False).graph
    any_batch = card["input"]["shape"][0] is None
    shapes = [part["shape"][1:] if any_batch else part["shape"] for part in (card["input"], card["output"])]
    label = ', label_filename: "labels.txt"' if card["classes"] else ""
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {MAX_BATCH if any_batch else 0}",
        f'input [ {{ name: "{graph.input[0].name}", data_type: TYPE_FP32, dims: {shapes[0]} }} ]',
        f'output [ {{ name: "{graph.output[0].name}", data_type: TYPE_FP32, dims: {shapes[1]}{label} }} ]',
    ]
    if any_batch:
        lines.append("dynamic_batching { }")
    return "\n".join(lines) + "\n"


def _servable(export: str | Path, name: str | None) -> tuple[dict[str, Any], str]:
    card = read_card(export)
    if not card["files"].get("onnx"):
        raise UserError(
            f"{export} has no ONNX file, which model servers run: export it with --onnx (and --dynamic-batch, so that "
            "they can join requests)"
        )
    name = name or str(card["model"])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise UserError(f"a model is served under a name of letters, digits and _ . - alone, not {name!r}")
    return card, name


def _add_version(export: str | Path, card: dict[str, Any], folder: Path) -> Path:
    """Copy program and card to FOLDER/N, N one above the newest: there whole, or not at all."""
    with work_folder(folder) as work:
        try:
            shutil.copyfile(Path(expand(export)) / card["files"]["onnx"], work / "model.onnx")
            shutil.copyfile(Path(expand(export)) / CARD, work / CARD)
            work.chmod(0o755)  # a server may run as another user
            versions = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
            version = folder / str(max(versions, default=0) + 1)
            os.rename(work, version)
            return version
        except OSError as error:
            raise FileAccessError(f"{folder} cannot be written: {error.strerror}") from None


def _write(path: Path, text: str) -> None:
    try:
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileAccessError(f"{path} cannot be written: {error.strerror}") from None
