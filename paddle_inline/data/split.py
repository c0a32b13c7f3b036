"""Pictures of one's own: a root with train/ and val/, or one folder of classes of which a share is held out.

Which pictures are held out follows from the share, the seed and the pictures' names, class by class. A run keeps
their names (`KEPT` in its folder), so that pictures that are added later are none that it was measured on, and those
that it was measured on are none that it learns from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..utils.errors import FileAccessError, MissingFileError, UserError, joined
from ..weights.atomic import atomic_write
from .folders import index_file, listing, subfolders, walk
from .imagenet import Folder, layouts, open_imagenet
from .misplaced import SIMILAR, not_a_folder
from .pictures import PictureSource
from .reduced import Reading, read_from

if TYPE_CHECKING:
    from PIL import Image

KEPT = "split.json"  # in a run's folder


@dataclass(frozen=True)
class Split:
    """How pictures are shared between training and evaluation.

    Attributes:
        share: of each class that is held out, above 0 and below 1.
        seed: decides which.
        held_out: their names below the data set's folder, of an earlier run; None: drawn anew.
    """

    share: float
    seed: int
    held_out: frozenset[str] | None = None


class Part:
    """Some images of a source.

    Args:
        source: of the images.
        indices: of those that are the part's.
        split: how the source is shared, with the names of all that are held out.
        notes: what is to be said about it.
    """

    def __init__(
        self, source: PictureSource, indices: Sequence[int], split: Split, notes: Sequence[str]
    ) -> None:
        self.source, self.indices, self.split, self.notes = source, list(indices), split, notes
        self.classes, self.named = source.classes, source.named

    @property
    def labels(self) -> list[int]:
        """The class numbers of all images."""
        labels = self.source.labels
        return [labels[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return (PIL image in the source's mode, class number)."""
        return self.source[self.indices[index]]

    def read(self, index: int, reading: Reading) -> tuple[Image.Image, int]:
        """Return what the source reads, cut as `reading` plans it where it can."""
        return read_from(self.source, self.indices[index], reading)

    def name(self, index: int) -> str:
        """Return where an image is, as messages name it."""
        return self.source.name(self.indices[index])


def open_folder(
    path: str | Path,
    *,
    train: bool,
    split: Split | None = None,
    zip_mode: bool = False,
    mode: str = "RGB",
) -> PictureSource | Part:
    """Return the training or the held-out images of a folder of one's own.

    Args:
        path: holds `train/` and `val/` (or any other layout of `open_imagenet`); or with `split` class folders, or
            `train/` alone.
        split: shares the images where none lie apart for evaluation; not used where they do, which a note says.
        zip_mode: as `open_imagenet`'s.
        mode: of `pictures.MODES`, in which files are read.

    Raises:
        MissingFileError: naming what was looked for.
        UserError: none can be held out.
    """
    if not path:
        raise MissingFileError("no data set given: set data.data_path (--data-path PATH)")
    root = Path(path)
    if not root.is_dir():
        raise MissingFileError(not_a_folder(root))
    if split is None or zip_mode or has_part(root, "val"):
        if not (zip_mode or has_part(root, "val")) and (has_part(root, "train") or _has_classes(root)):
            raise MissingFileError(_without_val(root))
        source = open_imagenet(root, train=train, zip_mode=zip_mode)
        source.mode = mode
        if split is not None:
            unused = f"data.val_split {split.share:g} is not used: {root} has held-out images of its own"
            source.notes = [*source.notes, unused]
        return source
    whole, beside = _whole(root)
    whole.mode = mode
    names = names_below(root, whole)
    held_out = split.held_out
    if held_out is None:
        held_out = draw(names, whole.labels, split.share, split.seed)
    indices = [index for index, name in enumerate(names) if (name in held_out) != train]
    if not indices:
        raise UserError(_nothing(root, whole, split, train))
    shared = Split(split.share, split.seed, held_out)
    return Part(whole, indices, shared, [*whole.notes, *beside, *_about(whole, names, split, held_out)])


def draw(names: Sequence[str], labels: Iterable[int], share: float, seed: int) -> frozenset[str]:
    """Return the names that are held out: of each class so near to the share as whole images allow.

    Of a class of two images or more at least one is held out and at least one is learnt; that of one image is
    learnt. A class's images are taken in the order of a digest of seed and name, so that those of other classes, and
    for the most part those that are added later, change nothing.
    """
    of_class: dict[int, dict[str, None]] = {}
    for name, label in zip(names, labels):
        of_class.setdefault(int(label), {})[name] = None
    chosen: list[str] = []
    for members in of_class.values():
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        chosen += sorted(members, key=lambda name: _digest(seed, name))[:count]
    return frozenset(chosen)


def _digest(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()


def names_below(root: str | Path, source: PictureSource | Part) -> list[str]:
    """Return the names of all images, relative to the data set's folder, with `/` between their parts."""
    prefix = os.path.join(str(root), "")
    names = (source.name(index) for index in range(len(source)))
    return [(name[len(prefix) :] if name.startswith(prefix) else name).replace(os.sep, "/") for name in names]


def keep_split(folder: str | Path, split: Split) -> None:
    """Write which images a run holds out into its folder.

    Raises:
        FileAccessError: it cannot be written.
    """
    path = Path(folder) / KEPT
    names = sorted(split.held_out or ())  # JSON escapes those that are no UTF-8
    contents = {"val_split": split.share, "seed": split.seed, "held_out": names}
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(contents, indent=0) + "\n", encoding="ascii")
    except OSError as error:
        raise FileAccessError(f"{path} cannot be written: {error.strerror or error}") from None


def kept_split(folder: str | Path) -> Split | None:
    """Return the split that a run's folder keeps; None: it keeps none.

    Raises:
        UserError: the file is damaged.
    """
    path = Path(folder) / KEPT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        share, seed, names = found["val_split"], found["seed"], found["held_out"]
        if not (0 < share < 1 and type(seed) is int and all(isinstance(name, str) for name in names)):
            raise TypeError("val_split, seed or held_out is of another kind")
        return Split(share, seed, frozenset(names))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(
            f"{path}, which keeps the images that the run holds out, cannot be read ({error}): restore it, or remove "
            "it to have them drawn anew from data.val_split and seed"
        ) from None


def run_of(weights: str | Path) -> Path:
    """Return the run's folder of a file of weights, which lies in it or in one of its checkpoints."""
    folder = Path(weights).parent
    return folder.parent.parent if folder.parent.name == "checkpoints" else folder


def has_part(root: str | Path, part: str) -> bool:
    """Return whether a data set's folder has a `train` or `val` of a form that is read; a class may be called so."""
    return bool(layouts(Path(root), part))


def _has_classes(root: Path) -> bool:
    return any(walk(root / name).files for name in subfolders(root))


def _whole(root: Path) -> tuple[PictureSource, list[str]]:
    """Return (the images that are to be shared, what is to be said about those beside them).

    Raises:
        UserError: some have been held out, under another name than val.
    """
    folders = subfolders(root)
    near = [name for name in folders if name.lower() in SIMILAR["val"]]
    parts = [name for name in near if not listing(root / name).files and subfolders(root / name)]
    if parts:
        raise UserError(
            f"{root} holds {joined(parts, 6)} with class folders inside: rename it to val, the training images' "
            "folder to train, and leave data.val_split (--val-split) out"
        )
    if not has_part(root, "train"):
        return Folder(root, index_file(root)), []
    others = [name for name in folders if name != "train"]
    said = [f"{root}: train is shared; left out beside it: {joined(others, 6)}"] if others else []
    return open_imagenet(root, train=True), said


def _without_val(root: Path) -> str:
    near = [name for name in subfolders(root) if name.lower() in SIMILAR["val"]]
    if near:
        return f"{root} has no val; is it {joined(near, 6)}? Rename it to val"
    what = "train" if has_part(root, "train") else f"class folders ({joined(subfolders(root), 6)})"
    return (
        f"{root} has {what} and no held-out images: --val-split 0.1 (data.val_split) holds out a tenth of each class; "
        f"or move some to {root / 'val'}/CLASS/"
    )


def _nothing(root: Path, whole: PictureSource, split: Split, train: bool) -> str:
    if split.held_out is not None:
        return (
            f"none of the {len(split.held_out)} images that the run holds out ({KEPT}) is in {root}: give the folder "
            "that it was trained on, or one with val/"
        )
    return (
        f"{root} has {len(whole)} images in {len(whole.classes)} classes: a class needs two or more, one to learn "
        f"from and one to hold out ({'learnt' if train else 'held out'}: none)"
    )


def _about(whole: PictureSource, names: Sequence[str], split: Split, held_out: frozenset[str]) -> list[str]:
    """Return what is to be said about a split: its size, and the classes that lack one side."""
    sides: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}
    for name, label in zip(names, whole.labels):
        sides[name in held_out][label] += 1
    kept = "" if split.held_out is None else f", as {KEPT} of the run says"
    notes = [
        f"{sum(sides[True].values())} of {len(names)} images are held out, class by class "
        f"(data.val_split {split.share:g}, seed {split.seed}{kept})"
    ]
    gone = len(held_out.difference(names))
    if gone:
        notes.append(f"{gone} of the images that the run holds out are not there any more")
    for side, what in ((True, "learnt and never held out"), (False, "held out and never learnt")):
        lacking = [whole.classes[n] for n in sorted(sides[not side]) if not sides[side][n]]
        if lacking:
            notes.append(f"too few images to share, {what}: {joined(lacking, 12)}")
    return notes
