"""The settings files that come with the package, by name: `quickstart`, `zoo/agent`, `detection/...`.

A wheel has them in paddle_inline/configs, a checkout in configs/ beside the package: setup.py puts the one into the
other.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path, PurePosixPath

SUFFIXES = (".yaml", ".yml")
LISTED = "`python -m paddle_inline configs` lists the files that come with the package"


def folder() -> Path:
    """Return the folder of the files that come with the package."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """Return the names of all files that come with the package, without their suffix, those of subfolders last.

    Bases of the toolkits are left out, as are the files of one demonstration.
    """
    found = [path.relative_to(folder()) for path in folder().rglob("*") if path.suffix in SUFFIXES]
    shown = [path for path in found if path.parent.name not in ("_base_", "demo_dense")]
    return sorted((path.with_suffix("").as_posix() for path in shown), key=lambda name: ("/" in name, name))


def packaged(name: str, section: str = "") -> Path | None:
    """Return the file of a name that comes with the package; None where there is none.

    Args:
        name: as `names` has it, with or without its suffix, and with or without `configs/` and `../` before it, as
            in a file that was copied out of its folder.
        section: a subfolder that is looked into first.
    """
    parts = list(PurePosixPath(name.replace(os.sep, "/")).parts)
    while parts[:1] == [".."] or (parts[:1] == ["configs"] and len(parts) > 1):
        parts = parts[1:]
    if not parts or ".." in parts or os.path.isabs(name):
        return None
    relative = Path(*parts)
    for place in dict.fromkeys((folder() / section, folder())):
        for suffix in ("", *SUFFIXES):
            path = place / relative.parent / (relative.name + suffix)
            if path.is_file():
                return path
    return None


def find(path: str, section: str = "", beside: str = "") -> str:
    """Return the path of a settings file: of the file that is there, else of that which comes with the package.

    Where neither is there, `path` itself is returned, for the reader to refuse.

    Args:
        path: a file, or a name as `packaged` takes it.
        section: as `packaged` takes it.
        beside: the folder that `path` is relative to.
    """
    there = os.path.join(beside, path)
    if os.path.isfile(there):
        return there
    return str(packaged(path, section) or there)


def nearest(path: str, section: str = "") -> str:
    """Return the end of a message on a file that is not there: what it may have meant, and where to look."""
    given = os.path.splitext(os.path.basename(path))[0]
    known = {name.rsplit("/", 1)[-1]: name for name in reversed(names()) if name.startswith(section)}
    near = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {known[near[0]]}? ({LISTED})" if near else f"; {LISTED}"
