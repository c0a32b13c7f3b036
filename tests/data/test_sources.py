"""Data sets on disk: folders, lists, zip files and CIFAR's archives, good and broken."""

import io
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from paddle_inline.data import folders
from paddle_inline.data.cifar import Cifar
from paddle_inline.data.imagenet import Folder, Listed, Zipped, open_imagenet
from paddle_inline.data.sources import open_source
from paddle_inline.utils.errors import UserError


def jpeg(value):
    file = io.BytesIO()
    Image.new("L" if value == 3 else "RGB", (8, 6), value * 16).save(file, "PNG")
    return file.getvalue()


FILES = {"n01/b.JPEG": 1, "n01/a.jpeg": 2, "n02/c.PNG": 3, "n10/d.jpg": 4}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part in ("train", "val"):
        for name, value in FILES.items():
            path = tmp_path / "data" / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(value))
        (tmp_path / "data" / part / "n01" / "notes.txt").write_text("not an image")
    return tmp_path / "data"


def labels(source):
    return [(os.path.basename(source.name(i)), source[i][1]) for i in range(len(source))]


EXPECTED = [("a.jpeg", 0), ("b.JPEG", 0), ("c.PNG", 1), ("d.jpg", 2)]


def test_a_folder_of_classes(root):
    source = open_imagenet(str(root), train=True)
    assert isinstance(source, Folder) and source.classes == ("n01", "n02", "n10")
    assert labels(source) == EXPECTED
    image, _ = source[2]
    assert image.mode == "RGB" and image.size == (8, 6)


def test_the_index_is_kept_and_renewed(root, monkeypatch):
    for name in ("n01", "n02", "n10"):
        os.utime(root / "train" / name, (1, 1))
    open_imagenet(str(root), train=True)
    assert folders.index_file(root / "train").exists()
    listed = []
    scan = folders.scan
    monkeypatch.setattr(folders, "scan", lambda folder: listed.append(folder) or scan(folder))
    assert labels(open_imagenet(str(root), train=True)) == EXPECTED
    assert set(map(str, listed)) == {str(root / "train")}  # no class folder was listed again
    (root / "train" / "n02" / "e.png").write_bytes(jpeg(5))
    os.utime(root / "train" / "n02", (2, 2))
    assert len(open_imagenet(str(root), train=True)) == 5
    folders.index_file(root / "train").write_text("{")
    assert len(open_imagenet(str(root), train=True)) == 5


def test_a_folder_that_has_just_changed_is_listed_again(root):
    """Clocks of file systems tick seldom: what comes within the same tick leaves a folder's time as it was."""
    before = os.stat(root / "train" / "n02").st_mtime_ns
    assert len(open_imagenet(str(root), train=True)) == 4
    (root / "train" / "n02" / "e.png").write_bytes(jpeg(5))
    os.utime(root / "train" / "n02", ns=(before, before))
    assert len(open_imagenet(str(root), train=True)) == 5


def test_lists(root):
    for part in ("train", "val"):
        (root / f"{part}_list.txt").write_text(f"{part}/n10/d.jpg 7\n\n{part}/n01/a.jpeg\t0\n")
    source = Listed(root, root / "train_list.txt")
    assert labels(source) == [("d.jpg", 7), ("a.jpeg", 0)] and len(source.classes) == 8
    (root / "bad.txt").write_text("a.jpg 1\nb.jpg one\n")
    with pytest.raises(ValueError, match=r"bad.txt, line 2: 'b.jpg one'"):
        Listed(root, root / "bad.txt")


@pytest.mark.parametrize("inside", ["", "train/"])
def test_zip_mode(root, inside):
    with zipfile.ZipFile(root / "train.zip", "w") as archive:
        for name, value in FILES.items():
            archive.writestr(inside + name, jpeg(value))
    (root / "train_map.txt").write_text(
        "".join(f"{name}\t{i // 2}\n" for i, name in enumerate(sorted(FILES)))
    )
    source = open_imagenet(str(root), train=True, zip_mode=True)
    assert labels(source) == [("a.jpeg", 0), ("b.JPEG", 0), ("c.PNG", 1), ("d.jpg", 1)]
    folder = open_imagenet(str(root), train=True)
    for i in range(4):
        np.testing.assert_array_equal(np.asarray(source[i][0]), np.asarray(folder[i][0]))
    assert pickle.loads(pickle.dumps(source))[3][1] == 1  # as a worker process gets it
    with open(root / "train_map.txt", "w") as file:
        file.write("none.jpg\t0\n")
    with pytest.raises(FileNotFoundError, match=r"names none\.jpg"):
        Zipped(root / "train.zip", root / "train_map.txt")
    with pytest.raises(UserError, match=r"train_map\.txt is no zip file"):
        Zipped(root / "train_map.txt", root / "train_map.txt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(path=""), "--data-path"),
        (dict(path="/none"), "no data set folder /none"),
        (dict(path="{root}/val"), "holds neither train/CLASS/ folders, nor train/*.tar, nor"),
        (dict(path="{root}", zip_mode=True), "train.zip does not exist"),
    ],
)
def test_what_is_missing_is_named(root, arguments, message):
    arguments["path"] = arguments["path"].format(root=root)
    with pytest.raises(FileNotFoundError) as error:
        open_source("imagenet", **arguments, train=True)
    assert message in str(error.value)


def test_folders_without_images(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(FileNotFoundError, match="no image"):
        Folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no class folders"):
        Folder(tmp_path / "a")


# ---------------------------------------------------------------- CIFAR


def text(value):
    """A Python 2 `str`, as the archives have them."""
    data = value if isinstance(value, bytes) else value.encode()
    return b"T" + struct.pack("<i", len(data)) + data


def batch(pixels, labels, key):
    """A batch file as Python 2 wrote it: no Python 3 pickler makes these instructions."""
    data = b"\x80\x02}(" + text("data")
    data += b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text("b") + b"tR"
    data += b"(K\x01(J" + struct.pack("<i", len(pixels)) + b"M\x00\x0ct"
    data += b"cnumpy\ndtype\n(" + text("u1") + b"K\x00K\x01tR(K\x03" + text("|")
    data += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + text(pixels.tobytes()) + b"tb"
    data += text(key) + b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"eu."
    return data


def meta(key, names):
    return b"\x80\x02}(" + text(key) + b"](" + b"".join(map(text, names)) + b"eu."


PIXELS = np.random.RandomState(0).randint(0, 256, (12, 3072)).astype(np.uint8)


@pytest.fixture
def cifar(tmp_path):
    files = {f"data_batch_{i + 1}": batch(PIXELS[2 * i : 2 * i + 2], [i, i + 1], "labels") for i in range(5)}
    files["test_batch"] = batch(PIXELS[10:], [9, 0], "labels")
    files["batches.meta"] = meta("label_names", [f"class{i}" for i in range(10)])
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return tmp_path


@pytest.mark.parametrize("way", ["archive", "its folder", "unpacked", "its parent"])
def test_cifar10(cifar, way):
    path = cifar / "cifar-10-python.tar.gz" if way == "archive" else cifar
    if way in ("unpacked", "its parent"):
        with tarfile.open(cifar / "cifar-10-python.tar.gz") as archive:
            archive.extractall(cifar / "un")
        path = cifar / "un" / ("cifar-10-batches-py" if way == "unpacked" else "")
    train, test = Cifar("cifar10", path, True), Cifar("cifar10", path, False)
    assert (len(train), len(test)) == (10, 2)
    assert train.labels.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert train.classes[3] == "class3"
    image, label = test[1]
    assert label == 0
    np.testing.assert_array_equal(np.asarray(image), PIXELS[11].reshape(3, 32, 32).transpose(1, 2, 0))


def test_cifar100(tmp_path):
    (tmp_path / "train").write_bytes(batch(PIXELS[:4], [0, 99, 3, 4], "fine_labels"))
    (tmp_path / "meta").write_bytes(meta("fine_label_names", [f"c{i}" for i in range(100)]))
    source = Cifar("cifar100", tmp_path, True)
    assert source.labels.tolist() == [0, 99, 3, 4] and len(source.classes) == 100


def test_cifar_that_is_missing_or_broken(cifar, tmp_path):
    with pytest.raises(FileNotFoundError, match="--data-path"):
        Cifar("cifar10", "", True)
    with pytest.raises(FileNotFoundError, match="no cifar100 in"):
        Cifar("cifar100", tmp_path / "none", True)
    archive = cifar / "cifar-10-python.tar.gz"
    with pytest.raises(ValueError, match=r"does not hold train, meta"):
        Cifar("cifar100", archive, True)
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(ValueError, match="download it again"):
        Cifar("cifar10", archive, True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"cos\nsystem\n(U\x09echo hurt\ntR.", r"asks for (os|posix|nt)\.system"),
        (b"cnumpy\nndarray\n((L999999999999L\nttR.", "not callable"),  # no memory is taken
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L999999999999L\ntU\x01btR.",
            "is not the",
        ),
    ],
)
def test_a_strangers_pickle_runs_nothing(tmp_path, data, message):
    (tmp_path / "train").write_bytes(data)
    (tmp_path / "meta").write_bytes(meta("fine_label_names", ["a"]))
    with pytest.raises(UserError, match=message):
        Cifar("cifar100", tmp_path, True)
