"""Folders of images: what is in them, what is passed over, and lists of it that are kept between runs."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..utils.errors import FileAccessError, MissingFileError, joined, short
from ..utils.paths import expand, home_folder
from ..weights.atomic import atomic_write
from .pictures import SUFFIXES, is_picture

# What operating systems, editors, notebooks, archivers and network storage leave in folders without being asked, in
# lower case; hidden names (with a dot in front) and backups (a~, ~$a) need no entry.
SYSTEM_NAMES = frozenset(
    (
        *("__macosx", "icon\r", "network trash folder", "temporary items"),  # macOS
        *("thefindbycontentfolder", "thevolumesettingsfolder"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "dfsrprivate"),  # Windows
        *("$winreagent", "$sysreset", "$extend", "config.msi", "msdownld.tmp", "onedrivetemp"),
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "zbthumbnail.info"),
        *("lost+found", "lost.dir", "aquota.user", "aquota.group"),  # Linux, Android
        *("__pycache__", "_gsdata_"),
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "@__thumb", "@sharebin"),  # network storage
        *("@sharesnap", "@transcode", "#recycle", "#snapshot", "~snapshot"),
    )
)
_FOUND = re.compile(r"found\.\d{3}")  # what Windows makes of lost clusters


def is_system_name(name: str) -> bool:
    """Return whether a name is hidden, or one that a system leaves behind, which no walk takes."""
    if name in (".", ".."):
        return False
    lower = name.lower()
    return (
        name.startswith((".", "~$"))
        or name.endswith("~")
        or lower in SYSTEM_NAMES
        or lower.endswith(("@synoresource", "@synoeastream"))
        or _FOUND.fullmatch(lower) is not None
    )


@dataclass
class LeftOut:
    """What walks did not take, counted."""

    suffixes: Counter[str] = field(default_factory=Counter)  # files that are no images, by suffix
    system: Counter[str] = field(default_factory=Counter)  # hidden names, and those that systems leave behind
    links: list[str] = field(
        default_factory=list
    )  # to folders that have been walked, that lead back or nowhere

    def add(self, other: LeftOut, prefix: str = "") -> None:
        """Count what another walk left out too; `prefix` goes in front of its links."""
        self.suffixes.update(other.suffixes)
        self.system.update(other.system)
        self.links += [prefix + link for link in other.links]

    def add_file(self, name: str) -> None:
        """Count a file that is no image."""
        self.suffixes[os.path.splitext(name)[1].lower() or "files without a suffix"] += 1

    def notes(self, where: str | Path) -> list[str]:
        """Return what is to be said about it, once: a line for each kind; empty when nothing was left out."""
        found = []
        if self.suffixes:
            counts = [f"{count} {short(suffix, 30)}" for suffix, count in self.suffixes.most_common()]
            rest = sum(count for _, count in self.suffixes.most_common()[12:])
            more = f" and {rest} files of {len(counts) - 12} more suffixes" if rest else ""
            found.append(
                f"{where}: left out: {', '.join(counts[:12])}{more}; images end in {', '.join(SUFFIXES)}"
            )
        if self.system:
            names = [
                short(name, 40) + (f" ({count})" if count > 1 else "") for name, count in self.system.items()
            ]
            found.append(f"{where}: passed over, as hidden or left behind by a system: {joined(names, 8)}")
        if self.links:
            found.append(
                f"{where}: links not followed, as they lead to folders that are read already, back, or nowhere: "
                f"{joined(self.links, 4)}"
            )
        return found


@dataclass
class Listing:
    """The entries of one folder that count, by name."""

    folders: list[os.DirEntry[str]]
    files: list[str]  # images
    left_out: LeftOut


@dataclass
class Walk:
    """The images in a folder and below it."""

    files: list[str]  # relative to it, in alphabetical order of their parts
    folders: list[tuple[str, int]]  # every folder walked and its time of change, itself first as ""
    left_out: LeftOut
    identities: list[tuple[int, int]] = field(default_factory=list)  # of these folders: device and number


def scan(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, by name.

    Raises:
        MissingFileError: there is no such folder.
        FileAccessError: it is no folder, or not to be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        raise MissingFileError(f"no such folder {folder}") from None
    except OSError as error:
        raise FileAccessError(f"{folder} cannot be listed: {error.strerror}") from None


def listing(folder: str | Path) -> Listing:
    """Return the folders and images in a folder, links among them, and what is left out."""
    found = Listing([], [], LeftOut())
    for entry in scan(folder):
        if is_system_name(entry.name):
            found.left_out.system[entry.name] += 1
        elif _is_folder(entry):
            found.folders.append(entry)
        elif is_picture(entry.name) and (entry.is_symlink() or entry.is_file()):
            found.files.append(entry.name)  # a link that leads nowhere is a bad image
        elif entry.is_symlink() and not os.path.exists(entry.path):
            found.left_out.links.append(entry.name)
        else:
            found.left_out.add_file(entry.name)
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def subfolders(folder: str | Path) -> list[str]:
    """Return the names of the folders in a folder, links to folders among them, in alphabetical order."""
    return [entry.name for entry in listing(folder).folders]


def walk(folder: str | Path) -> Walk:
    """Return the images in a folder and below it; links to folders are followed, each folder is read once."""
    start = os.path.realpath(folder)
    try:
        above = [os.stat(path) for path in (start, *map(str, Path(start).parents))]
    except OSError:
        scan(folder)  # says why
        raise
    seen = {(stat.st_dev, stat.st_ino) for stat in above}
    result = Walk([], [], LeftOut())
    waiting = [("", above[0].st_mtime_ns)]
    result.identities.append((above[0].st_dev, above[0].st_ino))
    while waiting:
        name, changed = waiting.pop()
        result.folders.append((name, changed))
        content = listing(os.path.join(folder, name) if name else folder)
        prefix = f"{name}/" if name else ""
        result.files += [prefix + file for file in content.files]
        result.left_out.add(content.left_out, prefix)
        for entry in reversed(content.folders):
            stat = os.stat(entry.path)
            if (stat.st_dev, stat.st_ino) in seen:
                result.left_out.links.append(prefix + entry.name)
                continue
            seen.add((stat.st_dev, stat.st_ino))
            result.identities.append((stat.st_dev, stat.st_ino))
            waiting.append((prefix + entry.name, stat.st_mtime_ns))
    result.files.sort(key=lambda file: file.split("/"))
    return result


def find_images(patterns: Iterable[str | Path], notes: list[str] | None = None) -> list[Path]:
    """Return the image files that files, folders (and what is below them) and glob patterns name, each once.

    A file that is named itself is taken whatever its suffix.

    Args:
        notes: takes what is to be said about what was left out.

    Raises:
        MissingFileError: a pattern names none.
    """
    found: list[Path] = []
    for pattern in map(str, map(expand, patterns)):
        left_out = LeftOut()
        if os.path.isdir(pattern):
            files = _in_folder(pattern, left_out)
        elif os.path.lexists(pattern):
            files = [Path(pattern)]
        else:
            files = _matched(pattern, left_out)
        said = left_out.notes(pattern)
        if not files:
            raise MissingFileError(
                "; ".join([f"no image {pattern}; folders are searched for {', '.join(SUFFIXES)}", *said])
            )
        found += files
        if notes is not None:
            notes += said
    return list(dict.fromkeys(found))


def _in_folder(folder: str, left_out: LeftOut) -> list[Path]:
    walked = walk(folder)
    left_out.add(walked.left_out)
    return [Path(folder) / name for name in walked.files]


def _matched(pattern: str, left_out: LeftOut) -> list[Path]:
    """Return the images among what a pattern matches and in the folders that it matches."""
    files = []
    for name in sorted(glob.glob(pattern, recursive=True)):
        last = os.path.basename(name.rstrip("/"))
        if is_system_name(last):
            left_out.system[last] += 1
        elif os.path.isdir(name):
            if "**" not in pattern:  # (which matches what is below as well)
                files += _in_folder(name, left_out)
        elif is_picture(last):
            files.append(Path(name))
        else:
            left_out.add_file(last)
    return files


def index_file(root: str | Path) -> Path | None:
    """Return where the list of a data set's images is kept between runs: in the user's cache folder.

    None where the user has none. (XDG_CACHE_HOME counts where it is an absolute path, as its specification says.)
    """
    cache, home = os.environ.get("XDG_CACHE_HOME", ""), home_folder()
    if not os.path.isabs(cache):
        if home is None:
            return None
        cache = os.path.join(home, ".cache")
    name = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return Path(cache) / "paddle_inline" / f"{name}.json"


def keep_index(
    index: str | Path | None,
    is_current: Callable[[Any], bool],
    make: Callable[[], tuple[Any, list[tuple]]],
) -> tuple[Any, list[tuple]]:
    """Return (stamp, list of images), from the file that keeps them or made anew.

    Args:
        index: the file; None keeps none. One that cannot be read or written is done without.
        is_current: whether a stamp that was kept still holds; where it does not, the list is made anew.
        make: makes (stamp: what the list was made of, list). JSON holds both.
    """
    if index is None:
        return make()
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError, RecursionError):
        kept = json.loads(Path(index).read_text(encoding="utf-8"))
        if is_current(kept["stamp"]):
            return kept["stamp"], [tuple(item) for item in kept["items"]]
    stamp, items = make()
    with contextlib.suppress(OSError):
        Path(index).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(index) as temporary:
            temporary.write_text(json.dumps({"stamp": stamp, "items": items}), encoding="utf-8")
    return stamp, items
