"""One reader of images, whatever their pixels are; and whatever a decoder throws is a bad image, by name."""

import io
import os
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageFile

from paddle_inline.data.loaders import BadImage, Samples
from paddle_inline.data.pictures import BACKGROUND, SUFFIXES, UnreadableImage, read_image, read_rgb
from paddle_inline.data.sources import open_source
from paddle_inline.data.transforms import eval_transform
from paddle_inline.utils.errors import FileAccessError, UserError
from tests.data.trees import picture, tree

TRANSFORM = eval_transform(8, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def stored(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return io.BytesIO(file.getvalue())


def pixels(image, form="PNG", **options):
    result = read_rgb(stored(image, form, **options))
    assert result.mode == "RGB"
    return np.asarray(result)


def test_16_bit_grey_is_scaled_from_its_range():
    values = np.linspace(0, 60000, 64 * 64).reshape(64, 64)
    for form in ("PNG", "TIFF"):
        read = pixels(Image.fromarray(values.astype(np.uint16)), form)
        np.testing.assert_allclose(read, (values / 257)[..., None].repeat(3, 2), atol=1)
        assert 115 < read.mean() < 118
    pgm = b"P5 2 1 65535\n" + np.array([0, 32896], ">u2").tobytes()
    assert np.asarray(read_rgb(io.BytesIO(pgm)))[0, :, 0].tolist() == [0, 128]


def test_floating_point_and_32_bits():
    values = np.array([[0, 0.5, 1]], np.float32)
    assert pixels(Image.fromarray(values), "TIFF")[0, :, 1].tolist() == [0, 128, 255]
    for bad in (values * 255, values - 1, values * np.nan):
        with pytest.raises(UnreadableImage, match="not from 0 to 1"):
            pixels(Image.fromarray(bad), "TIFF")
    with pytest.raises(UnreadableImage, match="32-bit whole numbers"):
        pixels(Image.fromarray(np.array([[1, 70000]], np.int32)), "TIFF")


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (3, 1), (10, 20, 30, 255))
    image.putpixel((1, 0), (10, 20, 30, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    for form in ("PNG", "TIFF"):
        read = pixels(image, form)
        assert read[0, 0].tolist() == [10, 20, 30] and tuple(read[0, 1]) == BACKGROUND == (255,) * 3
        np.testing.assert_allclose(read[0, 2], 127, atol=1)
    grey = Image.new("LA", (1, 1), (40, 0))
    assert tuple(pixels(grey)[0, 0]) == BACKGROUND
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.putpixel((1, 0), 1)
    for form in ("PNG", "GIF"):
        assert pixels(palette, form)[0].tolist() == [[1, 2, 3], [4, 5, 6]]
        assert pixels(palette, form, transparency=0)[0].tolist() == [[255, 255, 255], [4, 5, 6]]
    assert pixels(Image.new("RGB", (1, 1), (7, 8, 9)), transparency=(7, 8, 9))[0, 0].tolist() == [255] * 3


def test_other_kinds():
    assert pixels(Image.new("CMYK", (1, 1), (0, 0, 0, 0)), "TIFF")[0, 0].tolist() == [255, 255, 255]
    assert pixels(Image.new("1", (1, 1), 1))[0, 0].tolist() == [255, 255, 255]
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "lime")]
    for form in ("GIF", "TIFF", "PNG"):
        assert pixels(frames[0], form, save_all=True, append_images=frames[1:])[0, 0].tolist() == [255, 0, 0]


def bomb(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.new("1", (20000, 20000)).save(path, "PNG")


def test_a_bomb_is_a_bad_image_by_name(tmp_path):
    tree(tmp_path, "ab")
    bomb(tmp_path / "train" / "a" / "1.png")
    with pytest.raises(FileAccessError, match=r"1\.png cannot be read as an image: .*bomb"):
        read_image(tmp_path / "train" / "a" / "1.png")
    source = open_source("imagenet", str(tmp_path), train=True)
    with pytest.raises(BadImage, match=r"a/1\.png cannot be read .*bomb"):
        Samples(source, TRANSFORM).load((0, 1))
    assert Samples(source, TRANSFORM, on_bad_image="skip").load((0, 1))[1:] == (1, 1)


def test_a_truncated_image_is_read_as_far_as_it_goes(tmp_path, capsys):
    tree(tmp_path, "ab")
    path = tmp_path / "train" / "a" / "0.jpg"
    picture(3, (64, 64)).save(path)
    whole = np.asarray(read_image(path)).astype(int)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    source = open_source("imagenet", str(tmp_path), train=True)
    assert source.name(0) == str(path)
    with pytest.raises(BadImage, match=r"0\.jpg"):
        Samples(source, TRANSFORM).load((0, 0))
    seen = []
    transform = lambda image, draws: seen.append(np.asarray(image).astype(int)) or np.zeros((3, 8, 8))  # noqa: E731
    assert Samples(source, transform, on_bad_image="read").load((0, 0))[1:] == (0, 0)
    assert np.abs(seen[0][:8] - whole[:8]).max() < 8 and seen[0].shape == whole.shape
    assert "0.jpg is damaged" in capsys.readouterr().err and not ImageFile.LOAD_TRUNCATED_IMAGES
    path.write_bytes(b"nothing")
    with pytest.raises(BadImage, match=r"0\.jpg"):
        Samples(source, TRANSFORM, on_bad_image="read").load((0, 0))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_damaged_images_are_read_or_bad_images(form):
    """A second of damage a format: nothing but UnreadableImage comes out."""
    whole = stored(picture(1, (24, 20)), form).getvalue()
    draws = np.random.RandomState(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(150):
            data = bytearray(whole)
            for at in draws.randint(0, len(data), draws.randint(1, 12)):
                data[at] = draws.randint(256)
            try:
                assert read_rgb(io.BytesIO(bytes(data[: draws.randint(1, len(data) + 1)]))).mode == "RGB"
            except UnreadableImage as error:
                assert str(error)


def test_a_zip_file_damaged_anywhere(tmp_path):
    names = [f"{i}.png" for i in range(4)]
    with zipfile.ZipFile(tmp_path / "train.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i, name in enumerate(names):
            archive.writestr(name, stored(picture(i), "BMP").getvalue())
    (tmp_path / "train_map.txt").write_text("".join(f"{name}\t0\n" for name in names))
    whole, draws = (tmp_path / "train.zip").read_bytes(), np.random.RandomState(0)
    for _ in range(150):
        data = bytearray(whole)
        for at in draws.randint(0, len(data), 3):
            data[at] ^= draws.randint(1, 256)
        (tmp_path / "train.zip").write_bytes(data)
        try:
            samples = Samples(open_source("imagenet", str(tmp_path), train=True, zip_mode=True), TRANSFORM)
        except UserError as error:
            assert "train.zip" in str(error) or "train_map" in str(error)
            continue
        for i in range(4):
            try:
                samples.load((0, i))
            except BadImage as error:
                assert f"train.zip@/{i}.png" in str(error)


def test_a_tar_file_damaged_anywhere(tmp_path):
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        for i in range(3):
            for name, data in ((f"{i}.png", stored(picture(i)).getvalue()), (f"{i}.cls", b"0")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    whole, draws = (tmp_path / "train.tar").read_bytes(), np.random.RandomState(0)
    for _ in range(100):
        data = bytearray(whole)
        for at in draws.randint(0, 6 * 1024, 3):
            data[at] ^= draws.randint(1, 256)
        (tmp_path / "train.tar").write_bytes(data[: draws.choice([len(data), 1500, 3000])])
        try:
            samples = Samples(open_source("imagenet", str(tmp_path), train=True), TRANSFORM)
            for i in range(len(samples)):
                samples.load((0, i))
        except (BadImage, UserError) as error:
            assert "train.tar" in str(error)


def test_a_pipe_and_a_broken_link_are_no_images_to_wait_for(tmp_path):
    tree(tmp_path, "ab")
    os.mkfifo(tmp_path / "train" / "a" / "2.png")
    os.symlink(tmp_path / "none", tmp_path / "train" / "a" / "3.png")
    source = open_source("imagenet", str(tmp_path), train=True)
    assert source.labels == [0, 0, 0, 1, 1]
    with pytest.raises(BadImage, match=r"3\.png cannot be read"):
        Samples(source, TRANSFORM).load((0, 2))


def test_one_list_of_suffixes(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    for i, suffix in enumerate(SUFFIXES):
        picture().save(tmp_path / "train" / "a" / f"{i:02}{suffix.upper()}", "PNG")
    assert len(open_source("imagenet", str(tmp_path), train=True)) == len(SUFFIXES)
