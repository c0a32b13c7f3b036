"""ImageNet as a folder of classes, as two zip files with map lists, as image lists or as tar files (`shards`).

docs/data.md shows every layout.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from ..utils.errors import MissingFileError, short, shortened
from .folders import LeftOut, index_file, keep_index, listing, subfolders, walk
from .lists import Annotated, Listed, Zipped
from .pictures import SUFFIXES, PictureSource
from .shards import Shards, find_shards


class Folder(PictureSource):
    """`root`/CLASS/image, at any depth below CLASS, the classes numbered in alphabetical order.

    Args:
        root: such as IMAGENET/train.
        index: a file that keeps the list of images, so that a million files are listed once; None
            keeps none. It is made anew when a folder has changed.

    Raises:
        MissingFileError: if there is no such folder, or no image in it.
    """

    def __init__(self, root: str | Path, index: str | Path | None = None) -> None:
        self.root = str(root)
        top = listing(root)
        self.classes = tuple(entry.name for entry in top.folders)
        if not self.classes:
            raise MissingFileError(
                f"{root} holds no class folders; expected {root}/CLASS/image.JPEG{_loose(top.files)}"
            )
        stamp, self.items = keep_index(index, self._is_current, self._list)
        left_out = top.left_out
        left_out.add(
            LeftOut(Counter(stamp["suffixes"]), Counter(stamp["system"]), list(map(str, stamp["links"])))
        )
        if not self.items:
            raise MissingFileError(
                "; ".join(
                    [
                        f"{root} has {len(self.classes)} class folders and no image in them",
                        *left_out.notes(root),
                    ]
                )
            )
        self.notes = left_out.notes(root)
        if top.files:
            self.notes.append(f"{root}: left out:{_loose(top.files)}")
        self.notes += self._about_classes([name for name, _ in stamp["folders"]])

    def _is_current(self, stamp: Any) -> bool:
        return (
            stamp["classes"] == list(self.classes)
            and stamp["pictures"] == list(SUFFIXES)
            and all(
                os.stat(os.path.join(self.root, name)).st_mtime_ns == changed
                for name, changed in stamp["folders"]
            )
        )

    def _list(self) -> tuple[Any, list[tuple]]:
        items, folders, left_out = [], [], LeftOut()
        for label, name in enumerate(self.classes):
            found = walk(os.path.join(self.root, name))
            items += [(f"{name}/{file}", label) for file in found.files]
            folders += [(f"{name}/{below}".rstrip("/"), changed) for below, changed in found.folders]
            left_out.add(found.left_out, f"{name}/")
        stamp = {"classes": list(self.classes), "pictures": list(SUFFIXES), "folders": folders}
        return {**stamp, **vars(left_out)}, items

    def _about_classes(self, folders: list[str]) -> list[str]:
        """Return what is to be said about classes without images, and about one class in all."""
        used = {label for _, label in self.items}
        empty = [name for label, name in enumerate(self.classes) if label not in used]
        notes = (
            [f"{self.root}: no image in the class folders {', '.join(shortened(empty, 12))}"] if empty else []
        )
        if len(self.classes) == 1:
            (name,) = self.classes
            below = [folder.split("/")[1] for folder in folders if folder.count("/") == 1]
            hint = f"; it has folders itself ({', '.join(below[:6])})" if below else ""
            notes.append(
                f"{self.root} holds one class folder, {name!r}{hint}: every answer is right. Class folders are "
                f"expected at {self.root}/CLASS"
            )
        return notes

    def file(self, index: int) -> str:
        return os.path.join(self.root, self.items[index][0])

    name = file


def layouts(root: Path, part: str) -> list[str]:
    """Return which layouts of `train` or `val` a data set's folder holds, the preferred one first."""
    folders = subfolders(root / part) if (root / part).is_dir() else []
    packed = ["list"] if (root / f"{part}_list.txt").is_file() else []
    packed += ["tars"] if find_shards(root, part) else []
    if not packed:
        return ["folders"] if folders else []
    return (["folders"] if any(walk(root / part / name).files for name in folders) else []) + packed


def open_imagenet(path: str | Path, *, train: bool, zip_mode: bool = False) -> PictureSource:
    """Return ImageNet's training or validation images.

    Of several layouts side by side the first is read that both parts have: folders before lists before tar files.

    Args:
        path: holds `train/` and `val/`; or `train_list.txt` and `val_list.txt`; or tar files; or, with `zip_mode`,
            `train.zip`, `val.zip`, `train_map.txt` and `val_map.txt`.

    Raises:
        MissingFileError: naming what was looked for.
    """
    part, other = ("train", "val") if train else ("val", "train")
    if not path:
        raise MissingFileError("no data set given: set data.data_path (--data-path PATH)")
    root = Path(path)
    if not root.is_dir():
        raise MissingFileError(f"no data set folder {path}; give the one with train/ and val/")
    if zip_mode:
        return Zipped(root / f"{part}.zip", root / f"{part}_map.txt")
    found = layouts(root, part)
    others = layouts(root, other) if len(found) > 1 else found
    if not found:
        raise MissingFileError(
            f"{path} holds neither {part}/CLASS/ folders, nor {part}/*.tar, nor {part}_list.txt"
            + _what_instead(root, part)
        )
    chosen = next((layout for layout in found if layout in others), found[0])
    source = _open(root, part, chosen)
    if len(found) > 1:
        source.notes = [
            f"{path} has {' and '.join(found)} for {part}: the {chosen} {'is' if chosen == 'list' else 'are'} read",
            *source.notes,
        ]
    return source


def training_classes(path: str | Path) -> tuple[str, ...] | None:
    """Return the class folders of a data set's training part, without listing their images; None where it has none."""
    root = Path(path)
    if not path or not root.is_dir() or layouts(root, "train")[:1] != ["folders"]:
        return None
    return tuple(subfolders(root / "train"))


def _open(root: Path, part: str, layout: str) -> PictureSource:
    if layout == "list":
        return Listed(root, root / f"{part}_list.txt")
    if layout == "tars":
        return Shards(find_shards(root, part), root / "classes.txt", index_file(root / f"{part}.tar"))
    table = root / part / f"{part}_annotations.txt"
    if table.is_file() and subfolders(root / part) == ["images"]:
        return Annotated(root / part, table)
    return Folder(root / part, index_file(root / part))


def _loose(files: list[str]) -> str:
    return f" {len(files)} images beside the class folders ({short(files[0], 40)} ...)" if files else ""


def _what_instead(root: Path, part: str) -> str:
    """Return what a folder holds that has no data set of the expected form, as a hint."""
    if (root / part).is_dir():
        content = listing(root / part)
        if content.files:
            return f"; {root / part} has {len(content.files)} images, in no class folder"
        return f"; {root / part} is empty"
    content = listing(root)
    names = [entry.name for entry in content.folders]
    similar = {"train": ("training",), "val": ("valid", "validation", "test", "testing")}[part]
    near = [name for name in names if name.lower() in (part, *similar)]
    if near:
        return f"; is it {', '.join(near)}? Rename it to {part}"
    nested = [name for name in names if (root / name / part).is_dir()]
    if nested:
        return f"; {root / nested[0]} has one: give that folder"
    return f"; it holds {', '.join(shortened(names, 6))}" if names else ""
