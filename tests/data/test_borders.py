"""What is drawn for an image, which image is whose, and both sides of every border of the data pipeline."""

import io
import math
import tarfile

import numpy as np
import pytest
from PIL import Image

from paddle_inline.data import loaders, sampler
from paddle_inline.data.cifar import Cifar
from paddle_inline.data.classes import class_names, match_classes
from paddle_inline.data.draws import Draws
from paddle_inline.data.folders import find_images, keep_index
from paddle_inline.data.loaders import BAD, BadImage, Loader, Samples
from paddle_inline.data.mixup import Mixup
from paddle_inline.data.pictures import BACKGROUND, read_rgb
from paddle_inline.data.shards import WINDOW, Shards
from paddle_inline.data.sources import open_source
from paddle_inline.data.transforms import (
    SMALL,
    CenterCrop,
    RandomErasing,
    RandomResizedCrop,
    RandomRotation,
    Resize,
    eval_transform,
    train_transform,
)
from paddle_inline.utils.errors import UserError

MEAN = STD = (0.5, 0.5, 0.5)


class Source:
    """Six images; some cannot be read."""

    def __init__(self, broken=()):
        self.broken = broken

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index in self.broken:
            raise OSError("broken")
        return Image.new("RGB", (4, 4), (40 * index, 0, 0)), 10 + index

    def name(self, index):
        return f"image {index}"


def drawn(image, draws):
    """Return the first draws of a transform, and of which image it is, as if they were pixels."""
    return np.float64([draws.py.random(), draws.np.rand(), image.getpixel((0, 0))[0] // 40])


@pytest.mark.parametrize("key", [(0, 0), (0, 3), (1, 3), (2, 3), (7, 5)])
@pytest.mark.parametrize("seed", [0, 9])
def test_what_is_drawn_for_an_image_follows_from_seed_epoch_and_image(key, seed):
    expected = Draws(seed, *key)
    found, label = Samples(Source(), drawn, seed=seed)[key]
    assert found.tolist() == [expected.py.random(), expected.np.rand(), key[1]] and label == 10 + key[1]


def test_no_two_images_epochs_and_seeds_draw_alike():
    keys = [(seed, epoch, image) for seed in (0, 1) for epoch in (0, 1, 2) for image in range(6)]
    assert len({Samples(Source(), drawn, seed=seed)[epoch, image][0][0] for seed, epoch, image in keys}) == 36


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_in_place_of_a_broken_one_has_that_one_s_draws(capfd, replace, workers):
    """Its own label where it is trained on, none where it is evaluated on; both are counted."""
    samples = Samples(Source(broken=(1, 2, 5)), drawn, seed=4, on_bad_image="skip", replace=replace)
    loader = Loader(samples, [[(3, 0), (3, 1)], [(3, 2), (3, 5)]], num_workers=workers)
    pixels, labels, counts = [], [], []
    for images, numbers in loader:
        pixels += images.numpy().tolist()
        labels += numbers.tolist()
        counts.append(loader.bad)
    shown = [0, 3, 3, 0]
    assert [one[2] for one in pixels] == shown and counts == [1, 3]
    assert [one[0] for one in pixels] == [Draws(4, 3, image).py.random() for image in (0, 1, 2, 5)]
    assert labels == ([10, 13, 13, 10] if replace else [10, BAD, BAD, BAD])
    list(loader)
    assert loader.bad == 3  # of this time alone


@pytest.mark.parametrize("way", ["fail", "skip", "read"])
def test_a_truncated_image_is_read_only_where_that_is_asked_for(tmp_path, capfd, way):
    picture = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg")
    (tmp_path / "a.jpg").write_bytes(file.getvalue()[:-500])

    class Pictures(Source):
        def __getitem__(self, index):
            return (read_rgb(tmp_path / "a.jpg") if index == 1 else Image.new("RGB", (1, 1))), 10 + index

    samples = Samples(Pictures(), lambda image, draws: np.float64(image.size), on_bad_image=way)
    if way == "fail":
        with pytest.raises(BadImage, match="image 1 cannot be read"):
            samples[0, 1]
        return
    size, label, bad = samples.load((0, 1))
    assert (size.tolist(), label, bad) == (([64, 64], 11, 0) if way == "read" else ([1, 1], 12, 1))
    said = "is damaged" if way == "read" else "cannot be read"
    assert f"warning: image 1 {said}" in capfd.readouterr().err


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_loader_has_no_more_workers_than_batches_and_memory_for_two_batches_each(monkeypatch, workers):
    assert Loader(Samples(Source(), drawn), [[(0, 1)]] * 3, num_workers=workers).num_workers == min(
        workers, 3
    )
    samples, batches = Samples(Source(), drawn), [[(0, 1)], [(0, 1), (0, 2)]]
    needed = 2 * workers * 2 * 3 * 8  # the longest batch, of three numbers an image
    for free, suffices in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(
            loaders.shutil, "disk_usage", lambda folder, free=free: type("U", (), {"free": free})
        )
        assert loaders.shared_memory_suffices(samples, batches, workers) == suffices


@pytest.mark.parametrize(("batch", "world", "accumulation"), [(4, 1, 1), (3, 2, 2)])
def test_one_step_s_images_are_enough_and_one_fewer_is_not(batch, world, accumulation):
    step = batch * world * accumulation
    for length, count in ((step, 1), (step + 1, 1), (2 * step - 1, 1), (2 * step, 2)):
        assert sampler.batches_per_epoch(length, batch, world, accumulation) == count * accumulation
    with pytest.raises(UserError, match=f"{step - 1} training images are fewer than one step takes"):
        sampler.batches_per_epoch(step - 1, batch, world, accumulation)


def test_each_rank_has_its_own_images():
    order = np.arange(24)[::-1]
    given = dict(seed=0, epoch=2, world=3, order=order)
    ranks = [sampler.train_batches(24, 4, rank=rank, **given) for rank in range(3)]
    assert [[index for _, index in batch] for rank in ranks for batch in rank] == [
        *(list(range(23, 19, -1)), list(range(11, 7, -1))),
        *(list(range(19, 15, -1)), list(range(7, 3, -1))),
        *(list(range(15, 11, -1)), list(range(3, -1, -1))),
    ]
    assert sampler.train_batches(24, 4, rank=1, skip=1, **given) == ranks[1][1:]


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize(
    "given", [dict(mixup=0.0), dict(cutmix=0.0), dict(), dict(mixup=0.0, cutmix_minmax=(0.2, 0.7))]
)
def test_a_target_has_the_share_of_the_pixels_that_are_its_image_s(mode, given):
    """Image 0 is 0 everywhere and image 1 is 1: the mean of what comes out is the share of the second."""
    import paddle

    mixup = Mixup(2, mode=mode, smoothing=0.0, **given)
    images = np.zeros((2, 1, 10, 14), "float32")
    images[1] = 1
    shares = []
    for seed in range(12):
        mixed, targets = mixup(
            paddle.to_tensor(images), paddle.to_tensor([0, 1]), np.random.RandomState(seed)
        )
        found = mixed.numpy().mean((1, 2, 3))
        np.testing.assert_allclose(targets.numpy(), np.stack([1 - found, found], 1), rtol=0, atol=1e-5)
        shares += found.tolist()
    assert len({round(share, 4) for share in shares}) > 8


@pytest.mark.parametrize(("smoothing", "classes"), [(0.0, 2), (0.1, 2), (0.1, 5), (0.3, 10)])
def test_smoothed_targets_are_spread_over_all_classes(smoothing, classes):
    import paddle

    (row,) = Mixup(classes, smoothing=smoothing).targets(paddle.to_tensor([1]), np.array([1.0])).numpy()
    expected = np.full(classes, smoothing / classes)
    expected[1] += 1 - smoothing
    np.testing.assert_allclose(row, expected, rtol=0, atol=1e-6)


def test_images_are_turned_to_either_side_and_by_no_more_than_asked():
    """A line from the middle to the right ends above or below."""
    image = Image.new("L", (101, 101))
    image.paste(255, (50, 50, 101, 51))
    angles = []
    for seed in range(200):
        rows = np.flatnonzero(np.asarray(RandomRotation(30)(image, Draws(seed)))[:, 90])
        angles.append(math.degrees(math.atan2(50 - rows.mean(), 40)))
    assert min(angles) == pytest.approx(-30, abs=1.5) and max(angles) == pytest.approx(30, abs=1.5)
    assert 70 < sum(angle > 0 for angle in angles) < 130


@pytest.mark.parametrize(
    ("size", "ratio", "expected"),
    [
        ((90, 10), (0.5, 2), (0, 35, 10, 20)),  # too wide: (top, left, height, width)
        ((10, 90), (0.5, 2), (35, 0, 20, 10)),  # too tall
        ((20, 10), (0.5, 2), (0, 0, 10, 20)),  # of an allowed shape: all of it
        ((10, 20), (0.5, 2), (0, 0, 20, 10)),
    ],
)
def test_where_no_box_fits_the_middle_is_taken(size, ratio, expected):
    assert RandomResizedCrop(8, scale=(9, 9), ratio=ratio).box(*size, Draws(0)) == expected


@pytest.mark.parametrize("side", [SMALL - 1, SMALL, SMALL + 1])
def test_images_above_32_pixels_are_cropped(side):
    evaluation = eval_transform(side, mean=MEAN, std=STD, crop_ratio=0.5)
    training = train_transform(side, mean=MEAN, std=STD)
    kinds = [type(step) for step in (*evaluation.steps, *training.steps)]
    assert (CenterCrop in kinds) == (RandomResizedCrop in kinds) == (side > 32)
    assert evaluation.steps[0].size == (2 * side if side > 32 else side)
    assert evaluation(Image.new("RGB", (70, 50)), None).shape == (3, side, side)


@pytest.mark.parametrize(("ratio", "before"), [(0.875, 256), (1, 224), (0.9, 248), (0.5, 448)])
def test_an_evaluation_resizes_so_that_the_crop_keeps_its_share(ratio, before):
    assert eval_transform(224, mean=MEAN, std=STD, crop_ratio=ratio).steps[0].size == before


def test_the_short_side_is_resized_or_both():
    for resize, size in (("short", (64, 40)), ("square", (40, 40))):
        step = eval_transform(40, mean=MEAN, std=STD, resize=resize, crop_ratio=1).steps[0]
        assert isinstance(step, Resize) and step(Image.new("RGB", (80, 50)), None).size == size


@pytest.mark.parametrize("p", [0.0, 0.2, 0.8, 1.0])
def test_so_many_images_are_erased(p):
    erased = sum(bool(RandomErasing(p).boxes(32, 32, Draws(seed))) for seed in range(300))
    assert abs(erased - 300 * p) < 40 and (0 < p < 1 or erased in (0, *range(285, 301)))


class Labelled:
    """Held-out images of these labels."""

    notes = ()

    def __init__(self, classes, labels, named=True):
        self.classes, self.labels, self.named = tuple(classes), labels, named

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return f"picture {index}", self.labels[index]

    def name(self, index):
        return f"{index}"


def test_labels_become_the_numbers_of_the_known_classes():
    source, notes = match_classes(Labelled("cab", [0, 1, 2, 0]), "abcd")
    assert [source[index] for index in range(4)] == [(f"picture {i}", n) for i, n in enumerate((2, 0, 1, 2))]
    assert source.labels == [2, 0, 1, 2] and notes == ["val has no image of d, which train has"]
    assert source.classes == tuple("abcd")


@pytest.mark.parametrize(
    ("own", "labels", "named", "known", "known_named", "fits"),
    [
        ("ab", [0, 1], True, "01", False, True),  # names here, as many numbers there
        ("ab", [0, 1], True, "012", False, False),  # whose names the three are is not known
        ("012", [0, 2], False, "abc", True, True),
        ("012", [0, 2], False, "ab", True, False),
        ("ab", [0, 1], True, "cd", True, False),
    ],
)
def test_labels_are_matched_by_number_only_where_that_is_sure(own, labels, named, known, known_named, fits):
    source = Labelled(own, labels, named)
    if not fits:
        with pytest.raises(UserError, match="which train does not know"):
            match_classes(source, known, named=known_named)
        return
    matched, notes = match_classes(source, known, named=known_named)
    assert matched.labels == labels and "matched by class number" in notes[0]


def test_a_file_of_names_has_enough_of_them(tmp_path):
    (tmp_path / "c.txt").write_text("a\nb\n")
    for labels in ([1], [0]):
        assert class_names(tmp_path / "c.txt", labels, "a list") == ("a", "b")
    with pytest.raises(UserError, match="names 2 classes; a list has class 2"):
        class_names(tmp_path / "c.txt", [0, 2], "a list")
    assert class_names(tmp_path / "none", [2], "a list") == ("0", "1", "2")


def test_an_image_that_is_named_twice_is_taken_once(tmp_path):
    for name in ("b.png", "a.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    found = find_images([tmp_path / "b.png", tmp_path, str(tmp_path / "*.png")])
    assert [path.name for path in found] == ["b.png", "a.png"]


def test_a_list_that_was_kept_is_made_anew_when_it_no_longer_holds(tmp_path):
    index, made = tmp_path / "kept" / "index.json", []

    def make(stamp):
        return lambda: made.append(stamp) or (stamp, [("a", stamp)])

    for stamp, count in ((1, 1), (1, 1), (2, 2), (2, 2), (1, 3)):
        assert keep_index(index, lambda kept, s=stamp: kept == s, make(stamp)) == (stamp, [("a", stamp)])
        assert len(made) == count
    index.write_text("damaged")
    assert keep_index(index, lambda kept: True, make(5)) == (5, [("a", 5)])
    assert keep_index(None, lambda kept: True, make(6))[0] == 6


def tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def png(shade):
    file = io.BytesIO()
    Image.new("RGB", (3, 3), (shade,) * 3).save(file, "png")
    return file.getvalue()


def test_an_image_in_a_tar_file_has_the_label_of_its_own_name(tmp_path):
    tar(tmp_path / "good.tar", [("b.png", png(7)), ("b.cls", b"1"), ("a.cls", b"0"), ("a.png", png(9))])
    source = Shards([tmp_path / "good.tar"], tmp_path / "none")
    assert [(source[i][0].getpixel((0, 0))[0], source[i][1]) for i in (0, 1)] == [(7, 1), (9, 0)]
    for members in (
        [("b.png", png(7)), ("a.cls", b"1"), ("a.png", png(9)), ("b.cls", b"0")],
        [("a.png", png(7)), ("b.png", png(9)), ("a.cls", b"0"), ("b.cls", b"0")],
        [("a.png", png(7))],
    ):
        tar(tmp_path / "bad.tar", members)
        with pytest.raises(UserError, match=r"bad\.tar: .\.png has no \.cls beside it"):
            Shards([tmp_path / "bad.tar"], tmp_path / "none")


def test_the_order_of_shards_is_another_in_every_epoch_and_the_same_again(tmp_path):
    for name in "ab":
        tar(
            tmp_path / f"{name}.tar",
            [(f"{i}.{kind}", b"0") for i in range(WINDOW // 512) for kind in ("png", "cls")],
        )
    source = Shards([tmp_path / "a.tar", tmp_path / "b.tar"], tmp_path / "none")
    orders = [source.order(seed, epoch).tolist() for seed, epoch in ((0, 0), (0, 1), (0, 2), (1, 0), (0, 0))]
    assert orders[0] == orders[4] and len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(16)) for order in orders)
    # within a file too: what two epochs have in the same file-by-file order is mixed differently
    parts = {(min(order[:8]) >= 8, tuple(order[:8])) for order in orders[:3]}
    assert len(parts) == 3


def test_only_what_the_camera_says_turns_an_image(tmp_path):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = 255
    for orientation, corner in ((None, (0, 0)), (1, (0, 0)), (3, (5, 3)), (6, (3, 0)), (8, (0, 5))):
        image, exif = Image.fromarray(pixels), Image.Exif()
        if orientation:
            exif[0x0112] = orientation
        image.save(tmp_path / "a.png", exif=exif)
        assert read_rgb(tmp_path / "a.png").getpixel(corner) == (255, 255, 255)


def test_transparent_pixels_are_white(tmp_path):
    assert BACKGROUND == (255, 255, 255)
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert read_rgb(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)


def batch(folder, name, labels, first=0):
    import pickle

    pixels = np.arange(first, first + len(labels) * 3072).reshape(-1, 3072) % 251
    content = {b"data": pixels.astype(np.uint8), b"labels": labels}
    (folder / name).write_bytes(pickle.dumps(content, 2))
    return pixels


def test_cifar_s_pixels_lie_in_planes_of_rows_and_its_labels_are_classes(tmp_path):
    import pickle

    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"a", b"b"]}, 2))
    for number in range(1, 6):
        batch(tmp_path, f"data_batch_{number}", [0, 1], first=number)
    pixels = batch(tmp_path, "test_batch", [1], first=100)
    train, test = (open_source("cifar10", tmp_path, train=part) for part in (True, False))
    assert (len(train), len(test), test[0][1]) == (10, 1, 1)
    for row, column in ((0, 0), (0, 1), (1, 0), (31, 31), (5, 17)):
        expected = tuple(int(pixels[0, plane * 1024 + row * 32 + column]) for plane in range(3))
        assert test[0][0].getpixel((column, row)) == expected
    for labels in ([2], [-1]):
        batch(tmp_path, "test_batch", labels)
        with pytest.raises(UserError, match="labels that are not all below the 2 classes"):
            Cifar("cifar10", tmp_path, train=False)
