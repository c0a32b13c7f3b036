"""Images in tar files: what is read, in which order, and what is amiss."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from paddle_inline.data import shards
from paddle_inline.data.loaders import Loader, Samples
from paddle_inline.data.sampler import train_batches
from paddle_inline.data.shards import Shards
from paddle_inline.data.sources import open_source
from paddle_inline.data.transforms import eval_transform


def picture(value, form="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (value, 0, 255 - value)).save(file, form)
    return file.getvalue()


def write(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Three tar files of 7, 5 and 6 images; image i has the colour i and class i % 3."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    i = 0
    for shard, count in enumerate((7, 5, 6)):
        members = []
        for _ in range(count):
            pair = [(f"d/{i:04d}.png", picture(i)), (f"d/{i:04d}.cls", f"{i % 3}\n".encode())]
            members += [*pair[:: 1 if i % 2 else -1], (f"d/{i:04d}.json", b"{}")]
            i += 1
        write(tmp_path / "data" / "train" / f"{shard:06d}.tar", members)
    write(tmp_path / "data" / "val-0.tar", [("0.jpg", picture(9, "JPEG")), ("0.cls", b"2")])
    (tmp_path / "data" / "classes.txt").write_text("tench\ngreat white shark\nhen\n")
    return tmp_path / "data"


def test_every_image_its_label_and_the_names(root):
    source = open_source("imagenet", str(root), train=True)
    assert isinstance(source, Shards) and len(source) == 18
    assert source.classes == ("tench", "great white shark", "hen")
    for i in range(18):
        image, label = source[i]
        assert (image.size, image.getpixel((0, 0)), label) == ((4, 3), (i, 0, 255 - i), i % 3)
    assert source.name(7) == f"{root}/train/000001.tar@/d/0007.png"
    held_out = open_source("imagenet", str(root), train=False)
    assert len(held_out) == 1 and held_out[0][1] == 2 and held_out[0][0].size == (4, 3)
    (root / "classes.txt").unlink()
    assert open_source("imagenet", str(root), train=True).classes == ("0", "1", "2")


def test_the_list_is_made_once_and_anew_when_a_file_changes(root, monkeypatch):
    first = open_source("imagenet", str(root), train=True).items
    read = []
    monkeypatch.setattr(shards, "read_members", lambda path, _: read.append(path) or [("x.png", 0, 1, 0)])
    assert open_source("imagenet", str(root), train=True).items == first and read == []
    write(root / "train" / "000001.tar", [("a.png", picture(1)), ("a.cls", b"0")])
    assert len(open_source("imagenet", str(root), train=True)) == 3 and len(read) == 3


def test_an_epoch_reads_one_file_after_another(root, monkeypatch):
    source = open_source("imagenet", str(root), train=True)
    monkeypatch.setattr(shards, "WINDOW", 1)
    orders = [source.order(5, epoch) for epoch in range(6)]
    firsts = set()
    for order in orders:
        assert sorted(order) == list(range(18))
        files = [source.items[i][0] for i in order]
        assert sum(a != b for a, b in zip(files, files[1:])) == 2
        firsts.add(files[0])
    assert len(firsts) > 1  # the files themselves take turns
    monkeypatch.setattr(shards, "WINDOW", 6)
    mixed = source.order(5, 0)
    for start in range(0, 18, 6):  # the same images in each window, in another order
        assert sorted(mixed[start : start + 6]) == sorted(orders[0][start : start + 6])
    assert list(mixed) != list(orders[0])
    assert list(mixed) == list(source.order(5, 0))
    assert list(mixed) != list(source.order(6, 0)) and list(mixed) != list(source.order(5, 1))


def test_batches_by_rank_workers_and_after_a_stop(root):
    source = open_source("imagenet", str(root), train=True)
    samples = Samples(source, eval_transform(8, mean=(0.5,) * 3, std=(0.5,) * 3), seed=5)

    def batches(size, rank=0, world=1, skip=0):
        order = source.order(5, 2)
        return train_batches(18, size, seed=5, epoch=2, rank=rank, world=world, skip=skip, order=order)

    together = batches(6)
    apart = [batches(3, rank, 2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*apart)] == together and batches(6, skip=1) == together[1:]
    alone, three = (list(Loader(samples, together, num_workers=n)) for n in (0, 3))
    assert len(alone) == len(three) == 3
    for (a, b), (c, d) in zip(alone, three):
        np.testing.assert_array_equal(a.numpy(), c.numpy())
        np.testing.assert_array_equal(b.numpy(), d.numpy())
    assert [label for _, labels in alone for label in labels.tolist()] == [
        i % 3 for batch in together for _, i in batch
    ]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", b"x"), ("b.jpg", b"x")], "a.jpg has no .cls beside it"),
        ([("a.jpg", b"x"), ("b.cls", b"1")], "a.jpg has no .cls beside it"),
        ([("a.jpg", b"x")], "a.jpg has no .cls beside it"),
        ([("a.jpg", b"x"), ("a.cls", b"cat")], "a.cls holds b'cat', not a class number"),
        ([("a.txt", b"x")], "no image in it"),
        ([("a.jpg", b"x"), ("a.cls", b"3")], "names 3 classes; .*train/0.tar has class 3"),
    ],
)
def test_what_is_amiss_is_named(root, members, message):
    for path in (root / "train").iterdir():
        path.unlink()
    write(root / "train" / "0.tar", members)
    with pytest.raises(ValueError, match=message):
        open_source("imagenet", str(root), train=True)


def test_a_file_that_is_no_tar(root):
    (root / "train" / "000001.tar").write_bytes(b"\x1f\x8b" + b"0" * 600)
    with pytest.raises(ValueError, match=r"000001\.tar cannot be read as an uncompressed tar file"):
        open_source("imagenet", str(root), train=True)
