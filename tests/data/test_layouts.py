"""Layouts side by side, and lists and class files as different programs write them."""

import gzip
import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_inline.data.cifar import Cifar
from paddle_inline.data.classes import read_class_names
from paddle_inline.data.imagenet import Folder, Listed
from paddle_inline.data.lists import read_map
from paddle_inline.data.sources import open_source
from paddle_inline.data.text import read_text
from paddle_inline.utils.errors import MissingFileError, UserError
from tests.data.trees import picture, tree


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def test_folders_win_over_class_tars_beside_them(tmp_path):
    tree(tmp_path, ["n01440764", "n02"])
    with tarfile.open(tmp_path / "train" / "n01440764.tar", "w") as archive:
        archive.add(tmp_path / "train" / "n01440764" / "0.png", "0.png")
    source = open_source("imagenet", str(tmp_path), train=True)
    assert isinstance(source, Folder) and source.classes == ("n01440764", "n02") and len(source) == 4
    assert "has folders and tars for train: the folders are read" in source.notes[0]


def test_lists_are_read_where_only_they_have_both_parts(tmp_path):
    """As PaddleClas lays ImageNet out: class folders of train, val flat, a list of each."""
    tree(tmp_path, ["n01", "n02"], [])
    (tmp_path / "val").mkdir()
    picture().save(tmp_path / "val" / "0.png")
    (tmp_path / "train_list.txt").write_text("train/n01/0.png 1\ntrain/n02/0.png 0\n")
    (tmp_path / "val_list.txt").write_text("val/0.png 1\n")
    train, val = (open_source("imagenet", str(tmp_path), train=part) for part in (True, False))
    assert isinstance(train, Listed) and train.labels == [1, 0] and val.labels == [1]
    assert "the list is read" in train.notes[0]


def test_class_names_beside_class_folders_are_not_used_and_that_is_said(tmp_path):
    tree(tmp_path, ["n01", "n02"])
    (tmp_path / "classes.txt").write_text("n01\nn02\n")
    assert not open_source("imagenet", str(tmp_path), train=True).notes
    for content in (b"tench\nshark\n", "猫\n狗\n".encode("gbk")):
        (tmp_path / "classes.txt").write_bytes(content)
        (note,) = open_source("imagenet", str(tmp_path), train=True).notes
    assert note == f"{tmp_path}/classes.txt is not used: classes are called as their folders are"


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbftrain/a.png 0\ntrain/b.png 1\n",
        "train/a.png 0\ntrain/b.png 1\n".encode("utf-16"),
        b"train\\a.png 0\r\ntrain\\b.png 1\r\n",
        b"train/a.png\t0\n\ntrain/b.png\t1",
        b"train/a.png,0\ntrain/b.png,1\n",
        b'file,label\n"train/a.png",0\n"train/b.png","1"\n',
        b"./train/a.png, 0\r./train/b.png, 1\r",
    ],
)
def test_forms_of_lists(tmp_path, data):
    (tmp_path / "train").mkdir()
    for name in "ab":
        picture().save(tmp_path / "train" / f"{name}.png")
    (tmp_path / "train_list.txt").write_bytes(data)
    source = open_source("imagenet", str(tmp_path), train=True)
    assert source.labels == [0, 1] and source[1][0].size == (8, 6)
    assert source.name(1).replace("./", "").endswith("train/b.png")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("猫/a.png 0\n狗/b.png 1\n".encode("gbk"), "line 2: .*not UTF-8.*GBK"),
        (b"a.png 0\nb\xe9.png 1\n", "line 2: .*not UTF-8"),
        ("猫/a.png 0\n".encode("gbk"), "line 1: 'è' has '猫' if the file is in GBK"),
        ("路/a.png 0\n".encode("gbk"), "if the file is in GBK"),
        (b"a\xc4\xa3.png 0\n\xc4\xa3\xc4\xa3.png 0\n", "line 2: .*if the file is in GBK"),
        ("a.png 0\n".encode("utf-16-le"), "line 1: a zero byte"),
        (b"a.png 0\nb.png -1\n", "line 2"),
        (b"a.png 0\nb.png \xc2\xb2\n", "line 2"),
        (b"a.png cat\n", "line 1"),
        (b"\n", "names no image"),
    ],
)
def test_lists_that_are_refused(tmp_path, data, message):
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_map(tmp_path / "list.txt")


def test_a_list_whose_images_are_elsewhere(tmp_path):
    (tmp_path / "train_list.txt").write_text("a.png 0\nb.png 0\n")
    with pytest.raises(MissingFileError, match=r"train_list\.txt names a\.png, which is not in"):
        open_source("imagenet", str(tmp_path), train=True)


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.characters(exclude_characters="\n\r\x00", exclude_categories=["Cs"]), min_size=1), st.data()
)
def test_any_utf8_name_is_read_as_it_is(tmp_path_factory, name, data):
    path = tmp_path_factory.getbasetemp() / "names.txt"
    path.write_bytes(name.encode("utf-8-sig"))
    assert read_text(path) == name


@pytest.mark.parametrize(
    "text",
    [
        *(
            "кино",
            "café",
            "Ångström",
            "naïve Öl",
            "żółw",
            "ελληνικά",
            "日本語のひらがな",
            "עברית",
            "한국어",
            "été",
        ),
        *("€ 5", "à la carte", "Nº 5", "25 °C", "90°", "£5", "猫", "ä, ö, ü und 猫"),
    ],
)
def test_languages_are_no_gbk(tmp_path, text):
    (tmp_path / "names").write_text(f"{text}\nb\n", encoding="utf-8")
    assert read_class_names(tmp_path / "names") == (text, "b")


TENCH = ("tench, Tinca tinca", "cat")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0 c5\n1 c6\n", ("c5", "c6")),
        ("1 c6\r\n0 c5\r\n", ("c5", "c6")),
        ("0\ttench, Tinca tinca\n1\tcat\n", TENCH),
        ("0: tench, Tinca tinca\n1: cat\n", TENCH),
        ('0,"tench, Tinca tinca"\n1,cat\n', TENCH),
        ("id,name\n0,dog\n1,cat\n", ("dog", "cat")),
        ("name,id\ndog,1\ncat,0\n", ("cat", "dog")),
        ("tench, Tinca tinca\ncat\n", TENCH),
        ("0\n1\n10\n2\n", ("0", "1", "10", "2")),
        ("7 eleven\n4 runner\n", ("7 eleven", "4 runner")),
        ("\ufeffcat\ndog\n", ("cat", "dog")),
        ('["cat", "dog"]', ("cat", "dog")),
        ('[["n01", "cat"], ["n02", "dog"]]', ("cat", "dog")),
        ('{"1": "dog", "0": "cat"}', ("cat", "dog")),
        ('{"0": ["n01", "cat"], "1": ["n02", "dog"]}', ("cat", "dog")),
        ('{"cat": 0, "dog": 1}', ("cat", "dog")),
        ('{"model_type": "x", "id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0}}', ("cat", "dog")),
    ],
)
def test_forms_of_class_files(tmp_path, text, names):
    (tmp_path / "names").write_bytes(text.encode())
    assert read_class_names(tmp_path / "names") == names
    (tmp_path / "names").write_bytes(text.lstrip("\ufeff").encode("utf-16"))
    assert read_class_names(tmp_path / "names") == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 cat\n2 dog\n", "start at 0"),
        ('{"0": "cat", "2": "dog"}', "where 1 is next"),
        ('{"0": 1, "b": []}', "by their numbers"),
        ('{"0": {}}', "as strings"),
        ("", "names no class"),
        ("{}", "names no class"),
    ],
)
def test_class_files_that_are_refused(tmp_path, text, message):
    (tmp_path / "names").write_text(text)
    with pytest.raises(UserError, match=message):
        read_class_names(tmp_path / "names")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        (st.text("abc 0", min_size=1) | st.text("дж 0", min_size=1)).map(str.strip).filter(bool),
        min_size=1,
        unique=True,
    )
)
def test_class_names_survive_json_and_numbered_lines(tmp_path_factory, names):
    path = tmp_path_factory.getbasetemp() / "classes"
    for content in (names, dict(enumerate(names)), {name: i for i, name in enumerate(names)}):
        path.write_text(json.dumps(content))
        assert read_class_names(path) == tuple(names)
    path.write_text("".join(f"{i}\t{name}\n" for i, name in enumerate(names)), encoding="utf-8")
    assert read_class_names(path) == tuple(names)


def test_settings_that_a_data_set_has_no_use_for_are_said(tmp_path):
    """The quickstart's data set is the digits: who gives a folder of images alone trains on other images."""
    pytest.importorskip("sklearn")
    (note,) = open_source("digits", str(tmp_path), train=True).notes
    assert note.startswith(f"data.data_path ({tmp_path}) is not used: data.dataset is digits;")
    assert not open_source("digits", train=True).notes
    for name, data in cifar_files().items():
        (tmp_path / name).write_bytes(data)
    assert not open_source("cifar10", str(tmp_path), train=True).notes
    (note,) = open_source("cifar10", str(tmp_path), train=True, zip_mode=True).notes
    assert note.startswith("data.zip_mode (True) is not used: data.dataset is cifar10;")


# ---------------------------------------------------------------- CIFAR

PIXELS = np.random.RandomState(0).randint(0, 256, (12, 3072)).astype(np.uint8)


def cifar_files(protocol=2, key=str, as_array=False):
    """The files of CIFAR-10, pickled anew by Python 3."""
    files = {}
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        labels = [i, i + 1]
        content = {"data": PIXELS[2 * i : 2 * i + 2], "labels": np.array(labels) if as_array else labels}
        files[name] = pickle.dumps({key(k): value for k, value in content.items()}, protocol)
    names = [key(f"class{i}") for i in range(10)]
    return {**files, "batches.meta": pickle.dumps({key("label_names"): names}, protocol)}


def tar(path, files, mode):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("key", [str, str.encode])
def test_cifar_pickled_anew(tmp_path, protocol, key):
    for name, data in cifar_files(protocol, key, as_array=protocol % 2 == 1).items():
        (tmp_path / name).write_bytes(data)
    source = Cifar("cifar10", tmp_path, True)
    assert list(source.labels) == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5] and source.classes[1] == "class1"
    np.testing.assert_array_equal(source.pixels[3], PIXELS[3].reshape(3, 32, 32).transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("name", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tgz", "w:gz"), ("tar.bz2", "w:bz2")]
)
def test_cifar_archives(tmp_path, name, mode):
    path = tar(tmp_path / f"cifar-10-python.{name}", cifar_files(), mode)
    assert len(Cifar("cifar10", path, True)) == 10
    if "bz2" not in name:
        assert len(Cifar("cifar10", tmp_path, False)) == 2


def test_cifar_archives_that_are_damaged_anywhere(tmp_path):
    path = tar(tmp_path / "cifar-10-python.tar.gz", cifar_files(), "w:gz")
    whole, draws = path.read_bytes(), np.random.RandomState(0)
    damaged = [whole[: len(whole) // 2] + draws.bytes(len(whole) // 2), whole[:-4], whole[:20]]
    damaged.append(whole[:-8] + b"\0\0\0\0" + whole[-4:])  # the checksum behind everything
    for _ in range(30):
        at = draws.randint(10, len(whole))
        damaged.append(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz"):
            Cifar("cifar10", path, True)
    path.write_bytes(gzip.compress(b"no tar file"))
    with pytest.raises(UserError, match=r"download it again|does not hold"):
        Cifar("cifar10", path, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(labels=[0]), "images and 1 labels|2 images"),
        (lambda c: c.update(labels=[0, 77]), "below the 10 classes"),
        (lambda c: c.update(labels=[0, -1]), "below the 10 classes"),
        (lambda c: c.update(data=c["data"].astype(float)), "float64"),
        (lambda c: c.pop("data"), "is not the cifar10"),
    ],
)
def test_cifar_of_wrong_contents(tmp_path, change, message):
    for name, data in cifar_files().items():
        if name == "test_batch":
            content = pickle.loads(data)
            change(content)
            data = pickle.dumps(content, 2)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        Cifar("cifar10", tmp_path, False)


@pytest.mark.parametrize("order", ["rows", "channels first", "channels last", "list"])
def test_cifar_pixels_in_any_order(tmp_path, order):
    for name, data in cifar_files().items():
        content = pickle.loads(data)
        if "data" in content:
            pixels = content["data"].reshape(-1, 3, 32, 32)
            content["data"] = {
                "rows": content["data"],
                "channels first": pixels,
                "channels last": np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)),
                "list": list(content["data"]),
            }[order]
        (tmp_path / name).write_bytes(pickle.dumps(content, 4))
    pixels = Cifar("cifar10", tmp_path, True).pixels
    np.testing.assert_array_equal(pixels, PIXELS[:10].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def test_cifar_pixels_of_another_shape_are_refused(tmp_path):
    for name, data in cifar_files().items():
        content = pickle.loads(data)
        if "data" in content:
            content["data"] = content["data"].reshape(-1, 32, 3, 32)
        (tmp_path / name).write_bytes(pickle.dumps(content, 4))
    with pytest.raises(
        UserError, match=r"is not the cifar10 python archive \(pixels in the shape \[2, 32, 3, 32\]\)"
    ):
        Cifar("cifar10", tmp_path, True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "it is empty"),
        (lambda root: (root / "cifar-100-python").mkdir(), "it holds cifar100: set data.dataset to that"),
        (
            lambda root: (root / "x" / "cifar-10-batches-py").mkdir(parents=True),
            r"x has one: give that folder",
        ),
        (lambda root: (root / "cifar-10-batches-bin").mkdir(), "binary and MATLAB versions are not read"),
        (lambda root: (root / "cifar-10.tgz").touch(), r"it holds cifar-10\.tgz: give the archive itself"),
        (lambda root: (root / "train").mkdir(), "it holds train"),
    ],
)
def test_what_is_there_in_place_of_cifar(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(MissingFileError, match=message):
        Cifar("cifar10", tmp_path, True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is an empty file"),
        (b"<html>quota exceeded", "it is a web page"),
        (b"PK\3\4 zip", "it is a zip archive"),
    ],
)
def test_cifar_archives_that_are_something_else(tmp_path, data, message):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(data)
    with pytest.raises(UserError, match=rf"cifar-10-python\.tar\.gz cannot be unpacked \({message}"):
        Cifar("cifar10", tmp_path, True)


def test_cifar_archives_that_unpack_to_more_than_there_is_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("paddle_inline.data.cifar.MOST_BYTES", 1 << 20)
    path = tar(tmp_path / "cifar-10-python.tar.gz", {**cifar_files(), "test_batch": bytes(3 << 20)}, "w:gz")
    assert path.stat().st_size < 1 << 20
    with pytest.raises(
        UserError, match=r"cannot be unpacked \(cifar-10-batches-py/test_batch unpacks to 3 MiB\)"
    ):
        Cifar("cifar10", path, False)


def test_cifar_archives_with_two_files_of_a_name(tmp_path):
    """Which of them is meant is not known; what macOS adds has other names."""
    files = {**cifar_files(), **{f"._{name}": b"junk" for name in cifar_files()}}
    assert len(Cifar("cifar10", tar(tmp_path / "cifar-10-python.tar", files, "w"), True)) == 10
    path = tar(tmp_path / "cifar-10-python.tar", {**files, "old/test_batch": b"x"}, "w")
    with pytest.raises(UserError, match=r"holds both cifar-10-batches-py/test_batch and .*old/test_batch"):
        Cifar("cifar10", path, False)
