"""Text in pictures: names of classes as they are, in whatever script, and by their number where no font has it."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator, Sequence

LONGEST_NAME = 22  # letters of a class's name that are drawn
# Fonts with the letters that matplotlib's own lacks; those that are installed follow the user's.
FALLBACK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei"),
    *("PingFang SC", "Hiragino Sans GB", "Heiti TC", "Malgun Gothic", "Arial Unicode MS"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Thai"),
)


@contextlib.contextmanager
def plain_text() -> Iterator[None]:
    """Draw text without LaTeX, whatever the user's style: the machine may lack it, and to it % begins a comment.

    Letters that the user's fonts lack are looked for in others that are installed.
    """
    try:
        import matplotlib
    except ImportError:  # said where a figure is made
        yield
        return
    families = [*matplotlib.rcParams["font.family"], *_installed_fonts()]
    with matplotlib.rc_context({"text.usetex": False, "font.family": families}):
        yield


@functools.lru_cache(maxsize=1)
def _installed_fonts():
    from matplotlib import font_manager

    there = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in FALLBACK_FONTS if name in there]


def verbatim(text: str) -> str:
    """Return a name as it is drawn: bytes that are no UTF-8 are escaped, and nothing else is changed."""
    return text.encode("utf-8", "backslashreplace").decode()


@functools.lru_cache(maxsize=4096)
def _can_be_drawn(name, families):
    from matplotlib import font_manager

    properties = font_manager.FontProperties(family=list(families))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = [
            font_manager.findfont(font_manager.FontProperties(family=[f])) for f in properties.get_family()
        ]
    known = [font_manager.get_font(path).get_char_index for path in dict.fromkeys(paths)]
    return all(letter.isspace() or any(index(ord(letter)) for index in known) for letter in name)


def drawn(name: str, number: int) -> str:
    """Return a class's name for a picture: shortened, or its number where no font that is installed has its letters."""
    try:
        import matplotlib
    except ImportError:  # said where a figure is made
        return name
    name = verbatim(name)
    families = dict.fromkeys([*matplotlib.rcParams["font.family"], *_installed_fonts()])
    if not _can_be_drawn(name, tuple(families)):
        return f"class {number}"
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}\u2026"


def drawn_name(classes: Sequence[str], number: int) -> str:
    """Return what is drawn of a class's name."""
    return drawn(class_name(classes, number), number)


def class_name(classes: Sequence[str], number: int) -> str:
    """Return a class's name; a model may have more classes than the data set, and an image no label."""
    return str(classes[number]) if 0 <= number < len(classes) else f"class {number}"
