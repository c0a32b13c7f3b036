"""Data sets in COCO's layout, looked at before a model is built: folders, annotations, images, classes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..utils.errors import MissingFileError, UserError, counted, short
from ..utils.paths import expand
from .imports import ppdet

PICTURES = (".jpg", ".jpeg", ".png", ".bmp")  # what the toolkit reads


def check_coco(config: Mapping[str, Any], name: str) -> None:
    """Refuse a data set that is not there, or not the one that the settings are for.

    Args:
        config: the settings.
        name: TrainDataset or EvalDataset.

    Raises:
        MissingFileError: a folder, the annotations or an image is not there.
        UserError: the annotations are not COCO's, or have another number of classes.
    """
    section = config[name]
    if not isinstance(section, Mapping):
        section = vars(section)  # of a file with the toolkit's tags
    folder = section.get("dataset_dir") or ""
    inside = " and ".join(str(section[key]) for key in ("image_dir", "anno_path") if section.get(key))
    way_out = f"give the data set's folder, -o {name}.dataset_dir=DIR, which has {inside} in it"
    if folder and not os.path.isdir(folder):
        raise MissingFileError(f"{name}: there is no folder {folder}; {way_out}")
    images = os.path.join(folder, section.get("image_dir") or "")
    annotations = os.path.join(folder, section.get("anno_path") or "")
    if not os.path.isdir(images):
        raise MissingFileError(
            f"{name}: there is no folder of images {images}; {way_out}, or {name}.image_dir=DIR"
        )
    if not os.path.isfile(annotations):
        raise MissingFileError(
            f"{name}: there are no annotations {annotations}; {way_out}, or {name}.anno_path=FILE"
        )
    if section.get("name", "COCODataSet") == "COCODataSet":
        tree = read_annotations(annotations)
        names = categories(annotations, tree)
        if len(names) != config["num_classes"]:
            raise UserError(
                f"{annotations} has {counted(len(names), 'class')} ({short(', '.join(names.values()))}), the settings "
                f"{config['num_classes']}: give -o num_classes={len(names)}"
            )
        missing = [
            each["file_name"] for each in tree["images"] if not os.path.exists(image_path(images, each))
        ]
        if missing:
            raise MissingFileError(
                f"{name}: {images} lacks {len(missing)} of {counted(len(tree['images']), 'image')} of {annotations}, "
                f"the first is {short(str(missing[0]))}; complete the folder, or the annotations"
            )


def image_path(folder: str, image: Mapping[str, Any]) -> str:
    """Return the path of an image of the annotations."""
    return os.path.join(folder, str(image["file_name"]))


def read_annotations(path: str) -> dict[str, Any]:
    """Return the contents of a COCO file of annotations.

    Raises:
        UserError: it is no such file.
    """
    try:
        with open(path, encoding="utf-8") as file:
            tree = json.load(file)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not read as JSON: {error}; give COCO's instances_*.json") from None
    lacking = [key for key in ("images", "annotations", "categories") if key not in tree]
    if not isinstance(tree, dict) or lacking:
        raise UserError(
            f"{path}: has no {', '.join(lacking)}, as annotations of COCO have; give instances_*.json"
        )
    return tree


def categories(path: str, tree: Mapping[str, Any] | None = None) -> dict[int, str]:
    """Return {id: name} of a data set's classes, in the order in which a detector counts them.

    Args:
        path: COCO's annotations, or a text of one name a line.
        tree: the contents of the annotations, if they have been read.

    Raises:
        UserError: a file that is neither.
    """
    if path.endswith(".txt"):
        with open(path, encoding="utf-8") as file:
            names = [line.strip() for line in file if line.strip()]
        return dict(enumerate(names[1:] if names[:1] == ["background"] else names))
    tree = read_annotations(path) if tree is None else tree
    return {each["id"]: each["name"] for each in tree["categories"]}


def class_names(config: Mapping[str, Any]) -> dict[int, str]:
    """Return {id: name} of the classes that a detector of these settings tells apart.

    They are those of TestDataset.anno_path; without the file, COCO's for 80 classes.

    Raises:
        UserError: another number of classes than the settings have.
        MissingFileError: no file, and no 80 classes.
    """
    section = config["TestDataset"]
    section = section if isinstance(section, Mapping) else vars(section)
    path = os.path.join(section.get("dataset_dir") or "", section.get("anno_path") or "")
    number = config["num_classes"]
    if os.path.isfile(path):
        names = categories(path)
        if len(names) != number:
            raise UserError(
                f"{path} has {counted(len(names), 'class')}, the settings {number}: give -o TestDataset.anno_path=FILE"
            )
        return names
    if number == 80:
        return dict(ppdet("data.source.category").get_categories("COCO")[1])
    raise MissingFileError(
        f"the names of {counted(number, 'class')} are wanted, and there is no {path}; give -o "
        "TestDataset.anno_path=FILE, annotations or a text of one name a line"
    )


def pictures(paths: Sequence[str]) -> list[str]:
    """Return the picture files that paths name, folders searched, in the order of their names.

    Raises:
        MissingFileError: a path is not there.
        UserError: a file of another kind, or a folder without pictures.
    """
    found: list[str] = []
    for path in map(expand, paths):
        if os.path.isdir(path):
            inside = [
                os.path.join(folder, name)
                for folder, _, names in os.walk(path, followlinks=True)
                for name in names
                if name.lower().endswith(PICTURES) and not name.startswith(".")
            ]
            if not inside:
                raise UserError(f"--images {path}: no picture in it ({', '.join(PICTURES)})")
            found += sorted(inside)
        elif not os.path.exists(path):
            raise MissingFileError(f"--images: there is no {path}; give picture files or folders of them")
        elif not path.lower().endswith(PICTURES):
            raise UserError(f"--images {path}: not one of {', '.join(PICTURES)}; convert it first")
        else:
            found.append(path)
    return list(dict.fromkeys(found))
