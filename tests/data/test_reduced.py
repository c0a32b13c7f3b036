"""JPEG decoded at a fraction of its size: the same boxes, pixels within a limit, and all else as ever."""

import io

import numpy as np
import pytest
from PIL import Image

from paddle_inline.data.classes import match_classes
from paddle_inline.data.draws import Draws
from paddle_inline.data.imagenet import Folder
from paddle_inline.data.loaders import BadImage, Samples
from paddle_inline.data.pictures import read_rgb
from paddle_inline.data.reduced import Cut, Reading
from paddle_inline.data.split import Part, Split
from paddle_inline.data.transforms import RandomResizedCrop, eval_transform, train_transform

SIZE = 64
MEAN_LIMIT, LARGEST = 1.0, 24  # grey levels of 255: of the mean over a picture's cuts, and of one pixel
HALF = dict(mean=(0.5,) * 3, std=(0.5,) * 3)
PLAIN = dict(HALF, auto_augment="none", color_jitter=0, reprob=0)


def picture(width, height, seed=0):
    """Smooth colours, edges and grain, as a photograph has them."""
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[0:height, 0:width] / height
    colours = np.stack([np.sin(9 * x + 3 * y * y) ** 2, np.cos(7 * x * y + 2 + seed) ** 2, (x + y) / 2.4], -1)
    edges = 12 * (((x * 9).astype(int) + (y * 9).astype(int)) % 2)[..., None]
    grain = rng.normal(0, 4, (height, width, 3))
    return Image.fromarray(np.clip(235 * colours + edges + grain, 0, 255).astype(np.uint8))


def stored(image, form="JPEG", **options):
    file = io.BytesIO()
    image.save(file, form, **({"quality": 90} if form in ("JPEG", "MPO") else {}), **options)
    return file.getvalue()


def both(data, step, seed=0, mode="RGB"):
    """Return (the cut of a fully decoded picture, that of one decoded at a fraction, the reading)."""
    full = step(read_rgb(io.BytesIO(data), mode), Draws(seed))
    draws = Draws(seed)
    reading = Reading(lambda width, height: step.cut(width, height, draws))
    image = read_rgb(io.BytesIO(data), mode, reading)
    cut = step(image, draws) if reading.cut is None else reading.cut.of(image, reading.denominator)
    return np.asarray(full).astype(int), np.asarray(cut).astype(int), reading


@pytest.mark.parametrize(
    ("box", "expected"), [(95, 1), (96, 2), (191, 2), (192, 4), (383, 4), (384, 8), (900, 8)]
)
def test_a_cut_has_to_stay_larger_than_its_result(box, expected):
    for sides in ((box, 900), (900, box)):
        assert Cut((7, 3, 7 + sides[0], 3 + sides[1]), (32, 32), Image.BICUBIC).denominator() == expected


@pytest.mark.parametrize("shape", [(600, 400), (601, 403), (405, 1200)])
def test_pixels_stay_within_the_limit_at_every_fraction(shape):
    """docs/data.md has the limit, of cuts of photographs' size."""
    data, seen, means, step = stored(picture(*shape)), set(), [], RandomResizedCrop(SIZE)
    for seed in range(30):
        full, cut, reading = both(data, step, seed)
        seen.add(reading.denominator)
        if reading.denominator == 1:
            np.testing.assert_array_equal(full, cut)
        else:
            means.append(np.abs(full - cut).mean())
            assert np.abs(full - cut).max() <= LARGEST
        assert abs((full - cut).mean()) < 0.4  # nothing is moved, lighter or darker
    assert {2, 4} <= seen and np.mean(means) <= MEAN_LIMIT


def test_the_limit_notices_a_box_that_lies_beside():
    data, step = stored(picture(600, 400)), RandomResizedCrop(SIZE, scale=(0.5, 1))
    full, _, reading = both(data, step)
    assert reading.denominator > 1
    left, top, right, bottom = reading.cut.box
    beside = Cut((left + 8, top, right + 8, bottom), reading.cut.size, reading.cut.resample)
    image = read_rgb(io.BytesIO(data), "RGB", Reading(lambda width, height: reading.cut))
    wrong = np.asarray(beside.of(image, reading.denominator)).astype(int)
    assert np.abs(full - wrong).mean() > 2 * MEAN_LIMIT


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize(("width", "height"), [(640, 480), (642, 486)])
def test_turned_pictures_are_cut_at_the_same_place(number, width, height):
    """Where a side is no multiple of the fraction, a smaller one is taken: blocks at an edge would move the others."""
    exif = Image.Exif()
    exif[0x0112] = number
    data = stored(picture(width, height), exif=exif)
    for seed in range(4):
        full, cut, reading = both(data, RandomResizedCrop(SIZE, scale=(0.6, 1)), seed)
        assert full.shape == cut.shape and np.abs(full - cut).mean() <= MEAN_LIMIT
        assert reading.denominator == (4 if number == 1 or width == 640 else 2)


GREY = picture(640, 480).convert("L")
OTHERS = {
    "PNG": stored(picture(640, 480), "PNG"),
    "WEBP": stored(picture(640, 480), "WEBP"),
    "16 bits": stored(Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257), "PNG"),
    "palette": stored(picture(640, 480).convert("P"), "GIF"),
    "small": stored(picture(120, 90)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_reduced_keeps_its_bits(name):
    for seed in range(3):
        full, cut, reading = both(OTHERS[name], RandomResizedCrop(SIZE), seed)
        np.testing.assert_array_equal(full, cut)
        assert reading.denominator == 1


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize(
    "image", [GREY, GREY.convert("CMYK"), picture(640, 480)], ids=["grey", "CMYK", "colour"]
)
def test_grey_and_cmyk_are_reduced_too(image, mode):
    full, cut, reading = both(stored(image), RandomResizedCrop(SIZE, scale=(0.6, 1)), 1, mode)
    assert reading.denominator == 4 and np.abs(full - cut).mean() <= MEAN_LIMIT


@pytest.fixture
def folder(tmp_path):
    for i, (width, height) in enumerate([(640, 480), (500, 700), (80, 60), (640, 480)]):
        place = tmp_path / "train" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.jpg").write_bytes(stored(picture(width, height, i)))
    return tmp_path / "train"


def test_draws_are_the_same_with_and_without(folder):
    """Flips, RandAugment and boxes to be erased follow the same draws; a small picture keeps its bits."""
    source, transform = Folder(folder), train_transform(SIZE, **HALF, scale=(0.5, 1), reprob=1.0)
    full, less = (Samples(source, transform, seed=2, reduced_decoding=on) for on in (False, True))
    for index in range(4):
        (a, *_), (b, *_) = full.load_pixels((5, index)), less.load_pixels((5, index))
        np.testing.assert_array_equal(a.places, b.places)
        np.testing.assert_array_equal(a.filling, b.filling)
        small = source.name(index).endswith("2.jpg")
        assert np.array_equal(a.values, b.values) == small
    plain = train_transform(SIZE, **PLAIN, scale=(0.5, 1))
    full, less = (Samples(source, plain, seed=2, reduced_decoding=on) for on in (False, True))
    for index in range(4):
        assert np.abs(full[5, index][0] - less[5, index][0]).mean() * 127.5 <= MEAN_LIMIT


def test_every_source_of_files_can(folder):
    source = Folder(folder)
    relabelled, _ = match_classes(source, ("b", "a"))
    part = Part(source, [0, 1, 2, 3], Split(0.5, 0), [])
    transform = train_transform(SIZE, **PLAIN)
    expected = Samples(source, transform, reduced_decoding=True)
    for wrapped in (relabelled, part):
        samples = Samples(wrapped, transform, reduced_decoding=True)
        for index in range(4):
            np.testing.assert_array_equal(samples[0, index][0], expected[0, index][0])
            label = expected[0, index][1]
            assert samples[0, index][1] == (1 - label if wrapped is relabelled else label)
    in_full = Samples(relabelled, transform)
    assert not np.array_equal(in_full[0, 0][0], expected[0, 0][0])


def test_evaluation_keeps_its_bits_unless_it_is_asked_for(folder):
    source = Folder(folder)
    for options in ({}, {"resize": "short"}, {"crop": False}):
        transform = eval_transform(SIZE, **HALF, **options)
        plain, less = Samples(source, transform), Samples(source, transform, reduced_decoding=True)
        for index in range(4):
            expected = transform(source[index][0], None)
            np.testing.assert_array_equal(plain[0, index][0], expected)
            error = np.abs(less[0, index][0] - expected).mean() * 127.5
            assert error <= MEAN_LIMIT and (error == 0) == source.name(index).endswith("2.jpg")


@pytest.mark.parametrize("reduced", [False, True])
def test_a_truncated_picture_is_bad_as_ever(folder, capfd, reduced):
    path = folder / "a" / "0.jpg"
    path.write_bytes(path.read_bytes()[:-4000])
    source, transform = Folder(folder), train_transform(SIZE, **PLAIN)
    with pytest.raises(BadImage, match=r"0\.jpg cannot be read \(image file is truncated"):
        Samples(source, transform, reduced_decoding=reduced)[0, 0]
    skipped = Samples(source, transform, on_bad_image="skip", reduced_decoding=reduced)
    assert skipped.load((0, 0))[2] == 1 and "skipped" in capfd.readouterr().err
    as_far = Samples(source, transform, on_bad_image="read", reduced_decoding=reduced)
    expected = Samples(source, transform, on_bad_image="read")
    np.testing.assert_array_equal(as_far[0, 0][0], expected[0, 0][0])
    assert "read as far as it goes" in capfd.readouterr().err


def test_a_picture_in_place_of_a_broken_one_has_that_one_s_draws(folder, capfd):
    (folder / "a" / "0.jpg").write_bytes(b"\xff\xd8\xff")
    transform = train_transform(SIZE, **PLAIN)
    samples = [
        Samples(Folder(folder), transform, on_bad_image="skip", reduced_decoding=on) for on in (True, False)
    ]
    less, full = (each[3, 0][0] for each in samples)
    assert np.abs(less - full).mean() * 127.5 <= MEAN_LIMIT
