"""Hints for a path that holds no data set of the expected form: what it holds instead, and the way out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..utils.errors import joined, short
from .folders import is_system_name, listing, scan
from .pictures import first_bytes, is_picture
from .signatures import what_is

SIMILAR = {  # names that other programs have for the parts
    "train": ("training", "train_set", "trainset", "ilsvrc2012_img_train"),
    "val": ("valid", "validation", "val_set", "test", "testing", "eval", "dev", "ilsvrc2012_img_val"),
}
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".gz", ".zip", ".7z", ".rar")


def not_a_folder(path: Path) -> str:
    """Return the message for a data set's path that is no folder."""
    if not os.path.lexists(path):
        return f"no data set folder {path}: there is no such path; give the folder with train/ and val/"
    if not path.is_file():
        return f"{path} is no data set folder, or a link that leads nowhere; give the folder with train/ and val/"
    kind = what_is(first_bytes(path))
    if path.suffix == ".zip":
        way = "unpack it, or give the folder with train.zip, train_map.txt, val.zip, val_map.txt and --zip"
    elif path.name.endswith((".tar", *_PACKED)):
        way = "unpack it; tar files of images and .cls labels are read from the folder that they lie in"
    else:
        way = "give the folder with train/ and val/"
    return f"{path} is a file{f' ({kind})' if kind else ''}, no data set folder: {way}"


def what_instead(root: Path, part: str) -> str:
    """Return what a data set's folder holds that has no `part` of a form that is read, as the end of a message."""
    if (root / part).is_dir():
        return f"; {_in_part(root / part)}"
    if os.path.lexists(root / part):
        return f"; {root / part} is no folder, or a link that leads nowhere"
    entries = [entry for entry in scan(root) if not is_system_name(entry.name)]
    folders = [entry.name for entry in entries if os.path.isdir(entry.path)]
    files = [entry.name for entry in entries if not os.path.isdir(entry.path)]
    if f"{part}.zip" in files:
        return f"; it holds {part}.zip: give --zip (data.zip_mode=true)"
    if any(name.startswith("cifar-10") for name in (*folders, *files)):
        return "; it holds CIFAR: set data.dataset to cifar10 or cifar100"
    near = [name for name in folders if name.lower() in (part, *SIMILAR[part])]
    if near:
        return f"; is it {', '.join(near)}? Rename it to {part}"
    lists = [
        name
        for name in files
        if name.lower().startswith(part) and name.lower().endswith((".txt", ".csv", ".lst"))
    ]
    if lists:
        return f"; is the list {', '.join(lists)}? Rename it to {part}_list.txt"
    nested = [name for name in folders if (root / name / part).is_dir()]
    if nested:
        return f"; {root / nested[0]} has one: give that folder"
    if root.name in ("train", "val") and (root.parent / part).is_dir():
        return f"; {root} is a part itself: give {root.parent}"
    tars = [name for name in files if name.endswith((".tar", *_PACKED))]
    if tars:
        return (
            f"; it holds {joined(tars, 4)}: tar files of images with .cls labels, not compressed, are "
            f"called {part}*.tar or stand in {part}/; other archives are to be unpacked"
        )
    if folders and any(listing(root / name).files for name in folders[:20]):
        return (
            f"; it holds {joined(folders, 6)}: if these are the classes, move them to {part}/, or let a run share "
            "their images (--dataset folder --val-split 0.1)"
        )
    return f"; it holds {joined([*folders, *files], 6)}" if entries else "; it is empty"


def _in_part(folder: Path) -> str:
    """Return what a folder for class folders holds without any."""
    entries = scan(folder)
    images = [entry.name for entry in entries if is_picture(entry.name) and not is_system_name(entry.name)]
    if images:
        return (
            f"{folder} has {len(images)} images, in no class folder: sort them into {folder}/CLASS/, or name their "
            f"classes in {folder.name}_list.txt"
        )
    packed = [entry.name for entry in entries if entry.name.lower().endswith(_PACKED)]
    if packed:
        return f"{folder} holds {joined(packed, 4)}: only tar files that are not compressed are read: unpack them"
    if entries:
        return f"{folder} holds {short(joined([entry.name for entry in entries], 4), 200)}"
    return f"{folder} is empty"


def no_cifar(path: Path, folders: Mapping[str, str]) -> str:
    """Return the message's end on what a path holds that has no CIFAR as Python's archive has it.

    Args:
        path: of a folder, or what is not there.
        folders: {data set: name of the folder that its archive unpacks to}.
    """
    if not path.is_dir():
        return "there is no such path" if not os.path.lexists(path) else "it is no folder and no file"
    names = [entry.name for entry in scan(path) if not is_system_name(entry.name)]
    for dataset, folder in folders.items():
        stem = folder.split("-batches")[0].split("-python")[0]
        if folder in names or f"{stem}-python.tar.gz" in names:
            return f"it holds {dataset}: set data.dataset to that"
        for name in names:
            if (path / name / folder).is_dir():
                return f"{path / name} has one: give that folder"
    other = [name for name in names if name.lower().startswith("cifar") or name.endswith((".bin", ".mat"))]
    if any(word in name.lower() for name in other for word in ("bin", "mat")):
        return (
            f"it holds {joined(other, 4)}: the binary and MATLAB versions are not read, the Python version is"
        )
    if other:
        return f"it holds {joined(other, 4)}: give the archive itself, or call it as it was distributed"
    return f"it holds {joined(names, 6)}" if names else "it is empty"
