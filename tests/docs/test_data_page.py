"""Every layout that docs/data.md shows is read, from files that are made as it shows them."""

import io
import re
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from paddle_inline.data.classes import match_classes
from paddle_inline.data.folders import is_system_name
from paddle_inline.data.pictures import SUFFIXES
from paddle_inline.data.sources import open_source
from paddle_inline.data.split import Split

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
LAYOUTS = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)


def image():
    file = io.BytesIO()
    Image.new("RGB", (4, 3)).save(file, "PNG")
    return file.getvalue()


def make(root, layout):
    """Write the files of a layout: images, lines of text, and archives of both."""
    files = {}
    for line in layout.splitlines():
        path, _, text = line.partition(" | ")
        files[path] = files.get(path, b"") + (f"{text}\n".encode() if text else image())
    for path, data in files.items():
        file, _, member = path.partition("@")
        target = root / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".zip"):
            with zipfile.ZipFile(target, "a") as archive:
                archive.writestr(member, data)
        elif file.endswith(".tar"):
            with tarfile.open(target, "a") as archive:
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        else:
            target.write_bytes(data)


@pytest.mark.parametrize("layout", LAYOUTS, ids=range(len(LAYOUTS)))
def test_a_layout_is_read(tmp_path, monkeypatch, layout):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make(tmp_path, layout)
    split = None if "DATA/val" in layout else Split(0.1, 0)
    train, val = (
        open_source("folder", str(tmp_path / "DATA"), train=part, zip_mode=".zip@" in layout, split=split)
        for part in (True, False)
    )
    if split is None:
        same = open_source("imagenet", str(tmp_path / "DATA"), train=True, zip_mode=".zip@" in layout)
        assert [same.name(i) for i in range(len(same))] == [train.name(i) for i in range(len(train))]
    val, notes = match_classes(val, train.classes, named=train.named)
    assert list(train.labels) == list(val.labels) == [0, 1] and not notes
    assert train.classes in (("cat", "dog"), ("n01", "n02"), ("0", "1"))
    assert train[1][0].size == val[0][0].size == (4, 3)


def test_there_are_six_layouts_and_all_suffixes():
    assert len(LAYOUTS) == 6
    assert all(f"`{suffix}`" in PAGE for suffix in SUFFIXES)
    names = (
        ".ipynb_checkpoints",
        "._0.jpg",
        "0.jpg~",
        "__MACOSX",
        "Thumbs.db",
        "@eaDir",
        "$RECYCLE.BIN",
        "lost+found",
    )
    assert all(f"`{name}`" in PAGE and is_system_name(name) for name in names)
