"""Text files that a user gives: lists of images, class names."""

from __future__ import annotations

import codecs
import re
import unicodedata
from pathlib import Path

from ..utils.errors import FileAccessError, MissingFileError, UserError
from ..utils.paths import expand

BYTE_ORDER_MARK = "\ufeff"  # as a character it cannot be seen
WAY_OUT = "save it as UTF-8 (iconv -f GBK -t UTF-8, or an editor's `save with encoding`)"

SCRIPTS = ("LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "HEBREW", "ARABIC")  # among characters of two bytes


def read_text(path: str | Path) -> str:
    r"""Read a text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark; all line ends become \n.

    Raises:
        MissingFileError: there is no such file.
        FileAccessError: it cannot be read.
        UserError: naming the line that is in another encoding, or may as well be.
    """
    path = expand(path)
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise MissingFileError(f"no file {path}") from None
    except OSError as error:
        raise FileAccessError(f"{path} cannot be read: {error.strerror}") from None
    try:
        text = _decode(path, data)
    except UnicodeDecodeError as error:
        before = data[: error.start]
        number = 1 + before.count(b"\n") if error.encoding == "utf-8" else 1 + before.count(b"\n\0")
        shown = data[before.rfind(b"\n") + 1 :].split(b"\n")[0][:60]
        raise UserError(
            f"{path}, line {number}: {shown!r} is not UTF-8 ({error.reason}), perhaps GBK: {WAY_OUT}"
        ) from None
    text = text.replace(BYTE_ORDER_MARK, "")  # of files that were joined
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode(path: str | Path, data: bytes) -> str:
    if data.startswith(codecs.BOM_UTF8):
        return data[3:].decode("utf-8")
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # whose first half is that of UTF-16
        return data.decode("utf-32")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    if b"\0" in data:
        number = 1 + data[: data.index(b"\0")].count(b"\n")
        raise UserError(
            f"{path}, line {number}: a zero byte: this is no text, or UTF-16 without its mark; {WAY_OUT}"
        )
    text = data.decode("utf-8")
    if not text.isascii() and _decodes(data, "gb18030"):
        _refuse_chance(path, text)
    return text


def _refuse_chance(path: str | Path, text: str) -> None:
    """Refuse text whose GBK bytes are UTF-8 by chance, which would be read as other letters.

    Such bytes give words that no language has; as GBK they are common Chinese characters.
    """
    for number, line in enumerate(text.split("\n"), 1):
        for word in re.findall(r"[A-Za-z0-9\x80-\U0010ffff]+", line):
            strange = re.sub(r"[\x00-\x7f]", "", word)
            if not strange or not _is_odd(word, strange) or not _decodes(strange.encode(), "gb2312"):
                continue
            raise UserError(
                f"{path}, line {number}: {word!r} has {strange.encode().decode('gb2312')!r} if the file is in GBK; "
                f"{WAY_OUT}, or with a byte order mark (utf-8-sig) if it is UTF-8 already"
            )


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _is_odd(word: str, strange: str) -> bool:
    """Return whether a word mixes scripts, or is made of nothing but accented letters and signs."""
    if any(ord(letter) > 0x07FF for letter in strange):  # three bytes and more: no chance
        return False
    scripts = {_script(letter) for letter in strange} - {""}
    if word == strange:
        return scripts <= {"LATIN"} or len(scripts) > 1 or "odd" in scripts
    if re.search("[A-Za-z]", word):
        scripts.add("LATIN")
    return len(scripts) > 1 or "odd" in scripts


def _script(letter: str) -> str:
    """Return a letter's script; "odd" for rare Latin, phonetic letters and accents by themselves, "" for signs."""
    if 0x0180 <= ord(letter) < 0x0370:
        return "odd"
    first = unicodedata.name(letter, "odd").split()[0]
    return first if first in SCRIPTS else "" if first != "odd" else "odd"
