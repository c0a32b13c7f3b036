"""The names of classes, class 0 first, and how the classes of two data sets are matched by them.

(Above 300 lines: how names are read, how they are matched and what is said of a difference share one vocabulary.)
"""

from __future__ import annotations

import ast
import csv
import json
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.errors import UserError, joined, short
from .reduced import Reading, read_from
from .text import read_text

if TYPE_CHECKING:
    from PIL import Image

    from .sources import Source


LONGEST_PYTHON = 4 << 20  # bytes of class names as Python writes them
MOST_CLASSES = 1_000_000  # of a data set; a larger label is a mistake
RULE_OF_NUMBERS = f"a whole number from 0, below {MOST_CLASSES:,}; the classes' names stand in classes.txt"


def numbered_classes(count: int) -> tuple[str, ...]:
    """Return the names of classes that have none: their numbers."""
    return tuple(map(str, range(count)))


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Read class names from a text or JSON file.

    A text file has one name a line, or on every line the class number and the name (`0 tench`, or with a comma,
    semicolon or tab, then with a head line or not); empty lines do not count. JSON, or Python's literals, have a list
    of names, {"0": "tench"}, {"0": ["n01440764", "tench"]}, {"tench": 0}, or a model's settings with such an
    `id2label`.

    Raises:
        MissingFileError, FileAccessError: there is no such file, or it cannot be read.
        UserError: it is in another encoding, or does not name every class once.
    """
    text = read_text(path)
    if text.lstrip()[:1] in ("[", "{"):
        try:
            names = _of_json(path, _parsed(path, text))
        except (ValueError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{path} holds neither class names, one a line, nor a JSON list: {error}"
            ) from None
    else:
        names = _of_lines(path, [line.strip() for line in text.split("\n") if line.strip()])
    if not names:
        raise UserError(f"{path} names no class; it has one name a line, in UTF-8")
    return names


def _parsed(path: str | Path, text: str) -> Any:
    """Return what a text of JSON says, or of Python, in which {0: 'tench', ...} of ImageNet is often kept."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
            raise UserError(f"{path} has {short(twice)!r} twice")
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        try:
            found = ast.literal_eval(text.strip()) if len(text) < LONGEST_PYTHON else None
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            found = None
        if not isinstance(found, (dict, list)):
            raise error from None
        return {str(key): name for key, name in found.items()} if isinstance(found, dict) else found


def _of_json(path: str | Path, content: Any) -> tuple[str, ...]:
    if isinstance(content, dict):
        content = content.get("id2label", content)
    if isinstance(content, dict):
        numbers = content.values()
        if numbers and all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
            pairs = [(number, name) for name, number in content.items()]
        elif all(key.isascii() and key.isdecimal() for key in content):
            pairs = [(int(key), name) for key, name in content.items()]
        else:
            raise UserError(f"{path} must list the class names as strings, or by their numbers from 0")
        return _in_order(path, [(number, _last(path, name)) for number, name in pairs])
    return tuple(_last(path, name) for name in content)


def _last(path: str | Path, name: Any) -> str:
    """Return a name, or the readable one of [identifier, name]."""
    if isinstance(name, list) and name:
        name = name[-1]
    if not isinstance(name, str):
        raise UserError(f"{path} must list the class names as strings; {short(name)} is none")
    return name


def _in_order(path: str | Path, pairs: list[tuple[int, str]]) -> tuple[str, ...]:
    """Return the names of (number, name), sorted by numbers which must be 0, 1, 2 ..."""
    pairs = sorted(pairs)
    for expected, (number, name) in enumerate(pairs):
        if number != expected:
            raise UserError(
                f"{path} gives {name!r} the number {number} where {expected} is next: class numbers start at 0, "
                "and each occurs once (where the numbers belong to the names, give a JSON list)"
            )
    return tuple(name for _, name in pairs)


def _of_lines(path: str | Path, lines: list[str]) -> tuple[str, ...]:
    if all(line.startswith("- ") for line in lines):  # a list of YAML
        return tuple(line[2:].strip() for line in lines)
    for split in (_commas, _semicolons, _tabs, _words):
        rows = [split(line) for line in lines]
        if len(rows) > 1 and not any(map(_number_and_name, rows[:1])) and len(rows[0]) == 2:
            rows = rows[1:]  # perhaps a head line
        pairs = [pair for row in rows if (pair := _number_and_name(row))]
        head = len(lines) - len(rows)
        if not pairs or len(pairs) < len(rows) or (head and split is _words):
            continue
        numbers = sorted(number for number, _ in pairs)
        if numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
            return _in_order(path, pairs)  # which refuses those from 1
    return tuple(lines)


def _commas(line: str) -> list[str]:
    return _columns(line, ",")


def _semicolons(line: str) -> list[str]:
    return _columns(line, ";")


def _tabs(line: str) -> list[str]:
    return _columns(line, "\t")


def _columns(line: str, separator: str) -> list[str]:
    try:
        return [part.strip() for part in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]
    except csv.Error:  # a line as long as no name
        return [line]


def _words(line: str) -> list[str]:
    number, _, name = line.replace("\t", " ").partition(" ")
    return [number.rstrip(":"), name.strip()]


def _number_and_name(row: list[str]) -> tuple[int, str] | None:
    """Return (class number, name) of a row that has both, in either order for a pair."""
    if len(row) > 1 and row[0].isascii() and row[0].isdecimal() and all(row):
        return int(row[0]), ", ".join(row[1:])
    if len(row) == 2 and row[1].isascii() and row[1].isdecimal() and row[0]:
        return int(row[1]), row[0]
    return None


def class_number(text: str) -> int:
    """Return the class number that a label says.

    Raises:
        UserError: it is none, or beyond any data set's.
    """
    text = text.strip()
    if text.isascii() and text.isdecimal() and (len(text) < 12 and int(text) < MOST_CLASSES):
        return int(text)
    raise UserError(f"{short(text, 30)!r} is no class number ({RULE_OF_NUMBERS})")


def class_names(path: str | Path, labels: Collection[int], labels_in: str | Path) -> tuple[str, ...]:
    """Return the names of the classes that labels mean: those of a file, or the numbers where there is none.

    Args:
        path: of the file.
        labels: the class numbers that occur.
        labels_in: where they stand, for messages.

    Raises:
        UserError: a label is beyond the names; otherwise as `read_class_names`.
    """
    most = max(labels)
    if not Path(path).is_file():
        return numbered_classes(1 + most)
    names = read_class_names(path)
    if len(names) <= most:
        from_one = 0 not in labels and len(names) == most
        hint = "do the labels start at 1? They start at 0" if from_one else "one line a class, class 0 first"
        raise UserError(f"{path} names {len(names)} classes; {labels_in} has class {most}: {hint}")
    return names


def notes_on_labels(
    names: Sequence[str], named: bool, labels: Collection[int], where: str | Path
) -> list[str]:
    """Return what is to be said about classes that no label of a list means, and about names that occur twice."""
    notes = []
    unused = [name for number, name in enumerate(names) if number not in labels]
    if unused:
        from_one = not named and unused == ["0"] and len(names) > 2
        hint = ". Do its labels start at 1? They start at 0" if from_one else ""
        notes.append(f"{where}: no image of class {joined(unused, 12)}{hint}")
    if len(names) == 1:
        notes.append(
            f"{where} has one class, {short(names[0], 60)!r}: a model that always answers so is right"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        notes.append(
            f"{where}: several classes are called {joined(twice, 6)}: answers do not tell them apart"
        )
    return notes


class Relabelled:
    """A source whose labels are the numbers of other classes.

    Args:
        source: of the images.
        classes: the names that its labels mean from here on.
        numbers: {label of the source: number in `classes`}.
    """

    def __init__(self, source: Source, classes: Sequence[str], numbers: dict[int, int]) -> None:
        self.source, self.classes, self.numbers = source, tuple(classes), numbers
        self.named, self.notes = source.named, source.notes

    @property
    def labels(self) -> list[int]:
        """The class numbers of all images."""
        return [self.numbers[int(label)] for label in self.source.labels]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return (PIL image in RGB, class number)."""
        image, label = self.source[index]
        return image, self.numbers[int(label)]

    def read(self, index: int, reading: Reading) -> tuple[Image.Image, int]:
        """Return what the source reads, cut as `reading` plans it where it can."""
        found = read_from(self.source, index, reading)
        return found[0], self.numbers[int(found[1])]

    def name(self, index: int) -> str:
        """Return where an image is, as messages name it."""
        return self.source.name(index)


def match_classes(
    source: Source,
    classes: Sequence[str],
    *,
    named: bool = True,
    held_out: str = "val",
    known: str = "train",
) -> tuple[Source, list[str]]:
    """Return (the source with labels that are numbers of `classes`, what is to be said about it).

    Classes are matched by name. Where one side has numbers for names, from a list say, labels are numbers of the
    other side's classes.

    Args:
        source: the held-out images.
        classes: the names of those that the model learns or has learnt, class 0 first.
        named: whether those are names; else they are but numbers.
        held_out, known: what the two are called in messages.

    Raises:
        UserError: if an image is of a class that is not among them, with both lists.
    """
    own, used, notes = source.classes, sorted({int(label) for label in source.labels}), []
    if tuple(own) == tuple(classes):
        return source, _absent(classes, used, held_out, known)
    numbers = _by_name(source, used, classes)
    if len(numbers) < len(used) and _by_number(source.named, named, own, classes):
        numbers = {label: label for label in used if label < len(classes)}
        notes.append(f"{held_out} and {known} share no class names: labels are matched by class number")
    strange = [own[label] for label in used if label not in numbers]
    if strange:
        raise UserError(
            f"{held_out} has images of {_shown(strange)}, which {known} does not know{_near(strange, classes)}. "
            f"Classes are matched by name: rename or remove them. {known}: {len(classes)}, {_shown(classes)}; "
            f"{held_out}: {len(own)}, {_shown(own)}"
        )
    notes += _absent(classes, numbers.values(), held_out, known)
    return Relabelled(source, classes, numbers), notes


def _by_name(source: Source, used: Sequence[int], classes: Sequence[str]) -> dict[int, int]:
    """Return {label: number in `classes`}, without the labels whose name is not among them."""
    places = {_form(name): number for number, name in enumerate(classes)}
    if source.named and len(places) < len(classes):
        twice = [name for number, name in enumerate(classes) if places[_form(name)] != number]
        raise UserError(
            f"several of the classes have one name ({joined(twice, 6)}): they cannot be matched by name"
        )
    forms = {label: _form(source.classes[label]) for label in used}
    return {label: places[form] for label, form in forms.items() if form in places}


def _by_number(named: bool, known_named: bool, own: Sequence[str], classes: Sequence[str]) -> bool:
    """Return whether labels may be matched by their number, since one side has no names."""
    if named and known_named:
        return False
    if named:  # which number is whose is known only where no class is missing
        return len(own) == len(classes)
    return not all(name.isdecimal() for name in classes)  # names that are numbers are matched as names


def _absent(classes: Sequence[str], numbers: Iterable[int], held_out: str, known: str) -> list[str]:
    present = set(numbers)
    absent = [name for number, name in enumerate(classes) if number not in present]
    return [f"{held_out} has no image of {_shown(absent)}, which {known} has"] if absent else []


def _form(name: str) -> str:
    """Return a name with its accents as one system writes them, since others write them apart."""
    return unicodedata.normalize("NFC", name)


def _near(strange: Sequence[str], classes: Sequence[str]) -> str:
    """Return a hint where a name differs from one of `classes` in capitals, spaces or leading zeros alone."""
    known = {_loosely(name): name for name in classes}
    for name in strange:
        if _loosely(name) in known:
            other = known[_loosely(name)]
            return (
                f" ({short(repr(name), 60)} is not {short(repr(other), 60)}: names are equal to the letter)"
            )
    return ""


def _loosely(name: str) -> str:
    loose = "".join(
        unicodedata.normalize("NFKC", name).casefold().replace("_", " ").replace("-", " ").split()
    )
    return str(int(loose)) if loose.isascii() and loose.isdecimal() and len(loose) < 20 else loose


def _shown(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(_quoted(short(name, 40)) for name in names[:most]) + more


def _quoted(name: str) -> str:
    """Return a name in quotes where its ends, or a comma in it, would not be seen without."""
    return repr(name) if name != name.strip() or "," in name or not name else name
