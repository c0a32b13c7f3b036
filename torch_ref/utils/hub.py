"""Folders in the layout of the Hugging Face hub, without a framework; both packages have this text.

config.json         which model it is, in timm's terms, and what this package knows beyond them
model.safetensors   its weights, by PyTorch's names and in its layout, so that timm reads them, too
README.md           the model card
"""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import FileAccessError, MissingFileError, MissingPackageError, UserError, short
from .hub_config import CARD, CONFIG, WEIGHTS, Described, card_of, check_classes, config_of, sha256_of

HUB = "hf-hub:"  # before the id of a repository, as in timm
LOCAL = "local-dir:"
PAGES = {"inline": "https://github.com/LeapLabTHU/InLine", "soft": "https://github.com/fudan-zvg/SOFT"}
_ID = re.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?", re.ASCII)


def no_download(name: str | None) -> UserError:
    """Return what `pretrained=True` is answered with: where weights come from."""
    page = PAGES["soft" if str(name).startswith("soft") else "inline"]
    if str(name).endswith("_digits"):
        file = "soft_digits" if str(name).startswith("soft") else "quickstart"
        way = f"it is no published size: train it (python -m paddle_inline train --cfg {file})"
    else:
        way = (
            f"fetch its authors' checkpoint with a browser from {page}, convert it (python -m convert to-paddle CKPT "
            "OUT.pdparams; for torch_ref to-torch CKPT OUT.pth) and pass weights=OUT"
        )
    return UserError(
        f"{name or 'the model'} has no weights to download; pass weights=FILE instead of pretrained: {way}. A folder "
        "or repository in the layout of the Hugging Face hub: from_pretrained(FOLDER or OWNER/NAME)"
    )


def located(source: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return the folder that a path or the id of a repository of the Hugging Face hub names, downloaded if need be.

    Args:
        source: a folder, or OWNER/NAME where there is none, with @REVISION behind it if need be; `hf-hub:` or
            `local-dir:` before it leaves no doubt.
        revision: branch, tag or commit of a repository.

    Raises:
        MissingFileError: there is no such folder, and it is no id.
        MissingPackageError: huggingface_hub is not installed.
        UserError: it is a file, or could not be downloaded.
    """
    text = os.fspath(source)
    folder = saved_in(text)
    if not text.startswith(HUB):
        if folder.is_dir():
            return folder
        if folder.is_file():
            raise UserError(
                f"{folder} is a file: from_pretrained takes its folder, create_model(weights=FILE) a file"
            )
    match = _ID.fullmatch(text[len(HUB) :] if text.startswith(HUB) else text)
    if match is None or text.startswith(LOCAL):
        raise MissingFileError(
            f"no folder {short(str(folder), 400)}; give a folder with {CONFIG} and {WEIGHTS}, or OWNER/NAME on the hub"
        )
    return Path(_download(match["id"], revision or match["revision"]))


def is_saved(folder: str | os.PathLike[str]) -> bool:
    """Return whether a path is a folder of the hub's layout."""
    return all((Path(folder) / name).is_file() for name in (CONFIG, WEIGHTS))


def _hub(why: str) -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise MissingPackageError(
            f"{why} takes huggingface_hub, which is not installed: pip install 'paddle-inline[hub]'"
        ) from None


def _download(name: str, revision: str | None) -> str:
    hub = _hub(f"{name} is no folder here; to download it from the Hugging Face hub")
    try:
        return hub.snapshot_download(name, revision=revision, allow_patterns=[CONFIG, WEIGHTS])
    except Exception as error:  # a network and its libraries can fail in any way
        raise UserError(
            f"{name} is no folder here and was not downloaded from the Hugging Face hub ({_first_line(error)}); "
            "without a network copy the repository to a folder and give that"
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}{': ' + short(lines[0], 200) if lines else ''}"


def save_model(
    target: str | os.PathLike[str],
    model: Any,
    write_weights: Callable[[Path], object],
    description: Mapping[str, Any],
    *,
    license: str | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Write a folder of the hub's layout, or with `hf-hub:OWNER/NAME` a repository.

    A new folder appears whole or not at all. In one that is there, its two files are replaced when both are complete,
    a README.md stays as it is, and so does all else.

    Args:
        target: the folder, or `hf-hub:OWNER/NAME`, to which it is uploaded with the account of huggingface_hub's login.
        model: of either framework, what the weights are of; its parameters need no values.
        write_weights: writes model.safetensors to a path.
        description: of the weights: `model`, `overrides`, and `transform` and `classes` where they are known.
        license: of the weights, an identifier of the hub; None: not said.
        notes: lines for the card.

    Returns:
        The folder, or the repository's address.

    Raises:
        UserError, FileAccessError: it cannot be written or uploaded.
        MissingPackageError: huggingface_hub is not installed.
    """
    told = Described(
        description["model"],
        dict(description["overrides"]),
        description.get("transform"),
        description.get("classes"),
    )
    check_classes(told.classes, model.spec.num_classes)
    card = card_of(told, sum(math.prod(each.shape) for each in model.parameters()), license, notes)
    text = os.fspath(target)
    if not text.startswith(HUB):
        folder = saved_in(text)
        _save(folder, write_weights, lambda sha256: config_of(told, model, sha256), card)
        return str(folder)
    match = _ID.fullmatch(text[len(HUB) :])
    if match is None or match["revision"]:
        raise UserError(f"{short(text)} names no repository: {HUB}OWNER/NAME")
    hub = _hub("to upload to the Hugging Face hub")
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above) / "model"
        _save(folder, write_weights, lambda sha256: config_of(told, model, sha256), card)
        try:
            hub.create_repo(match["id"], exist_ok=True)
            hub.upload_folder(repo_id=match["id"], folder_path=str(folder))
        except Exception as error:  # a network and its libraries can fail in any way
            raise UserError(
                f"{match['id']} was not uploaded ({_first_line(error)}); log in (hf auth login), or save to a folder "
                "and upload that"
            ) from error
    return f"https://huggingface.co/{match['id']}"


def saved_in(text: str) -> Path:
    """Return the folder that a path names, with `local-dir:` before it or without."""
    return Path(os.path.expanduser(text[len(LOCAL) :] if text.startswith(LOCAL) else text))


def _save(
    folder: Path,
    write_weights: Callable[[Path], object],
    config: Callable[[str], dict[str, Any]],
    card: str,
) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder")
    partial = folder / f".{os.getpid()}.partial" if folder.exists() else _beside(folder)
    try:
        partial.mkdir(parents=True)
        write_weights(partial / WEIGHTS)
        text = json.dumps(config(sha256_of(partial / WEIGHTS)), indent=2, allow_nan=False)
        (partial / CONFIG).write_text(text + "\n", encoding="utf-8")
        (partial / CARD).write_text(card, encoding="utf-8")
        for file in partial.iterdir():
            with open(file, "r+b") as written:
                os.fsync(written.fileno())
        if not folder.exists():
            partial.rename(folder)
            return
        if (folder / CARD).exists():
            (partial / CARD).unlink()
        for file in sorted(
            partial.iterdir(), reverse=True
        ):  # config.json last: until then it disowns the weights
            os.replace(file, folder / file.name)
    except OSError as error:
        if error.errno is None:  # not the system's
            raise
        raise FileAccessError(f"{folder} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _beside(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.{os.getpid()}.partial"
