"""CIFAR-10 and CIFAR-100 from their standard archives, read without running their pickles."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..utils.errors import MissingFileError, UserError
from .misplaced import no_cifar
from .pictures import describe, first_bytes
from .signatures import what_is

FILES = {  # data set: (training files, held-out files, key of the labels, file and key of the class names)
    "cifar10": (
        [f"data_batch_{i}" for i in range(1, 6)],
        ["test_batch"],
        "labels",
        ("batches.meta", "label_names"),
    ),
    "cifar100": (["train"], ["test"], "fine_labels", ("meta", "fine_label_names")),
}
ARCHIVE = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}
FOLDER = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
MOST_BYTES = 1 << 30  # of a file in an archive; the largest of them has 155 MB
OPENERS: dict[bytes, Any] = {  # by a file's first bytes
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}


class Cifar:
    """32x32 RGB images of CIFAR-10 or CIFAR-100 (Krizhevsky, 2009), as distributed or pickled again.

    Args:
        dataset: `cifar10` or `cifar100`.
        path: the `...-python.tar.gz` (or .tar), the folder it unpacks to, or a folder that holds either.
        train: the 50,000 training images, or the 10,000 held-out ones.

    Raises:
        MissingFileError: naming what was looked for.
        UserError: for a file that is not what it should be.
    """

    named = True

    def __init__(self, dataset: str, path: str | Path, train: bool) -> None:
        self.notes: Sequence[str] = ()
        if not path:
            raise MissingFileError("no data set given: set data.data_path (--data-path PATH)")
        trains, tests, label_key, (meta, names_key) = FILES[dataset]
        wanted = [*(trains if train else tests), meta]
        files = _read_files(dataset, path, wanted)
        parts = [_unpickle(files[name], f"{path}: {name}") for name in wanted]
        try:
            self.pixels = np.concatenate([_pixels(part["data"]) for part in parts[:-1]])
            self.labels = np.concatenate([np.asarray(part[label_key], np.int64) for part in parts[:-1]])
            self.classes = tuple(_text(name) for name in parts[-1][names_key])
            if len(self.labels) != len(self.pixels):
                raise ValueError(f"{len(self.pixels)} images and {len(self.labels)} labels")
            if not len(self.labels) or not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
                raise ValueError(f"labels that are not all below the {len(self.classes)} classes")
        except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
            said = f"no {error}" if isinstance(error, KeyError) else error
            raise UserError(f"{path} is not the {dataset} python archive ({said})") from None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return (PIL image in RGB, class number)."""
        return Image.fromarray(self.pixels[index]), int(self.labels[index])

    def name(self, index: int) -> str:
        """Return where an image is, as messages name it."""
        return f"CIFAR image {index}"


def which_cifar(path: Path) -> str:
    """Return `cifar10` or `cifar100` where a path is one of these or a folder that holds one, else ""."""
    for dataset, (trains, _, _, (meta, _)) in FILES.items():
        stem = ARCHIVE[dataset].split(".")[0]
        if path.is_dir():
            names = {entry.name for entry in path.iterdir()}
            is_one = FOLDER[dataset] in names or {trains[0], meta} <= names
            if is_one or any(name.startswith(f"{stem}.") for name in names):
                return dataset
        elif path.is_file() and (path.name.startswith(stem) or _holds(path, f"{FOLDER[dataset]}/")):
            return dataset
    return ""


def _holds(path: Path, start: str) -> bool:
    """Return whether one of the first members of a tar file has a name that begins so."""
    with contextlib.suppress(Exception), tarfile.open(path, "r:*") as archive:
        return any((archive.next() or tarfile.TarInfo()).name.startswith(start) for _ in range(3))
    return False


def _read_files(dataset: str, path: str | Path, wanted: list[str]) -> dict[str, bytes]:
    """Return {name: bytes} of the files of an archive or folder."""
    path = Path(path)
    for place in (path, path / FOLDER[dataset]):
        if all((place / name).is_file() for name in wanted):
            return {name: (place / name).read_bytes() for name in wanted}
    stem = ARCHIVE[dataset].split(".")[0]
    for place in (
        path,
        *(path / f"{stem}{suffix}" for suffix in (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz")),
    ):
        if place.is_file():
            return _read_archive(place, ARCHIVE[dataset], wanted)
    for folder in (path, path / FOLDER[dataset]):
        lacking = [name for name in wanted if not (folder / name).is_file()]
        if len(lacking) < len(wanted):
            raise MissingFileError(
                f"no {dataset} in {folder}; it lacks {', '.join(sorted(set(lacking)))}; give {ARCHIVE[dataset]} or the "
                "folder it unpacks to"
            )
    raise MissingFileError(
        f"no {dataset} in {path}; give {ARCHIVE[dataset]} or the folder it unpacks to; {no_cifar(path, FOLDER)}"
    )


def _read_archive(place: Path, archive_name: str, wanted: list[str]) -> dict[str, bytes]:
    """Return the wanted members of a tar file, compressed or not, read to its end: there are its checksums."""
    found: dict[str, bytes] = {}
    places: dict[str, str] = {}
    try:
        with open(place, "rb") as raw:
            start = raw.peek(6)[:6]
            opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), None)
            with opener(raw) if opener else contextlib.nullcontext(raw) as file:
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    for member in archive:
                        name = Path(member.name).name
                        if name in wanted and member.isfile():
                            if places.setdefault(name, member.name) != member.name:
                                raise ValueError(f"it holds both {places[name]} and {member.name}")
                            if member.size > MOST_BYTES:
                                raise ValueError(f"{member.name} unpacks to {member.size >> 20} MiB")
                            found[name] = (archive.extractfile(member) or io.BytesIO()).read()
                            if len(found[name]) != member.size:
                                raise EOFError(f"{member.name} ends too early")
                while file.read(1 << 20):
                    pass
    except Exception as error:  # a damaged archive can fail in any way
        kind = what_is(first_bytes(place))
        is_read = kind in ("a tar archive", "a gzip archive", "a bzip2 archive", "an xz archive")
        said = f"it is {kind}" if kind and not is_read else describe(error)
        raise UserError(f"{place} cannot be unpacked ({said}); download it again") from None
    lacking = [name for name in wanted if name not in found]
    if lacking:
        raise UserError(f"{place} does not hold {', '.join(lacking)}: it is not {archive_name}")
    return found


def _pixels(data: Any) -> np.ndarray:
    """Return images of 3072 bytes each, channel by channel, or in the shape of either order, as [n, 32, 32, 3]."""
    pixels = np.asarray(data)
    if pixels.dtype != np.uint8:
        raise ValueError(f"pixels of type {pixels.dtype}")
    if pixels.ndim == 2 and pixels.shape[1] == 3072:
        pixels = pixels.reshape(-1, 3, 32, 32)
    if pixels.shape[1:] == (3, 32, 32):
        pixels = pixels.transpose(0, 2, 3, 1)
    if pixels.shape[1:] != (32, 32, 3):
        raise ValueError(f"pixels in the shape {list(pixels.shape)}")
    return np.ascontiguousarray(pixels)


def _array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """Return an empty array, whose shape, type and contents follow in the pickle."""
    return np.empty(0, np.int8)


def _from_buffer(data: Any, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: np.dtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype)[0]


_KNOWN: dict[str, Any] = {
    "numpy.core.multiarray._reconstruct": _array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
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


def _unpickle(data: bytes, name: str) -> dict[str, Any]:
    try:
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        return {_text(key): value for key, value in content.items()} if isinstance(content, dict) else {}
    except Exception as error:  # a damaged pickle can fail in any way
        raise UserError(
            f"{name} cannot be read: {describe(error)}; unpack or download the archive again"
        ) from None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
