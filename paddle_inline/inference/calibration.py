"""The pictures that an int8 program is calibrated on and those that it is measured on, of a folder or the digits.

C channels.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.classes import match_classes
from ..data.folders import find_images, subfolders, walk
from ..data.pictures import describe, picture_mode, read_rgb
from ..data.sources import Source, open_source
from ..data.split import Split, has_part
from ..utils.cores import available_cores
from ..utils.errors import FileAccessError, MissingFileError, UserError, counted, short
from ..utils.paths import expand

if TYPE_CHECKING:
    from PIL import Image

MAX_DROP = 0.5  # points of top-1 that int8 may cost
CALIBRATION = 300  # pictures, which the ranges of numbers settle on
MOST_HELD_OUT = 10_000  # of more, so many are drawn
LEAST = 32  # of either: with fewer, one picture decides more than the accuracy is asked for
SHARE = 0.5  # held out of a folder that holds nothing out itself
SEED = 0


@dataclass(frozen=True)
class Pictures:
    """Pictures of one purpose, read and transformed when it is their turn.

    Attributes:
        read: number -> image [C, H, W] float32, for the numbers below `count`.
        count: how many.
        labels: their class numbers; None: not known.
        source: what they are, in words.
    """

    read: Callable[[int], np.ndarray]
    count: int
    labels: Sequence[int] | None
    source: str

    def batches(self, size: int, fill: bool = False) -> Iterator[np.ndarray]:
        """Yield all as [B, C, H, W], B = `size` but for the last; with `fill` the last one repeats its last image."""
        with ThreadPoolExecutor(available_cores()) as pool:
            for start in range(0, self.count, size):
                images = list(pool.map(self.read, range(start, min(start + size, self.count))))
                images += images[-1:] * (size - len(images) if fill else 0)
                yield np.stack(images)

    def labels_fit(self, top1: float | None, classes: int) -> bool:
        """Return whether a top-1 in percent is above chance by three deviations, so that the labels are the model's."""
        if top1 is None:
            return False
        chance = 1 / classes
        return top1 > 100 * (chance + 3 * math.sqrt(chance * (1 - chance) / self.count))


@dataclass(frozen=True)
class Calibration:
    """What an int8 program is made and judged by.

    Attributes:
        training: pictures that the ranges of numbers are read from.
        held_out: others, for the accuracy.
        max_drop: points by which top-1 may fall; without labels, the percentage of pictures whose class may change.
    """

    training: Pictures
    held_out: Pictures
    max_drop: float = MAX_DROP


def check_max_drop(points: float) -> None:
    """Raise UserError for what is no number of points from 0 to 100."""
    if not (isinstance(points, numbers.Real) and 0 <= points <= 100):
        shown = f"{points:g}" if isinstance(points, numbers.Real) else repr(points)
        raise UserError(
            f"max_drop (--max-drop) is {shown}: give points of top-1 from 0 to 100, such as {MAX_DROP}"
        )


def calibration_of(
    where: str | Path,
    *,
    transform: dict[str, Any],
    num_classes: int,
    classes: Sequence[str] | None = None,
    max_drop: float = MAX_DROP,
    split: Split | None = None,
    log: Callable[[str], Any] = print,
) -> Calibration:
    """Return the pictures of a folder, or of "digits", in two parts without a picture in common.

    A folder with `val` is measured on that and calibrated on its `train`; of one with class folders alone `SHARE` of
    each class is held out, drawn by `SEED`; of one of plain pictures as well, and they have no labels.

    Args:
        where: the folder, or "digits".
        transform: arguments of `data.transforms.eval_transform`, which makes the model's images.
        num_classes: of the model.
        classes: their names, by which those of the folder are matched; None: the folder must have as many.
        max_drop: points by which top-1 may fall.
        split: what the model's training held out; None: not known.
        log: called with each line about the pictures.

    Raises:
        MissingFileError: there is no such folder, or no picture in it.
        FileAccessError: of `Pictures.read`, where a picture cannot be read.
        UserError: it has too few pictures, or other classes than the model; `max_drop` is none.
        MissingPackageError: the digits' package is not installed.
    """
    from ..data.transforms import eval_transform  # which loads Paddle

    check_max_drop(max_drop)
    mode, values = picture_mode(len(transform["mean"])), dict(transform)
    prepare = eval_transform(values.pop("img_size"), **values)
    root = Path(expand(where))
    if str(where) != "digits" and not (str(where) and root.is_dir()):  # Path("") is the working directory
        raise MissingFileError(
            f"no folder {str(where)!r} to calibrate on: give a folder of pictures, or digits"
        )
    if str(where) != "digits" and not _has_classes(root):
        return _unlabelled(root, prepare, mode, max_drop, log)
    dataset = "digits" if str(where) == "digits" else "folder"
    if dataset == "digits" or has_part(root, "val"):
        split = None
    elif split is None:
        split = Split(SHARE, SEED)
        log(
            f"{where} has no val: {SHARE:.0%} of each class is held out here (the model may have learnt from them)"
        )
    parts = [
        open_source(dataset, root if dataset == "folder" else "", train=train, mode=mode, split=split)
        for train in (True, False)
    ]
    for note in dict.fromkeys(note for part in parts for note in part.notes):
        log(note)
    training, held_out = parts
    if classes is not None:
        held_out, notes = match_classes(held_out, classes, held_out=str(where), known="the model")
        for note in notes:
            log(note)
    elif len(held_out.classes) != num_classes:
        raise UserError(
            f"{where} has {len(held_out.classes)} classes, the model {num_classes}: give pictures of its classes, or "
            "one folder of pictures without folders in it, for which classes are compared with float32's instead"
        )
    _check_enough(where, len(training), len(held_out))
    return Calibration(
        _drawn(training, prepare, CALIBRATION, f"training pictures of {where}", labelled=False),
        _drawn(held_out, prepare, MOST_HELD_OUT, f"held-out pictures of {where}", labelled=True),
        max_drop,
    )


def _has_classes(root: Path) -> bool:
    parts = has_part(root, "val") or has_part(root, "train")
    return parts or any(walk(root / name).files for name in subfolders(root))


def _drawn(
    source: Source, prepare: Callable[[Image.Image], np.ndarray], most: int, what: str, labelled: bool
) -> Pictures:
    """Return `most` of a source's pictures, drawn by `SEED` where there are more."""
    drawn = np.sort(np.random.RandomState(SEED).permutation(len(source))[:most])
    labels = [int(label) for label in source.labels]

    def read(index: int) -> np.ndarray:
        number = int(drawn[index])
        return prepare(_image(lambda: source[number][0], lambda: source.name(number)))

    return Pictures(
        read,
        len(drawn),
        [labels[number] for number in drawn] if labelled else None,
        what,
    )


def _unlabelled(
    root: Path,
    prepare: Callable[[Image.Image], np.ndarray],
    mode: str,
    max_drop: float,
    log: Callable[[str], Any],
) -> Calibration:
    notes: list[str] = []
    paths = find_images([root], notes)
    for note in notes:
        log(note)
    order = np.random.RandomState(SEED).permutation(len(paths))
    others = round(SHARE * len(paths))
    _check_enough(root, len(paths) - others, others)
    half = min(len(paths) - others, CALIBRATION)
    parts = []
    for what, chosen in (("pictures", order[:half]), ("others", order[half : half + MOST_HELD_OUT])):
        files = [paths[number] for number in np.sort(chosen)]

        def read(index: int, files: list[Path] = files) -> np.ndarray:
            return prepare(_image(lambda: read_rgb(files[index], mode), lambda: str(files[index])))

        parts.append(Pictures(read, len(files), None, f"{what} of {root}"))
    return Calibration(parts[0], parts[1], max_drop)


def _image(read: Callable[[], Image.Image], name: Callable[[], str]) -> Image.Image:
    """Return a picture that is read, or raise FileAccessError with its name and the way out."""
    try:
        return read()
    except OSError as error:
        raise FileAccessError(
            f"{short(name(), 400)} cannot be read as an image ({describe(error)}): repair it, or take it out of the "
            "folder; `python -m paddle_inline doctor FOLDER --all` finds all such"
        ) from None


def _check_enough(where: str | Path, training: int, held_out: int) -> None:
    """Refuse too few pictures to calibrate on or to be measured on: UserError with all that were found."""
    if min(training, held_out) < LEAST:
        raise UserError(
            f"{counted(training + held_out, 'picture')} found in {where}, {training} to calibrate on and {held_out} to "
            f"be measured on: int8 needs {2 * LEAST} at least, {LEAST} for each; add some"
        )
