"""What training, evaluation and prediction would make of a data set, before a run is started on it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.errors import UserError, counted, joined, short, shortened

if TYPE_CHECKING:
    from ..data.pictures import PictureSource
    from ..data.sources import Source

SAMPLE = 200  # images that are read of each part, where not all are asked for
MOST_LINES = 10  # of broken images
WEIGHTS = (".pdparams", ".safetensors")


def report_data(path: str, *, every: bool = False) -> int:
    """Print what is found in a data set's folder or archive; 1 where a run would not start or meet a broken image.

    Args:
        path: as `--data-path` of training, a folder of images for `predict`, or a file of weights.
        every: read every image, not a sample.
    """
    weights = _weights(Path(path))
    if weights:
        return _report_weights(weights)
    dataset, zipped = guess(Path(path))
    if dataset == "images":
        return _report_images(path, every)
    print(f"{path}: data.dataset {dataset}{', --zip' if zipped else ''}")
    sources: dict[str, Any] = {}
    problems = 0
    for part in ("train", "val"):
        try:
            sources[part] = _open(dataset, path, part, zipped)
        except UserError as error:
            print(f"FAIL  {part}: {error}")
            problems += 1
            continue
        problems += _report_part(part, sources[part], every)
    if len(sources) == 2:
        problems += _report_match(sources["train"], sources["val"])
    if sources:
        print(f"evaluation, unless the settings say otherwise: {_default_transform()}")
    print("a run would start" if not problems else f"{problems} problems")
    return 1 if problems else 0


def _report_weights(path: str) -> int:
    from ..weights.load import open_weights

    arrays, description = open_weights(path)
    described = description or {}
    print(
        f"{path}: {counted(len(arrays), 'tensor')} of {described.get('model', 'a model that is not named')}"
    )
    for key in ("overrides", "transform", "classes"):
        print(f"  {key}: {short(described.get(key, 'not said'), 400)}")
    return 0


def _weights(path: Path) -> str:
    """Return the file of weights that a path is, or that a run's folder means; "" for what is none."""
    from ..weights.foreign import PADDLE, SAFETENSORS, TORCH, kind_of
    from ..weights.load import find_weights

    if path.is_dir():
        is_run = any((path / name).is_file() for name in ("best_model.pdparams", "model.pdparams"))
        return str(find_weights(path)) if is_run else ""
    if path.suffix in WEIGHTS or kind_of(path)[0] in (PADDLE, SAFETENSORS, TORCH):
        return str(path)
    return ""


def guess(path: Path) -> tuple[str, bool]:
    """Return (data.dataset, whether it is in zip files) of a path; `images` for what only `predict` takes."""
    from ..data.cifar import which_cifar
    from ..data.folders import is_system_name, subfolders, walk
    from ..data.misplaced import SIMILAR
    from ..data.pictures import is_picture

    cifar = which_cifar(path)
    if cifar:
        return cifar, False
    if not path.is_dir():
        return ("images" if path.is_file() and is_picture(path.name) else "imagenet"), False
    inside = {entry.name for entry in path.iterdir() if not is_system_name(entry.name)}
    if {"train.zip", "val.zip"} & inside:
        return "imagenet", "train" not in inside
    names = ("train", "val", *SIMILAR["train"], *SIMILAR["val"])
    is_set = any(entry.lower().startswith(names) for entry in inside) or any(
        (path / name / "train").is_dir() for name in subfolders(path)
    )
    return "images" if not is_set and walk(path).files else "imagenet", False


def _default_transform() -> str:
    from ..config.evaluation import evaluation_transform
    from ..config.schema import Config

    return ", ".join(f"{name} {value}" for name, value in evaluation_transform(Config()).items())


def _open(dataset: str, path: str, part: str, zipped: bool) -> Source:
    from ..data.sources import open_source

    return open_source(dataset, path, train=part == "train", zip_mode=zipped)


def _report_part(part: str, source: Source, every: bool) -> int:
    from ..data.pictures import PictureSource

    counts = Counter(int(label) for label in source.labels)
    names = [short(name, 30) for name in source.classes[:12]]
    more = ", ..." if len(source.classes) > 12 else ""
    kind = "" if source.named else " (numbers: there are no names)"
    print(
        f"{part}: {counted(len(source), 'image')}, {counted(len(source.classes), 'class')}{kind}: "
        f"{', '.join(names)}{more}"
    )
    print(f"  images a class: {min(counts.values())} to {max(counts.values())}")
    files = source if isinstance(source, PictureSource) else None
    if files:
        print(f"  {_suffixes(files.name(index) for index in range(len(files)))}")
    for note in source.notes:
        print(f"WARN  {note}")
    lacking = _lacking(files) if files else []
    for line in shortened([f"{name}: there is no such file" for name in lacking], MOST_LINES):
        print(f"FAIL  {short(line, 400)}")
    absent, count = set(lacking), len(source) if every else min(SAMPLE, len(source))
    sizes, broken = [], []
    for index in (i * len(source) // count for i in range(count)):
        try:
            sizes.append(source[index][0].size)
        except OSError as error:
            if source.name(index) not in absent:
                broken.append(f"{source.name(index)}: {error}")
    return _report_images_read(sizes, broken) + len(lacking)


def _suffixes(names: Iterable[str]) -> str:
    """Return how many of some files have which suffix."""
    counts = Counter(os.path.splitext(name)[1].lower() for name in names).most_common(12)
    return "of these " + ", ".join(
        f"{count} {short(suffix, 20) or 'without suffix'}" for suffix, count in counts
    )


def _lacking(source: PictureSource) -> list[str]:
    """Return the files that a list names and that are not there; a folder's have just been seen."""
    from ..data.lists import Listed

    if not isinstance(source, Listed):
        return []
    names = (source.name(index) for index in range(len(source)))
    return [name for name in names if not os.path.exists(name)]


def _report_images_read(sizes: list[tuple[int, int]], broken: list[str]) -> int:
    if sizes:
        widths, heights = zip(*sizes)
        print(
            f"  {len(sizes)} read: widths {min(widths)} to {max(widths)}, heights {min(heights)} to {max(heights)}, "
            f"{len(broken)} broken"
        )
    for line in shortened(broken, MOST_LINES):
        print(f"FAIL  {short(line, 400)}")
    return len(broken)


def _report_match(train: Source, val: Source) -> int:
    from ..data.classes import match_classes

    try:
        notes = match_classes(val, train.classes, named=train.named)[1]
    except UserError as error:
        print(f"FAIL  {error}")
        return 1
    from ..data.pictures import PictureSource

    if isinstance(train, PictureSource) and isinstance(val, PictureSource):
        learnt = {train.name(index) for index in range(len(train))}
        both = [name for name in map(val.name, range(len(val))) if name in learnt]
        notes += [f"train has {counted(len(both), 'image')} of val: {joined(both, 3)}"] if both else []
    for note in notes:
        print(f"WARN  {note}")
    return 0


def _report_images(path: str, every: bool) -> int:
    from ..data.folders import find_images
    from ..data.pictures import read_image

    notes: list[str] = []
    files = find_images([path], notes)
    print(
        f"{path}: {counted(len(files), 'image')} for `predict`; training wants train/CLASS/ and val/CLASS/ in it"
    )
    for note in notes:
        print(f"WARN  {note}")
    classes = Counter(
        os.path.relpath(file, path).split(os.sep)[0] for file in files if file.parent != Path(path)
    )
    if classes and os.path.isdir(path):
        _report_shared(path, classes)
    print(f"  {_suffixes(map(str, files))}")
    count = len(files) if every else min(SAMPLE, len(files))
    sizes, broken = [], []
    for index in (i * len(files) // count for i in range(count)):
        try:
            sizes.append(read_image(files[index]).size)
        except UserError as error:
            broken.append(str(error))
    return 1 if _report_images_read(sizes, broken) else 0


def _report_shared(path: str, classes: Counter[str]) -> None:
    """Print what a run would make of class folders that it has to share itself: what it says, or why it refuses."""
    from ..data.split import Split, open_folder

    counts = joined([f"{name} {number}" for name, number in classes.items()], 12)
    what = f"as {len(classes)} class folders ({counts}) with --dataset folder --val-split 0.1"
    try:
        parts = [open_folder(path, train=train, split=Split(0.1, 0)) for train in (True, False)]
    except UserError as error:
        print(f"WARN  {what}, a run would not start: {error}")
        return
    print(f"  {what}: {len(parts[0])} to learn from, {len(parts[1])} held out")
    for note in parts[0].notes:
        if "held out, class by class" not in note:  # the line above
            print(f"WARN  {note}")
