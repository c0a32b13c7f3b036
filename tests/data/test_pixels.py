"""Every kind of pixels that image files have becomes the right RGB, or is refused by what it is."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paddle_inline.data.pictures import UnreadableImage, read_image, read_rgb
from paddle_inline.data.signatures import what_is
from paddle_inline.utils.errors import FileAccessError


def png(bits, colour, pixels, *chunks):
    """A PNG of one row, its pixels as bytes; `colour` is PNG's: 0 grey, 2 RGB, 3 palette, 4 grey with alpha."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    width = len(pixels) * 8 // (bits * samples)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0))
    body = b"".join(chunk(kind, data) for kind, data in chunks) + chunk(
        b"IDAT", zlib.compress(b"\0" + pixels)
    )
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def tiff(values, *, photometric=1, sample_format=1):
    """A grey TIFF of one row, of an array's type; photometric 0: zero is white."""
    data = values.tobytes()
    order = ">" if values.dtype.byteorder == ">" else "<"
    tags = [
        (256, 4, values.size),
        (257, 4, 1),
        (258, 3, 8 * values.itemsize),
        (259, 3, 1),
        (262, 3, photometric),
    ]
    tags += [(273, 4, 8), (277, 3, 1), (278, 4, 1), (279, 4, len(data)), (339, 3, sample_format)]
    data += b"\0" * (len(data) % 2)
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(order + "I", 8 + len(data))
    rows = [
        struct.pack(order + "HHI", tag, kind, 1)
        + (struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value))
        for tag, kind, value in tags
    ]
    return head + data + struct.pack(order + "H", len(rows)) + b"".join(rows) + b"\0" * 4


def first(data):
    """The first channel of the only row."""
    image = read_rgb(io.BytesIO(data))
    assert image.mode == "RGB"
    return np.asarray(image)[0, :, 0].tolist()


GREY = np.array([0, 0x8080, 0xFFFF], ">u2")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(16, 0, GREY.tobytes()), [0, 128, 255]),
        (png(16, 0, GREY.tobytes(), (b"tRNS", b"\x80\x80")), [0, 255, 255]),
        (png(8, 0, b"\0\x80\xff", (b"tRNS", b"\0\x80")), [0, 255, 255]),
        (png(1, 0, b"\xaa"), [255, 0] * 4),
        (png(1, 0, b"\xaa", (b"tRNS", b"\0\0")), [255] * 8),
        (png(4, 0, b"\x0f"), [0, 255]),
        (png(16, 2, GREY.repeat(3).tobytes()), [0, 128, 255]),
        # the transparent colour of 16 bits is compared with pixels that Pillow reads by their higher bytes
        (png(16, 2, GREY.repeat(3).tobytes(), (b"tRNS", b"\x80\x12" * 3)), [0, 255, 255]),
        (
            png(16, 2, np.array([0x1234, 0x3400], ">u2").repeat(3).tobytes(), (b"tRNS", b"\x12\x34" * 3)),
            [255, 52],
        ),
        (png(16, 4, np.array([0, 0xFFFF, 0, 0], ">u2").tobytes()), [0, 255]),
        (png(2, 3, b"\x1b", (b"PLTE", bytes(range(12))), (b"tRNS", b"\xff\0")), [0, 255, 6, 9]),
        (tiff(np.array([0, 32896, 65535], "<u2")), [0, 128, 255]),
        (tiff(np.array([0, 32896, 65535], "<u2"), photometric=0), [255, 127, 0]),
        (tiff(np.array([0, 32896, 65535], ">u2")), [0, 128, 255]),
        (tiff(np.array([0, 127, 255], "u1"), photometric=0), [255, 128, 0]),
        (tiff(np.array([0, 0.5, 1], "<f4"), sample_format=3), [0, 128, 255]),
        (tiff(np.array([0, 0.5, 1], "<f4"), photometric=0, sample_format=3), [255, 128, 0]),
    ],
)
def test_pixels(data, expected):
    assert first(data) == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tiff(np.array([-128, 0, 127], "i1"), sample_format=2), "signed 8-bit whole numbers"),
        (tiff(np.array([-5, 0], "<i2"), sample_format=2), "signed 16-bit whole numbers"),
        (tiff(np.array([5, 70000], "<u4")), "32-bit whole numbers"),
        (tiff(np.array([0, 2], "<f4"), sample_format=3), "from 0 to 2, not from 0 to 1"),
        (tiff(np.array([0, 1], "<f8"), sample_format=3), "a TIFF image .*floats of 16 or 64 bits"),
    ],
)
def test_pixels_of_unknown_range_are_refused(data, message):
    with pytest.raises(UnreadableImage, match=message):
        read_rgb(io.BytesIO(data))


TURNED = [
    *(None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM),
    *(
        Image.Transpose.TRANSPOSE,
        Image.Transpose.ROTATE_270,
        Image.Transpose.TRANSVERSE,
        Image.Transpose.ROTATE_90,
    ),
]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
def test_every_orientation_of_every_format(form):
    image = Image.new("RGB", (24, 16), (200, 0, 0))
    image.paste((0, 200, 0), (12, 0, 24, 16))
    image.paste((0, 0, 200), (0, 0, 8, 8))
    options = {"lossless": True} if form == "WEBP" else {"quality": 100} if form in ("JPEG", "MPO") else {}
    for number, turn in enumerate(TURNED, 1):
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x0112] = number
        image.save(file, form, exif=exif, **options)
        expected = np.asarray(image if turn is None else image.transpose(turn)).astype(int)
        read = np.asarray(read_rgb(io.BytesIO(file.getvalue())))
        assert read.shape == expected.shape and np.median(np.abs(read - expected)) < 8, (form, number)


def test_an_orientation_whose_exif_data_cannot_be_written_again(monkeypatch):
    """The image is turned without writing its EXIF data, which cameras and editors leave damaged."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(file, "JPEG", exif=exif)
    monkeypatch.setattr(Image.Exif, "tobytes", lambda *args, **options: 1 / 0)
    assert read_rgb(file).size == (4, 6)


SIGNATURES = [
    (b"", "an empty file"),
    (b"\0" * 600, "nothing but zero bytes"),
    (b"\n<!DOCTYPE html><html>quota", "a web page"),
    (b"<html><body>404", "a web page"),
    (b"<?xml version='1.0'?><Error>AccessDenied", "an XML file"),
    (b'<svg xmlns="x">', "an SVG drawing"),
    (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image"),
    (b"\0\0\0\x18ftypisom", "a video"),
    (b"%PDF-1.4", "a PDF"),
    (b"\x93NUMPY\x01\0", "an array of numpy"),
    (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "AppleDouble"),
    (b"\x1f\x8b\x08\0", "a gzip archive"),
    (b"PK\3\4....", "a zip archive"),
    (b'{"error": 403}', "JSON"),
    (b"Not Found", "text"),
    (b"\x89PNG\r\n\x1a\n" + b"x" * 50, "a PNG image that is damaged"),
    (b"\xff\xd8\xff" + b"x" * 50, "JPEG"),
    (b"GIF89a", "GIF"),
]


@pytest.mark.parametrize(("data", "name"), SIGNATURES, ids=[name for _, name in SIGNATURES])
def test_what_is_no_image_is_named_by_what_it_is(tmp_path, data, name):
    assert name in what_is(data[:512])
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(FileAccessError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path} cannot be read as an image: ") and "object at" not in message
    assert message.count(str(path)) == 1 and (name in message or "truncated" in message.lower())


def test_a_tiff_of_more_rows_than_are_stored():
    """Its height is damaged; Pillow would leave the other rows black."""
    whole = bytearray(tiff(np.array([1, 2, 3], "u1")))
    at = whole.index(struct.pack("<HHII", 257, 4, 1, 1)) + 8
    assert first(bytes(whole)) == [1, 2, 3]
    whole[at : at + 4] = struct.pack("<I", 5_000_000)
    with pytest.raises(UnreadableImage, match="cover 3 x 1 pixels of 3 x 5000000: it is damaged"):
        read_rgb(io.BytesIO(bytes(whole)))


def test_large_images_of_16_bits_need_little_memory(monkeypatch):
    """A table of 65,536 entries, no floating-point copies of the pixels."""
    image = Image.fromarray(np.arange(1 << 16, dtype=np.uint16).reshape(256, 256))
    file = io.BytesIO()
    image.save(file, "PNG")
    made, arange = [], np.arange
    monkeypatch.setattr(np, "arange", lambda *args: made.append(args) or arange(*args))
    read = np.asarray(read_rgb(io.BytesIO(file.getvalue())))[..., 0].ravel()
    assert made == [(1 << 16,)]
    np.testing.assert_array_equal(read, np.rint(arange(1 << 16) / 257))


def test_a_postscript_file_is_not_run(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(FileAccessError, match="PostScript drawing, which another program would have to run"):
        read_image(tmp_path / "a.jpg")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_any_grey_png_of_16_bits(data):
    """White where the transparent grey is, else the grey of 16 bits in 8."""
    values = data.draw(st.lists(st.integers(0, 65535), min_size=1, max_size=6))
    transparent = data.draw(st.sampled_from(values) | st.integers(0, 65535))
    row = np.array(values, ">u2").tobytes()
    expected = [255 if value == transparent else round(value / 257) for value in values]
    assert first(png(16, 0, row, (b"tRNS", struct.pack(">H", transparent)))) == expected
    white_is_zero = first(tiff(np.array(values, "<u2"), photometric=0))
    np.testing.assert_allclose(white_is_zero, [255 - value / 257 for value in values], atol=0.51)
