"""Files of class names as people have them: encodings, tables, JSON and what else is about."""

import codecs
import json

import pytest

from paddle_inline.data.classes import read_class_names
from paddle_inline.utils.errors import UserError

CATS = "\u732b\n\u72d7\n"  # cat, dog
ZOO = ("tench", "goldfish")

READ = {
    "UTF-8": (CATS.encode(), ("\u732b", "\u72d7")),
    "UTF-8 with a mark": (codecs.BOM_UTF8 + CATS.encode(), ("\u732b", "\u72d7")),
    "UTF-16": (CATS.encode("utf-16"), ("\u732b", "\u72d7")),
    "UTF-16, big-endian": (codecs.BOM_UTF16_BE + CATS.encode("utf-16-be"), ("\u732b", "\u72d7")),
    "UTF-32": (CATS.encode("utf-32"), ("\u732b", "\u72d7")),
    "UTF-32, big-endian": (codecs.BOM_UTF32_BE + CATS.encode("utf-32-be"), ("\u732b", "\u72d7")),
    "files that were joined": (b"tench\n" + codecs.BOM_UTF8 + b"goldfish\n", ZOO),
    "Windows": (b"tench\r\ngoldfish\r\n", ZOO),
    "an old Mac": (b"tench\rgoldfish\r", ZOO),
    "French": ("caf\u00e9\nna\u00efve\n".encode(), ("caf\u00e9", "na\u00efve")),
    "number and name": (b"1 goldfish\n0 tench\n", ZOO),
    "number: name": (b"0: tench\n1: goldfish\n", ZOO),
    "number, tab, name": (b"0\ttench\n1\tgoldfish\n", ZOO),
    "a table with commas": (b"id,name\n0,tench\n1,goldfish\n", ZOO),
    "a table with semicolons": (b"id;name\r\n0;tench\r\n1;goldfish\r\n", ZOO),
    "a table with tabs": (b"id\tname\n0\ttench\n1\tgoldfish\n", ZOO),
    "a table, the name first": (b"name,id\ngoldfish,1\ntench,0\n", ZOO),
    "names with commas": (b'0,"tench, Tinca"\n1,"gold ""fish"""\n', ("tench, Tinca", 'gold "fish"')),
    "names with semicolons": (b"a; b\nc; d\n", ("a; b", "c; d")),
    "names with tabs": (b"a\tb\nc\td\n", ("a\tb", "c\td")),
    "names that begin with numbers": (b"7 up\ncola\n", ("7 up", "cola")),
    "names that are numbers": (b"0\n1\n2\n", ("0", "1", "2")),
    "a list of YAML": (b"- tench\n- goldfish\n", ZOO),
    "a dictionary of YAML": (b"0: tench\n1: goldfish\n", ZOO),
    "a dictionary of Python": (b"{0: 'tench',\n 1: \"goldfish\"}\n", ZOO),
    "a list of Python": (b"['tench', 'goldfish',]", ZOO),
    "JSON": (b'["tench", "goldfish"]', ZOO),
    "JSON with a mark": (codecs.BOM_UTF8 + b'["tench", "goldfish"]', ZOO),
    "JSON in UTF-16": (json.dumps(ZOO).encode("utf-16"), ZOO),
    "JSON by numbers": (b'{"1": "goldfish", "0": "tench"}', ZOO),
    "JSON by names": (b'{"goldfish": 1, "tench": 0}', ZOO),
    "JSON of ImageNet": (b'{"0": ["n01", "tench"], "1": ["n02", "goldfish"]}', ZOO),
    "JSON of a model": (b'{"id2label": {"0": "tench", "1": "goldfish"}}', ZOO),
    "a name as long as none": (b"a," + b"b" * 200_000 + b"\n", ("a," + "b" * 200_000,)),
}
REFUSED = {
    "GBK": (CATS.encode("gbk"), "line 2: .* is not UTF-8"),
    "Big5": ("\u8c93\n\u72d7".encode("big5"), "line 1: .* is not UTF-8"),
    "UTF-16 without its mark": ("tench\ngoldfish\n".encode("utf-16-le"), "line 1: a zero byte"),
    "half of UTF-16": (CATS.encode("utf-16")[:-1], "line [12]: .* is not UTF-8|cannot be read|is not UTF-8"),
    "nothing": (b"\n\n", "names no class"),
    "from 1": (b"1 tench\n2 goldfish\n", "'tench' the number 1 where 0 is next"),
    "a gap": (b'{"0": "tench", "2": "goldfish"}', "number 2 where 1 is next"),
    "a number twice": (b'{"0": "tench", "0": "goldfish"}', "has '0' twice"),
    "JSON cut short": (b'["tench", "goldfi', "neither class names, one a line, nor a JSON list"),
    "a call of Python": (b"[print('x')]", "neither class names"),
    "deep": (b"[" * 100_000, "neither class names"),
    "numbers": (b"[1, 2]", "must list the class names as strings"),
}


@pytest.mark.parametrize("case", READ)
def test_class_files_are_read(tmp_path, case):
    data, names = READ[case]
    (tmp_path / "c.txt").write_bytes(data)
    assert read_class_names(tmp_path / "c.txt") == names


@pytest.mark.parametrize("case", REFUSED)
def test_class_files_are_refused_by_name(tmp_path, case):
    data, message = REFUSED[case]
    (tmp_path / "c.txt").write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        read_class_names(tmp_path / "c.txt")
    assert str(tmp_path / "c.txt") in str(error.value)
