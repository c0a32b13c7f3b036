"""What a file that is no readable image or archive is, by its first bytes, in words for a message."""

from __future__ import annotations

HEAD = 512  # bytes that are looked at

_DAMAGED = "that is damaged, or of a kind that Pillow does not read"
_ARCHIVE = "archive"

# (where they stand, bytes, what they are the beginning of)
_MARKS = (
    (0, b"\xff\xd8\xff", f"a JPEG image {_DAMAGED}"),
    (0, b"\x89PNG", f"a PNG image {_DAMAGED}"),
    (0, b"GIF8", f"a GIF image {_DAMAGED}"),
    (0, b"II*\0", f"a TIFF image {_DAMAGED} (floats of 16 or 64 bits, colour in floats)"),
    (0, b"MM\0*", f"a TIFF image {_DAMAGED} (floats of 16 or 64 bits, colour in floats)"),
    (8, b"WEBP", f"a WebP image {_DAMAGED}"),
    (0, b"BM", f"a BMP image {_DAMAGED}"),
    (0, b"8BPS", f"a Photoshop image {_DAMAGED}"),
    (4, b"ftypavif", "an AVIF image, which this Pillow does not read: save it as JPEG or PNG"),
    (4, b"ftyphei", "a HEIC image, which Pillow does not read: save it as JPEG or PNG"),
    (4, b"ftypmif1", "a HEIC image, which Pillow does not read: save it as JPEG or PNG"),
    (4, b"ftyphevc", "a HEIC image, which Pillow does not read: save it as JPEG or PNG"),
    (4, b"JXL ", "a JPEG XL image, which Pillow does not read: save it as JPEG or PNG"),
    (0, b"\xff\x0a", "a JPEG XL image, which Pillow does not read: save it as JPEG or PNG"),
    (128, b"DICM", "a DICOM file: save its image as PNG"),
    (4, b"ftyp", "a video"),
    (8, b"AVI ", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "a PostScript drawing, which another program would have to run: save it as PNG"),
    (0, b"\x93NUMPY", "an array of numpy (.npy): save it as PNG"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\x80", "a pickle of Python, by the look of it"),
    (0, b"\0\x05\x16\x07", "what macOS keeps beside a file of that name (AppleDouble), not the file"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file: fetch it with `git lfs pull`"),
    (0, b"PK\3\4", f"a zip {_ARCHIVE}"),
    (0, b"\x1f\x8b", f"a gzip {_ARCHIVE}"),
    (0, b"BZh", f"a bzip2 {_ARCHIVE}"),
    (0, b"\xfd7zXZ\0", f"an xz {_ARCHIVE}"),
    (0, b"\x28\xb5\x2f\xfd", f"a zstandard {_ARCHIVE}"),
    (0, b"7z\xbc\xaf\x27\x1c", f"a 7z {_ARCHIVE}"),
    (0, b"Rar!", f"a RAR {_ARCHIVE}"),
    (257, b"ustar", f"a tar {_ARCHIVE}"),
)


def what_is(head: bytes) -> str:
    """Return what a file is that begins with these bytes, as "a web page ..."; "" where nothing says so.

    Args:
        head: its first HEAD bytes, all where it has fewer.
    """
    if not head:
        return "an empty file"
    if not head.strip(b"\0"):
        return "nothing but zero bytes, as an unfinished download or copy leaves them"
    for at, mark, name in _MARKS:
        if head[at : at + len(mark)] == mark:
            return name
    return _text(head)


def _text(head: bytes) -> str:
    start = head.replace(b"\xef\xbb\xbf", b"", 1).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<script")):
        return "a web page, not the file that was to be downloaded"
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return "an SVG drawing: save it as PNG"
    if start.startswith(b"<?xml"):
        return "an XML file, perhaps a server's answer in place of the file"
    try:
        head[: max(1, len(head) - 3)].decode("utf-8")
    except UnicodeDecodeError:
        return ""
    if b"\0" in head:
        return ""
    return "JSON" if start.startswith((b"{", b"[")) else "text"
