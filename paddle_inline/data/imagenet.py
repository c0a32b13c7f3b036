"""ImageNet as a folder of classes, as two zip files with map lists, as image lists or as tar files (`shards`).

docs/data.md shows every layout.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ..utils.errors import MissingFileError, UserError, joined, short
from .classes import read_class_names
from .folders import LeftOut, index_file, keep_index, listing, subfolders, walk
from .lists import Annotated, Listed, Zipped
from .misplaced import not_a_folder, what_instead
from .pictures import SUFFIXES, PictureSource
from .shards import Shards, find_shards

SETTLED = (
    2_000_000_000  # ns; a folder that changed so shortly before it was listed may have changed after it too
)


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
            images = f": it has {len(top.files)} images ({short(top.files[0], 40)} ...)" if top.files else ""
            raise MissingFileError(f"{root} holds no class folders{images}; expected {root}/CLASS/image.JPEG")
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
            self.notes.append(f"{root}: left out: {_loose(top.files)}")
        if stamp["shared"]:
            self.notes.append(
                f"{root}: links make one folder a part of two classes, so that its images have both labels: "
                f"{joined(stamp['shared'], 6)}"
            )
        self.notes += self._about_classes([name for name, _ in stamp["folders"]])

    def _is_current(self, stamp: Any) -> bool:
        return (
            stamp["classes"] == list(self.classes)
            and stamp["pictures"] == list(SUFFIXES)
            and all(
                changed < stamp["made"] - SETTLED
                and os.stat(os.path.join(self.root, name)).st_mtime_ns == changed
                for name, changed in stamp["folders"]
            )
        )

    def _list(self) -> tuple[Any, list[tuple]]:
        made = time.time_ns()
        items, folders, left_out = [], [], LeftOut()
        owners: dict[tuple[int, int], str] = {}  # of folders that are walked
        shared: dict[str, None] = {}
        for label, name in enumerate(self.classes):
            found = walk(os.path.join(self.root, name))
            items += [(f"{name}/{file}", label) for file in found.files]
            folders += [(f"{name}/{below}".rstrip("/"), changed) for below, changed in found.folders]
            left_out.add(found.left_out, f"{name}/")
            for identity in found.identities:
                owner = owners.setdefault(identity, name)
                if owner != name:
                    shared[f"{short(owner, 40)} and {short(name, 40)}"] = None
        stamp = {"classes": list(self.classes), "pictures": list(SUFFIXES), "folders": folders, "made": made}
        return {**stamp, "shared": list(shared), **vars(left_out)}, items

    def _about_classes(self, folders: list[str]) -> list[str]:
        """Return what is to be said about classes without images, and about one class in all."""
        used = {label for _, label in self.items}
        empty = [name for label, name in enumerate(self.classes) if label not in used]
        notes = [f"{self.root}: no image in the class folders {joined(empty, 12)}"] if empty else []
        if len(self.classes) == 1:
            (name,) = self.classes
            below = [folder.split("/")[1] for folder in folders if folder.count("/") == 1]
            hint = f"; it has folders itself ({joined(below, 6)})" if below else ""
            notes.append(
                f"{self.root} holds one class folder, {name!r}{hint}: a model that always answers so is right. Class "
                f"folders are expected at {self.root}/CLASS"
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
        raise MissingFileError(not_a_folder(root))
    if zip_mode:
        return Zipped(root / f"{part}.zip", root / f"{part}_map.txt")
    found = layouts(root, part)
    others = layouts(root, other) if len(found) > 1 else found
    if not found:
        raise MissingFileError(
            f"{path} holds neither {part}/CLASS/ folders, nor {part}/*.tar, nor {part}_list.txt"
            + what_instead(root, part)
        )
    chosen = next((layout for layout in found if layout in others), found[0])
    source = _open(root, part, chosen)
    if len(found) > 1:
        source.notes = [
            f"{path} has {' and '.join(found)} for {part}: the {chosen} {'is' if chosen == 'list' else 'are'} read",
            *source.notes,
        ]
    if train and chosen == "folders" and not _agrees(root / "classes.txt", source.classes):
        said = f"{root / 'classes.txt'} is not used: classes are called as their folders are"
        source.notes = [*source.notes, said]
    if not train:
        source.notes = [
            *source.notes,
            *_shared_with_train(root, source.classes if chosen == "folders" else ()),
        ]
    return source


def _agrees(path: Path, classes: tuple[str, ...]) -> bool:
    """Return whether a file of class names, if there is one, says the same."""
    try:
        return not path.is_file() or read_class_names(path) == classes
    except UserError:  # it is not needed
        return False


def _shared_with_train(root: Path, classes: tuple[str, ...]) -> list[str]:
    """Return what is to be said about links that make folders of `val` those of `train`."""
    if _is_one(root / "train", root / "val"):
        return [f"{root}: train and val are one folder: the accuracy is that of images learnt"]
    shared = [name for name in classes if _is_one(root / "train" / name, root / "val" / name)]
    what = (
        f"train and val share the class folders {joined(shared, 6)}: their accuracy is that of images learnt"
    )
    return [f"{root}: {what}"] if shared else []


def _is_one(folder: Path, other: Path) -> bool:
    return folder.is_dir() and other.is_dir() and os.path.samefile(folder, other)


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
        files = find_shards(root, part)
        source = Shards(files, root / "classes.txt", index_file(root / f"{part}.tar"))
        if files[0].parent == root / part:
            source.notes = [*source.notes, *_beside(root / part)]
        return source
    table = root / part / f"{part}_annotations.txt"
    if table.is_file() and subfolders(root / part) == ["images"]:
        return Annotated(root / part, table)
    return Folder(root / part, index_file(root / part))


def _beside(folder: Path) -> list[str]:
    """Return what is to be said about that which a folder of tar files holds besides them."""
    content = listing(folder)
    content.left_out.suffixes.pop(".tar", 0)
    notes = content.left_out.notes(folder)
    names = [*content.files, *(f"{entry.name}/" for entry in content.folders)]
    return [*notes, *([f"{folder}: left out beside the tar files: {joined(names, 6)}"] if names else [])]


def _loose(files: list[str]) -> str:
    return f"{len(files)} images beside the class folders ({short(files[0], 40)} ...)" if files else ""
