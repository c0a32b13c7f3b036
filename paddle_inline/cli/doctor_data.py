"""What training, evaluation and prediction would make of a data set, before a run is started on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.errors import UserError, short, shortened

if TYPE_CHECKING:
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
    if Path(path).suffix in WEIGHTS:
        return _report_weights(path)
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
    print("a run would start" if not problems else f"{problems} problems")
    return 1 if problems else 0


def _report_weights(path: str) -> int:
    from ..weights.load import open_weights

    arrays, description = open_weights(path)
    described = description or {}
    print(f"{path}: {len(arrays)} tensors of {described.get('model', 'a model that is not named')}")
    for key in ("overrides", "transform", "classes"):
        print(f"  {key}: {short(described.get(key, 'not said'), 400)}")
    return 0


def guess(path: Path) -> tuple[str, bool]:
    """Return (data.dataset, whether it is in zip files) of a path; `images` for what only `predict` takes."""
    name = path.name.lower()
    inside = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    for dataset, marks in (
        ("cifar100", ("cifar-100-python", "meta")),
        ("cifar10", ("cifar-10-batches-py", "cifar-10-python", "batches.meta")),
    ):
        if name.startswith(marks[0]) or any(entry.startswith(marks) for entry in inside):
            return dataset, False
        if name.startswith(marks[1]) and path.is_file():
            return dataset, False
    if {"train.zip", "val.zip"} & inside:
        return "imagenet", "train" not in inside
    parts = ("train", "val")
    if path.is_dir() and not any(entry.startswith(parts) for entry in inside):
        from ..data.folders import walk

        if walk(path).files:
            return "images", False
    return "imagenet", False


def _open(dataset: str, path: str, part: str, zipped: bool) -> Source:
    from ..data.sources import open_source

    return open_source(dataset, path, train=part == "train", zip_mode=zipped)


def _report_part(part: str, source: Source, every: bool) -> int:
    counts = Counter(int(label) for label in source.labels)
    names = [short(name, 30) for name in source.classes[:12]]
    more = ", ..." if len(source.classes) > 12 else ""
    kind = "" if source.named else " (numbers: there are no names)"
    print(f"{part}: {len(source)} images, {len(source.classes)} classes{kind}: {', '.join(names)}{more}")
    if counts:
        print(f"  images a class: {min(counts.values())} to {max(counts.values())}")
    for note in source.notes:
        print(f"WARN  {note}")
    count = len(source) if every else min(SAMPLE, len(source))
    sizes, broken = [], []
    for index in (i * len(source) // count for i in range(count)):
        try:
            sizes.append(source[index][0].size)
        except OSError as error:
            broken.append(f"{source.name(index)}: {error}")
    return _report_images_read(sizes, broken, count)


def _report_images_read(sizes: list[tuple[int, int]], broken: list[str], count: int) -> int:
    if sizes:
        widths, heights = zip(*sizes)
        print(
            f"  {count} read: widths {min(widths)} to {max(widths)}, heights {min(heights)} to {max(heights)}, "
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
    for note in notes:
        print(f"WARN  {note}")
    return 0


def _report_images(path: str, every: bool) -> int:
    from ..data.folders import find_images
    from ..data.pictures import read_image

    notes: list[str] = []
    files = find_images([path], notes)
    print(f"{path}: {len(files)} images for `predict`; training wants train/CLASS/ and val/CLASS/ in it")
    for note in notes:
        print(f"WARN  {note}")
    count = len(files) if every else min(SAMPLE, len(files))
    sizes, broken = [], []
    for index in (i * len(files) // count for i in range(count)):
        try:
            sizes.append(read_image(files[index]).size)
        except UserError as error:
            broken.append(str(error))
    return 1 if _report_images_read(sizes, broken, count) else 0
