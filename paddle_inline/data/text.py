"""Text files that a user gives: lists of images, class names."""

from __future__ import annotations

import codecs
import re
import unicodedata
from pathlib import Path

from ..utils.errors import FileAccessError, MissingFileError, UserError

WAY_OUT = "save it as UTF-8 (iconv -f GBK -t UTF-8, or an editor's `save with encoding`)"


def read_text(path: str | Path) -> str:
    r"""Read a text file in UTF-8, or in UTF-16 with a byte order mark; all line ends become \n.

    Raises:
        MissingFileError: there is no such file.
        FileAccessError: it cannot be read.
        UserError: naming the line that is in another encoding, or may as well be.
    """
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
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode(path: str | Path, data: bytes) -> str:
    if data.startswith(codecs.BOM_UTF8):
        return data[3:].decode("utf-8")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    if b"\0" in data:
        number = 1 + data[: data.index(b"\0")].count(b"\n")
        raise UserError(
            f"{path}, line {number}: a zero byte: this is no text, or UTF-16 without its mark; {WAY_OUT}"
        )
    text = data.decode("utf-8")
    if not text.isascii():
        _refuse_chance(path, text)
    return text


def _refuse_chance(path: str | Path, text: str) -> None:
    """Refuse text whose GBK bytes are UTF-8 by chance, which would be read as other letters.

    Such bytes give words of letters that no language mixes; as GBK they are common Chinese characters.
    """
    for number, line in enumerate(text.split("\n"), 1):
        for word in re.findall(r"[^\x00-\x7f]+|[^\W\d_]*[^\x00-\x7f]+[^\W\d_]*", line):
            if not _is_odd(word):
                continue
            try:
                chinese = re.sub(r"[\x00-\x7f]", "", word).encode("utf-8").decode("gb2312")
            except UnicodeDecodeError:
                continue
            raise UserError(
                f"{path}, line {number}: {word!r} is {chinese!r} if the file is in GBK; {WAY_OUT}, or "
                "with a byte order mark (utf-8-sig) if it is UTF-8 already"
            )


def _is_odd(word: str) -> bool:
    """Return whether a word has letters of several scripts, or of none that is written."""
    scripts = {_script(letter) for letter in word}
    return len(scripts) > 1 or "odd" in scripts


def _script(letter: str) -> str:
    if letter.isascii():
        return "LATIN"
    name = unicodedata.name(letter, "")
    if 0x0180 <= ord(letter) < 0x0370 or not name:  # rare Latin, phonetic letters, accents by themselves
        return "odd"
    if not letter.isalpha():
        return "LATIN"  # signs stand among letters of any script
    return name.split()[0]
