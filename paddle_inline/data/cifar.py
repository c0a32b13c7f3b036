"""CIFAR-10 and CIFAR-100 from their standard archives, read without running their pickles."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..utils.errors import MissingFileError, UserError

FILES = {  # data set: (training files, held-out files, key of the labels, file and key of the class names)
    "cifar10": (
        [f"data_batch_{i}" for i in range(1, 6)],
        ["test_batch"],
        b"labels",
        ("batches.meta", b"label_names"),
    ),
    "cifar100": (["train"], ["test"], b"fine_labels", ("meta", b"fine_label_names")),
}
ARCHIVE = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}


class Cifar:
    """32x32 RGB images of CIFAR-10 or CIFAR-100 (Krizhevsky, 2009).

    Args:
        dataset: `cifar10` or `cifar100`.
        path: the `...-python.tar.gz`, the folder it unpacks to, or a folder that holds either.
        train: the 50,000 training images, or the 10,000 held-out ones.

    Raises:
        MissingFileError: naming what was looked for.
        UserError: for a file that is not what it should be.
    """

    def __init__(self, dataset: str, path: str | Path, train: bool) -> None:
        if not path:
            raise MissingFileError("no data set given: set data.data_path (--data-path PATH)")
        trains, tests, label_key, (meta, names_key) = FILES[dataset]
        wanted = [*(trains if train else tests), meta]
        files = _read_files(dataset, path, wanted)
        parts = [_unpickle(files[name], name) for name in wanted]
        try:
            pixels = np.concatenate([part[b"data"] for part in parts[:-1]])
            self.pixels = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            self.labels = np.concatenate([part[label_key] for part in parts[:-1]])
            self.classes = tuple(name.decode() for name in parts[-1][names_key])
        except (LookupError, TypeError, ValueError) as error:
            raise UserError(f"{path} is not the {dataset} python archive ({error})") from None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return (PIL image in RGB, class number)."""
        return Image.fromarray(self.pixels[index]), int(self.labels[index])

    def name(self, index: int) -> str:
        """Return where an image is, as messages name it."""
        return f"CIFAR image {index}"


def _read_files(dataset: str, path: str | Path, wanted: list[str]) -> dict[str, bytes]:
    """Return {name: bytes} of the files of an archive or folder."""
    path = Path(path)
    places = [path, path / ARCHIVE[dataset], path / "cifar-10-batches-py", path / "cifar-100-python"]
    for place in places:
        if place.is_dir() and all((place / name).is_file() for name in wanted):
            return {name: (place / name).read_bytes() for name in wanted}
        if place.is_file():
            try:
                with tarfile.open(place) as archive:
                    members = {Path(member.name).name: member for member in archive if member.isfile()}
                    if all(name in members for name in wanted):
                        return {
                            name: (archive.extractfile(members[name]) or io.BytesIO()).read()
                            for name in wanted
                        }
            except (tarfile.TarError, EOFError, OSError) as error:
                raise UserError(f"{place} cannot be unpacked ({error}); download it again") from None
            raise UserError(f"{place} does not hold {', '.join(wanted)}: it is not {ARCHIVE[dataset]}")
    raise MissingFileError(f"no {dataset} in {path}; give {ARCHIVE[dataset]} or the folder it unpacks to")


_KNOWN: dict[str, Any] = {
    # an empty array, whose shape, type and contents follow in the pickle
    "numpy.core.multiarray._reconstruct": lambda kind, shape, code: np.empty(0, np.int8),
    "numpy.ndarray": None,  # only named, as the kind
    "numpy.dtype": np.dtype,
    "_codecs.encode": lambda text, encoding: text.encode("latin1"),
}


class _Unpickler(pickle.Unpickler):
    """Reads what the archives hold, numbers, texts, lists and arrays, and calls nothing else.

    (`weights.safe_pickle` leaves arrays in their file, as bytes; Python 2 wrote these as text.)
    """

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}".replace("numpy._core", "numpy.core")
        if path not in _KNOWN:
            raise UserError(f"it asks for {path}, which no image archive needs")
        return _KNOWN[path]


def _unpickle(data: bytes, name: str) -> dict[bytes, Any]:
    try:
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can fail in any way
        raise UserError(f"{name} cannot be read: {error}") from None
