"""Where the notebooks find images and put files: on AI Studio, and anywhere else.

AI Studio mounts data sets under /home/aistudio/data (restored at every start) and keeps /home/aistudio/work.
"""

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np

AISTUDIO = Path("/home/aistudio")
ARCHIVE = "cifar-10-python.tar.gz"


def find_cifar10(folders=None):
    """CIFAR-10's archive (its Python version), or None.

    Args:
        folders: where to look, two levels deep; by default AI Studio's data, `data/` beside the
            notebooks' folder, and Paddle's own cache.
    """
    if folders is None:
        cache = Path(os.path.expanduser("~")) / ".cache" / "paddle" / "dataset" / "cifar"
        folders = (AISTUDIO / "data", Path(__file__).parents[1] / "data", cache)
    for folder in map(Path, folders):
        for pattern in (ARCHIVE, f"*/{ARCHIVE}"):
            for path in sorted(folder.glob(pattern)):
                return path
    return None


def describe(archive):
    """One line on what is used, and why, for the reader."""
    if archive is not None:
        return f"images: CIFAR-10, from {archive}"
    where = "mounted here" if AISTUDIO.is_dir() else "on this machine"
    return (
        f"images: the handwritten digits inside scikit-learn ({ARCHIVE} is not used: not {where}, or no GPU)"
    )


def output_folder(name):
    """The folder for a notebook's files, made if missing: AI Studio's kept one or output/notebooks."""
    kept, here = AISTUDIO / "work", Path(__file__).parents[1] / "output" / "notebooks"
    folder = Path(os.environ.get("NOTEBOOK_OUTPUT", kept if kept.is_dir() else here)).resolve() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def arrays(train, archive=None, size=32, most=10_000, mean=(0.5,) * 3, std=(0.5,) * 3):
    """(images [n, 3, size, size] float32, labels [n] int64), in the order of the collection.

    Args:
        train: images to train on, or the held-out ones.
        archive: of CIFAR-10; None: the digits.
        most: how many at most.
        mean, std: per channel, of pixels in 0..1.
    """
    if archive is None:
        from paddle_inline.data.embedded import Digits

        source = Digits(train)
    else:
        from paddle_inline.data.cifar import Cifar

        source = Cifar("cifar10", str(archive), train)
    count = min(most, len(source))
    images = [np.asarray(source[i][0].resize((size, size)), "float32") / 255 for i in range(count)]
    images = (np.stack(images) - np.float32(mean)) / np.float32(std)
    return images.transpose(0, 3, 1, 2), np.array([source[i][1] for i in range(count)], "int64")


def digits_as_cifar10(path):
    """Write the digits as an archive in CIFAR-10's format (its Python version), 32x32 RGB; returns `path`.

    Five training batches and one test batch of pickled {b"data": [n, 3072] uint8, b"labels": list}, and the
    names of the classes.
    """
    from paddle_inline.data.embedded import Digits

    batches = {}
    for train, names in ((True, [f"data_batch_{i}" for i in range(1, 6)]), (False, ["test_batch"])):
        images, labels = arrays(train, mean=(0,) * 3, std=(1 / 255,) * 3)
        flat = np.round(images).astype(np.uint8).reshape(len(images), -1)
        for name, some, few in zip(
            names, np.array_split(flat, len(names)), np.array_split(labels, len(names))
        ):
            batches[name] = {b"data": some, b"labels": few.tolist()}
    batches["batches.meta"] = {b"label_names": [digit.encode() for digit in Digits.classes]}
    partial = Path(f"{path}.partial")
    with tarfile.open(partial, "w:gz") as archive:
        for name, content in batches.items():
            data = pickle.dumps(content, protocol=2)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    partial.replace(path)
    return Path(path)
