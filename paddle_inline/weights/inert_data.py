"""Which calls that a pickle names are plain data: paths, enumerations, dates, settings, kept as inert stand-ins.

Nothing is called either way. Training code keeps such objects beside its weights, and a file is read without asking for
them; what could be a command (any function, any class of the standard library that is not listed) is refused by name.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from .safe_pickle import Inert, Name

# Harmless whatever their arguments.
_DATA = re.compile(
    r"""torch\.(device|Size|Generator)
    |torch\.serialization\._get_layout
    |collections\.(Counter|defaultdict|deque|UserDict|UserList|ChainMap)
    |builtins\.(set|frozenset|complex|slice|x?range|type|bytearray|list|dict|tuple|str|int|float|bool|object)
    |datetime\.(date|datetime|time|timedelta|timezone)
    |zoneinfo\.ZoneInfo(\._unpickle)?
    |pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path
    |types\.(SimpleNamespace|MappingProxyType|GenericAlias|UnionType)
    |array\.(array|_array_reconstructor)
    |random\.Random
    |functools\.partial
    |re\._compile
    |uuid\.(UUID|SafeUUID)
    |decimal\.Decimal
    |fractions\.Fraction
    |argparse\.Namespace
    |ipaddress\.IPv[46](Address|Network)
    |signal\.(Signals|Handlers)
    |http\.HTTPStatus
    |logging\.(Level|getLogger)
    |numpy\.ma\.core\._mareconstruct
    |numpy\.random\._pickle\.__(randomstate|generator|bit_generator)_ctor
    |numpy\.random\.bit_generator\.__pyx_unpickle_\w+
    |copyreg\.(_reconstructor|__newobj__)""",
    re.VERBOSE,
)
# Classes of other packages are written Like.This; their modules and functions are not.
_CLASS = re.compile(r"(?:\w+\.)+_{0,2}[A-Z]\w*")
_MODULES = """os posix nt ntpath posixpath subprocess sys builtins importlib runpy ctypes shutil socket pty code codeop
pickle marshal webbrowser operator functools types multiprocessing threading asyncio concurrent imp pdb bdb profile
cProfile timeit tempfile io zipfile zipimport tarfile urllib http ftplib smtplib xmlrpc platform distutils collections
copyreg pathlib site pip inspect ast commands trace doctest unittest venv ensurepip"""
_STANDARD = {*getattr(sys, "stdlib_module_names", ()), *re.findall(r"\w+", _MODULES)}


def is_data(path: str, arguments: tuple[Any, ...]) -> bool:
    """Return whether calling `path`, a dotted name, with these arguments would make a piece of plain data.

    It is a listed class of the standard library, or one of another package called with nothing but plain values, as
    enumerations and settings are; `getattr(class, name)` is how Python 3.11 pickles a member of an enumeration.
    """
    if path == "builtins.type" and len(arguments) != 1:  # three would make a class
        return False
    if _DATA.fullmatch(path):
        return True
    if path in ("_operator.getitem", "operator.getitem"):  # typing.List[int]
        return isinstance(arguments[0], Name) and arguments[0].path.startswith("typing.")
    if path == "builtins.getattr":
        return (
            len(arguments) == 2
            and isinstance(arguments[0], Name)
            and isinstance(arguments[1], str)
            and arguments[1].isidentifier()
            and (_is_class(arguments[0].path) or arguments[0].path == "zoneinfo.ZoneInfo")
        )
    return _is_class(path) and all(map(_is_plain, arguments))


def inert_data(path: str, arguments: tuple[Any, ...], by_call: bool) -> Inert | None:
    """Return a stand-in for plain data and for instances that are filled, not called; None for any other call."""
    return Inert(path, arguments) if not by_call or is_data(path, arguments) else None


def _is_class(path: str) -> bool:
    return bool(_CLASS.fullmatch(path)) and path.split(".", 1)[0] not in _STANDARD


def _is_plain(value: Any, depth: int = 3) -> bool:
    if isinstance(value, (tuple, list)):
        return depth > 0 and len(value) <= 1000 and all(_is_plain(item, depth - 1) for item in value)
    return value is None or isinstance(value, (str, bytes, int, float, Name, Inert))
