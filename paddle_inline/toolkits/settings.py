"""Settings files of the toolkits: YAML with bases, merged in the order in which they stand."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from ..config import files
from ..utils.errors import MissingFileError, UserError
from ..utils.paths import expand
from .launcher import numbers

Merge = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


def read_settings(
    path: str,
    base_key: str,
    loader: type = yaml.SafeLoader,
    put: Merge | None = None,
    seen: tuple[str, ...] = (),
    section: str = "",
) -> dict[str, Any]:
    """Return the settings of a file, over those of its bases.

    Args:
        path: a YAML file.
        base_key: the key under which a file names its bases, one or a list, relative to itself.
        loader: the YAML loader, for a toolkit with tags of its own.
        put: puts settings over others and returns those; None: `merge`.
        seen: the files that are being read, to find circles.
        section: the subfolder of the package's own files, in which a base is looked for that is not there.

    Raises:
        MissingFileError: a file is not there.
        UserError: it is not valid YAML, holds no settings, or its bases form a circle.
    """
    real = os.path.realpath(path)
    if real in seen:
        raise UserError(f"{path}: bases form a circle: {' -> '.join((*seen, real))}")
    try:
        with open(path, encoding="utf-8") as file:
            tree = yaml.load(file, Loader=loader)
    except FileNotFoundError:
        origin = f", a base of {seen[-1]}" if seen else ""
        raise MissingFileError(f"there is no settings file {path}{origin}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds a {type(tree).__name__}, not settings as `key: value`")
    bases = tree.pop(base_key, None) or []
    put, merged = put or merge, dict[str, Any]()
    for base in bases if isinstance(bases, list) else [bases]:
        file_name = files.find(expand(str(base)), section, os.path.dirname(path))
        merged = put(merged, read_settings(file_name, base_key, loader, put, (*seen, real), section))
    return put(merged, numbers(tree))


def merge(into: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Put settings over others, section by section, and return those; lists are replaced."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
    return into
