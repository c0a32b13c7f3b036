"""Pictures in grey, RGB and RGBA, and sizes that are not square: what the reader and the transforms make of them."""

import io

import numpy as np
import pytest
from PIL import Image

from paddle_inline.data import randaugment, transforms
from paddle_inline.data.draws import Draws
from paddle_inline.data.pictures import picture_mode, read_rgb
from paddle_inline.utils.errors import UserError

HALF = {1: (0.5,), 3: (0.5, 0.5, 0.5), 4: (0.5, 0.5, 0.5, 0.5)}


def stored(image, form="PNG"):
    file = io.BytesIO()
    image.save(file, form)
    file.seek(0)
    return file


def of(pixels, mode=None):
    return Image.fromarray(np.asarray(pixels), mode) if mode else Image.fromarray(np.asarray(pixels))


GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


@pytest.mark.parametrize("kind", ["L", "1", "I;16", "RGB", "LA", "P"])
def test_a_grey_picture_is_read_as_it_is_whatever_its_file(kind):
    expected = GREY
    if kind == "I;16":
        image = of(GREY.astype(np.uint16) * 257)
    elif kind == "1":
        image, expected = of(GREY > 100), np.where(GREY > 100, 255, 0)
    else:
        image = of(GREY).convert(kind)
    found = read_rgb(stored(image), "L")
    assert found.mode == "L"
    np.testing.assert_array_equal(np.asarray(found), expected)


def test_a_colour_picture_is_read_in_grey_by_its_luma():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]]], np.uint8)
    found = np.asarray(read_rgb(stored(of(colours)), "L"))
    assert found.tolist() == [[76, 150, 29, 18]]  # 0.299, 0.587 and 0.114


def test_four_channels_are_the_colours_as_they_are_and_alpha():
    pixels = np.random.RandomState(0).randint(0, 256, (5, 6, 4)).astype(np.uint8)
    found = np.asarray(read_rgb(stored(of(pixels)), "RGBA"))
    np.testing.assert_array_equal(found, pixels)
    opaque = np.asarray(read_rgb(stored(of(pixels[..., :3])), "RGBA"))
    np.testing.assert_array_equal(opaque, np.dstack([pixels[..., :3], np.full((5, 6), 255)]))
    grey = np.asarray(read_rgb(stored(of(np.dstack([pixels[..., 0], pixels[..., 3]]), "LA")), "RGBA"))
    np.testing.assert_array_equal(grey, pixels[..., [0, 0, 0, 3]])


@pytest.mark.parametrize("channels", [0, 2, 5, 13])
def test_other_numbers_of_channels_are_refused(channels):
    with pytest.raises(
        UserError, match=rf"in_chans is {channels}; pictures have 1 channel \(grey\), 3 \(RGB\) or 4"
    ):
        picture_mode(channels)
    with pytest.raises(UserError, match=f"in_chans is {channels}"):
        transforms.eval_transform(8, mean=[0.5] * channels, std=[0.5] * channels)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(32, 20), (40, 96), (64, 33)])
def test_an_evaluation_makes_images_of_the_size_and_channels(photo, channels, size):
    for options in ({}, {"crop": False}, {"resize": "short", "crop_ratio": 0.9}):
        transform = transforms.eval_transform(size, mean=HALF[channels], std=HALF[channels], **options)
        assert transform(photo, None).shape == (channels, *size)
    whole = transforms.eval_transform(size, mean=HALF[channels], std=HALF[channels], crop=False)
    image = photo.convert(picture_mode(channels)).resize(size[::-1], Image.BICUBIC)
    expected = (np.asarray(image, np.float32).reshape(*size, channels).transpose(2, 0, 1) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(whole(photo, None), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(48, 96), (96, 48), (64, 64), (40, 33), (192, 320)])
@pytest.mark.parametrize("resize, timm_s", [("square", "squash"), ("short", "center")])
def test_an_evaluation_equals_timm_s(timm_data, photo, size, resize, timm_s):
    reference = timm_data.create_transform(
        (3, *size), mean=HALF[3], std=HALF[3], crop_pct=0.875, crop_mode=timm_s, interpolation="bicubic"
    )
    ours = transforms.eval_transform(size, mean=HALF[3], std=HALF[3], resize=resize)
    found, expected = ours(photo, None), reference(photo).numpy()
    assert found.shape == expected.shape == (3, *size)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(24, 32), (40, 96), 48])
def test_training_makes_images_of_the_size_and_channels(photo, channels, size):
    for policy in ("rand-m9-n4-p1-inc1", "none"):
        transform = transforms.train_transform(
            size, mean=HALF[channels], std=HALF[channels], auto_augment=policy, rotation=10, reprob=1
        )
        for seed in range(8):
            pixels = transform(photo.convert("RGBA"), Draws(seed))
            sides = (size, size) if isinstance(size, int) else size
            assert pixels.shape == (channels, *sides) and pixels.dtype == np.float32
            assert np.isfinite(pixels).all()


@pytest.mark.parametrize("name", [*randaugment.PLAIN, *randaugment.LEVELLED])
@pytest.mark.parametrize("mode, fill", [("L", (124,)), ("RGBA", (124, 116, 104, 90))])
def test_every_operation_takes_grey_and_alpha(photo, name, mode, fill):
    image = photo.convert(mode)
    if mode == "RGBA":
        image.putalpha(photo.convert("L"))
    augment = randaugment.rand_augment("rand-m7-p1", fill)
    found = augment.apply(name, image, Draws(3))
    assert (found.mode, found.size) == (mode, image.size)
    if mode == "RGBA" and not name.startswith(randaugment.MOVES):
        np.testing.assert_array_equal(np.asarray(found)[..., 3], np.asarray(image)[..., 3])
        colours = augment.apply(name, image.convert("RGB"), Draws(3))
        np.testing.assert_array_equal(np.asarray(found)[..., :3], np.asarray(colours))
    if mode == "L" and not name.startswith(("Color", "Desaturate")):
        alike = Image.merge("RGB", [image] * 3)
        colours = randaugment.rand_augment("rand-m7-p1", fill * 3).apply(name, alike, Draws(3))
        np.testing.assert_array_equal(np.asarray(found), np.asarray(colours)[..., 0])
