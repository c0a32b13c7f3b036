"""Images in files: what counts as one, how it is read, which ones a folder holds."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from paddle_inline.data.classes import class_names, read_class_names
from paddle_inline.data.folders import find_images, listing, subfolders, walk
from paddle_inline.data.imagenet import Folder
from paddle_inline.data.pictures import UnreadableImage, is_picture, read_image, read_rgb
from paddle_inline.utils.errors import FileAccessError, MissingFileError, UserError

RED, GREEN = (255, 0, 0), (0, 255, 0)


def camera(path, orientation, form="JPEG"):
    """An image of 60 x 40 pixels, its left half red, its right half green, as a camera held so stores it."""
    image = Image.new("RGB", (60, 40), RED)
    image.paste(GREEN, (30, 0, 60, 40))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, form, exif=exif, quality=95)
    return path


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_an_image_is_upright_in_training_and_prediction(tmp_path, form):
    """Orientation 6: the camera was turned to its left, so the image is turned a quarter to the right."""
    folder = tmp_path / "train" / "cat"
    folder.mkdir(parents=True)
    path = camera(folder / f"a.{form.lower()}", 6, form)
    for image in (read_image(path), Folder(tmp_path / "train")[0][0]):
        assert image.mode == "RGB" and image.size == (40, 60)
        top, bottom = image.getpixel((20, 10)), image.getpixel((20, 50))
        np.testing.assert_allclose(top, RED, atol=8)
        np.testing.assert_allclose(bottom, GREEN, atol=8)


@pytest.mark.parametrize(
    ("orientation", "left"), [(1, RED), (2, GREEN), (3, GREEN), (4, RED), (0, RED), (9, RED)]
)
def test_other_orientations(tmp_path, orientation, left):
    image = read_image(camera(tmp_path / "a.jpg", orientation))
    assert image.size == (60, 40)
    np.testing.assert_allclose(image.getpixel((10, 20)), left, atol=8)


def test_damaged_exif_data_leaves_the_image_as_it_is():
    file = io.BytesIO()
    Image.new("RGB", (6, 4), RED).save(file, "JPEG", exif=b"Exif\0\0" + b"no TIFF header at all")
    assert read_rgb(file).size == (6, 4)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16"])
def test_any_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png")
    Image.new(mode, (5, 4)).save(path)
    assert (read_image(path).mode, read_image(path).size) == ("RGB", (5, 4))


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"no image .*none\.png"):
        read_image(tmp_path / "none.png")
    whole = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 40, 3)).astype("u1")).save(whole, "PNG")
    for data in (b"", b"no image", whole.getvalue()[:1000]):
        (tmp_path / "bad.png").write_bytes(data)
        with pytest.raises(FileAccessError, match=r"bad\.png cannot be read as an image: "):
            read_image(tmp_path / "bad.png")
        with pytest.raises(UnreadableImage):
            read_rgb(io.BytesIO(data))


def test_what_counts_as_an_image():
    assert all(map(is_picture, ["a.jpg", "a.JPEG", "b.c.png", "a.webp", "a.gif", "a.pgm"]))
    assert not any(map(is_picture, ["a.txt", "jpg", "a.jpg.part", "a.npy", ""]))


@pytest.fixture
def tree(tmp_path):
    for name in ("b/2.png", "b/1.JPG", "a/x/3.png", "a/4.png", "5.gif", "notes.txt", "b/d.png/6.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_a_folder_is_walked_in_order(tree):
    assert listing(tree).files == ["5.gif"]
    assert listing(tree / "b").files == ["1.JPG", "2.png"]  # a folder called d.png is none
    every = ["5.gif", "a/4.png", "a/x/3.png", "b/1.JPG", "b/2.png", "b/d.png/6.png"]
    assert walk(tree).files == every
    assert subfolders(tree) == ["a", "b"]
    with pytest.raises(MissingFileError, match="no such folder"):
        walk(tree / "none")
    with pytest.raises(FileAccessError, match="cannot be listed"):
        subfolders(tree / "notes.txt")


def test_links_are_classes_and_images_and_are_followed_but_not_in_circles(tree):
    os.symlink(tree / "a", tree / "b" / "again")
    os.symlink(tree, tree / "b" / "loop")
    os.symlink(tree / "5.gif", tree / "b" / "link.gif")
    os.symlink(tree / "b", tree / "a" / "x" / "back")
    walked = walk(tree / "b")
    expected = ["1.JPG", "2.png", "again/4.png", "again/x/3.png", "d.png/6.png", "link.gif"]
    assert walked.files == expected
    assert sorted(walked.left_out.links) == ["again/x/back", "loop"]
    assert subfolders(tree / "b") == ["again", "d.png", "loop"]


def test_files_folders_and_patterns(tree):
    found = find_images([tree / "b", tree / "b" / "1.JPG", f"{tree}/a/*.png", tree / "notes.txt"])
    names = [path.relative_to(tree).as_posix() for path in found]
    assert names == ["b/1.JPG", "b/2.png", "b/d.png/6.png", "a/4.png", "notes.txt"]
    (tree / "empty").mkdir()
    for pattern in ("empty", "none", "*.png"):
        with pytest.raises(MissingFileError, match=r"folders are searched for \.bmp"):
            find_images([tree / pattern])


def test_class_names(tmp_path):
    path = tmp_path / "names"
    assert class_names(path, range(3), "list") == ("0", "1", "2")
    for text in ("cat\n\n dog \r\n", '["cat", "dog"]'):
        path.write_text(text)
        assert read_class_names(path) == class_names(path, range(2), "list") == ("cat", "dog")
    with pytest.raises(UserError, match="names 2 classes; list has class 2"):
        class_names(path, range(3), "list")
    for data, message in (
        (b"[1]", "as strings"),
        (b'["a"', "nor a JSON list"),
        (b"\xff", "line 1.*UTF-8"),
        (b"\xff\xfe", "names no class"),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match=message):
            read_class_names(path)
    with pytest.raises(MissingFileError, match="no file"):
        read_class_names(tmp_path / "none")
    with pytest.raises(FileAccessError, match="cannot be read"):
        read_class_names(tmp_path)
