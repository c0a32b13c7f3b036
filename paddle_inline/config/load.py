"""Reading settings: typed, strict, from YAML files and the command line.

A setting comes, each later one winning, from: the defaults (schema.py); the file named by `base:` (and
that file's own base); the file itself; `--opts KEY VALUE ...`; `-o KEY=VALUE`; a program's own flags. An unknown
key is an error that names the nearest known one, a value of the wrong type one that names the key, the value
and the type. Nothing is ever evaluated. The authors' upper-case files are accepted (legacy_keys.py), as are SOFT's
flat ones (flat_keys.py).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..utils.pairs import pairs_of
from ..utils.paths import expand, expand_all
from ..utils.streams import ESCAPE
from ..weights.description import plain_size
from . import files
from .flat_keys import from_flat, is_flat
from .legacy_keys import IGNORED, implied, model_name, section_is_of, translate
from .schema import Config, ConfigError, check, known_settings

__all__ = ["Config", "ConfigError", "differences", "load_config", "model_name", "to_dict", "to_yaml"]

# What OmegaConf would take besides, it would take in silence: any number as true.
SWITCH = {"bool": (bool, str), "Optional[bool]": (bool, str, type(None))}
# section -> its settings that are paths, in which ~ is the home folder
PATHS = {"": ("output",), "data": ("data_path",), "model": ("pretrained", "resume")}


class Setting(NamedTuple):
    """A dotted key, its value, and where a message says it came from."""

    key: str
    value: Any
    origin: str


def load_config(
    path: str = "",
    opts: Sequence[str] = (),
    assignments: Sequence[str] = (),
    notes: list[str] | None = None,
    flags: Mapping[str, tuple[str, Any]] | None = None,
) -> Config:
    """Read a configuration.

    Args:
        path: a YAML file, the name of one that comes with the package, or an empty string for the defaults.
        opts: `[key, value, key, value, ...]` or `[key=value, ...]`, as `--opts` takes them.
        assignments: `["key=value", ...]`, as `-o` takes them; a value may contain `=`.
        notes: gets a line on keys that were read and not used, and why.
        flags: {flag: (key, value)} of a program's own flags, which win; messages name the flag.

    Returns:
        The settings as plain dataclasses.

    Raises:
        ConfigError: for an unknown key, a wrong type, a value out of range, an unreadable file.
        UserError: for a key of `opts` without a value.
    """
    found = files.find(expand(path)) if path else ""
    if notes is not None and found != expand(path):
        notes.append(f"settings: {found}, which comes with the package")
    path = found
    settings = read_file(path) if path else []
    unused: dict[str, str] = {}
    if is_flat((key, value) for key, value, _ in settings):
        _check_flat(settings)
        flat, unused = from_flat({key: value for key, value, _ in settings}, path)
        settings = [Setting(key, value, path) for key, value in flat.items()]
    named = {key: value for key, value, _ in settings if key.isupper()}
    theirs = implied(named, _is_model)
    if theirs:  # then MODEL.TYPE of the command line is the model too, and MODEL.NAME a label there as well
        more = [*pairs_of(opts), *(text.partition("=")[::2] for text in assignments)]
        theirs = implied({**named, **{key.strip(): value for key, value in more if key.isupper()}}, _is_model)
        label = dict(more).get("MODEL.NAME", "")
        if _is_model(model_name(label)) and model_name(label) != theirs["model.name"]:
            raise ConfigError(
                f"MODEL.NAME is {label!r} and MODEL.TYPE a {theirs['model.name']}: in these files "
                "MODEL.NAME is a label; name the model with MODEL.TYPE"
            )
    settings = [Setting(key, value, path) for key, value in theirs.items()] + settings
    settings += [Setting(key, value, "--opts") for key, value in pairs_of(opts)]
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"-o {text!r}: write KEY=VALUE")
        settings.append(Setting(key.strip(), value, "-o"))
    settings += [Setting(key, value, flag) for flag, (key, value) in (flags or {}).items()]

    config, known = OmegaConf.structured(Config), known_settings()
    for key, value, origin in settings:
        parts = key.split(".")
        if (
            theirs
            and len(parts) > 2
            and parts[0] == "MODEL"
            and not section_is_of(parts[1], theirs["model.name"])
        ):
            unused.setdefault(f"MODEL.{parts[1]}", "of another family")
            continue
        translated: tuple[str, Any] | None = (key, value)
        if key.isupper():
            translated = translate(key, value, labelled=not theirs, model=theirs.get("model.name", ""))
        if translated is not None:
            _set(config, Setting(*translated, origin), known)
        if key in IGNORED:
            unused.setdefault(key, IGNORED[key])
    if unused and notes is not None:
        notes.append("settings not used: " + ", ".join(f"{key} ({why})" for key, why in unused.items()))
    config = OmegaConf.to_object(config)
    for section, names in PATHS.items():
        expand_all(getattr(config, section) if section else config, names)
    check(config)
    config.data.img_size = plain_size(config.data.img_size)
    return config


def read_file(path: str, seen: tuple[str, ...] = ()) -> list[Setting]:
    """Read the settings of a YAML file, those of its `base:` first: a file beside it, or one of the package."""
    real = os.path.realpath(path)
    if real in seen:
        raise ConfigError(f"{path}: base files form a circle: {' -> '.join((*seen, real))}")
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file{_neighbours(path)}") from None
    except IsADirectoryError:
        kept = os.path.join(path, "config.yaml")  # where the folder is a run's
        way = f"give {kept}, the settings of the run" if os.path.isfile(kept) else "give a YAML file"
        raise ConfigError(f"{path}: is a folder, not a file of settings; {way}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds a {type(tree).__name__}, not settings as `key: value`")
    if {"_base_", "_BASE_"} & set(tree):  # of PaddleDetection's and PaddleSeg's files
        raise ConfigError(
            f"{path}: has _base_, as files of detection and segmentation do, which train by "
            "`python -m paddle_inline.detection` and `python -m paddle_inline.segmentation`; files of classification "
            "have base"
        )
    settings = []
    bases = [tree.pop(key) for key in ("base", "BASE") if key in tree]
    for base in (b for entry in bases for b in (entry if isinstance(entry, list) else [entry])):
        if base:
            found = files.find(expand(str(base)), beside=os.path.dirname(path))
            settings += read_file(found, (*seen, real))
    return settings + [Setting(key, value, path) for key, value in _flatten(tree)]


def _check_flat(settings: Sequence[Setting]) -> None:
    """Refuse a model's name in place of the section `model` where SOFT's recipe cannot be meant.

    Such a file is one of SOFT's program (flat_keys.py), unless its model is another's, or it goes on from a file of
    sections.
    """
    index = next(n for n, (key, value, _) in enumerate(settings) if key == "model" and isinstance(value, str))
    _, name, path = settings[index]
    after = next((origin for key, _, origin in settings[:index] if "." in key and origin != path), "")
    if after or (_is_model(name) and not name.startswith("soft")):
        why = f"its base {after} has sections" if after else f"{name} is none of its models"
        raise ConfigError(
            f"{path}: model is {name!r}, as in the flat files of SOFT's program, which mean SOFT's recipe; but {why}: "
            f"write model: {{name: {name}}}"
        )


def to_dict(config: Config) -> dict[str, Any]:
    """Return the settings as nested plain dicts, for YAML and JSON."""
    return OmegaConf.to_container(OmegaConf.structured(config), resolve=False)


def to_yaml(config: Config) -> str:
    """Return the settings as YAML that `load_config` reads back to the same values.

    Names that are no UTF-8, which YAML cannot hold, are escaped.
    """
    return OmegaConf.to_yaml(OmegaConf.create(_escaped(to_dict(config))), resolve=False)


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return `key: old -> new` for every setting that differs between two results of `to_dict`.

    A setting that an earlier version did not have is the default there.
    """
    defaults = dict(_flatten(to_dict(Config())))
    a, b = dict(_flatten(old)), dict(_flatten(new))
    missing = "(absent)"
    a.update({key: defaults[key] for key in b if key not in a and key in defaults and old})
    keys = [key for key in {**a, **b} if a.get(key, missing) != b.get(key, missing)]
    return [f"{key}: {a.get(key, missing)} -> {b.get(key, missing)}" for key in keys]


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {_escaped(key): _escaped(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_escaped(each) for each in value]
    return value.encode("utf-8", ESCAPE).decode() if isinstance(value, str) else value


def _set(config: Any, setting: Setting, known: dict[str, Any]) -> None:
    key, value, origin = setting
    free = key.startswith("model.overrides.")
    if not free and key not in known:
        if any(name.startswith(key + ".") for name in known):
            raise ConfigError(f"{origin}: {key} is a section; set one of its keys, not {value!r}")
        near = _nearest(key)
        hint = f"; did you mean {near!r}?" if near else f"; sections are {', '.join(_sections())}"
        raise ConfigError(f"{origin}: unknown key {key!r}{hint}")
    kind = None if free else known[key].type
    if isinstance(value, str) and kind is not None:
        if kind.startswith("Optional") and value.strip().lower() in ("none", "null", ""):
            value = None
        elif ("list" in kind or kind == "Any") and value.strip()[:1] == "(":
            value = _parse("[" + value.strip()[1:-1] + "]")
        elif kind != "str":
            value = _parse(value)
    if free and origin in ("--opts", "-o"):
        value = _parse(value)
    if kind == "str" and value is None:
        value = ""
    if kind == "str" and isinstance(value, str) and "choices" in known[key].metadata:
        value = value.upper() if key == "amp.level" else value.lower()
    problem = ConfigError(f"{origin}: {key} is {value!r}; it takes {_in_words(kind)}")
    if not isinstance(value, SWITCH.get(kind or "", object)):
        raise problem
    if "${" in str(value):
        raise ConfigError(f"{origin}: {key} is {value!r}; ${{...}} is not looked up here, write it out")
    try:
        OmegaConf.update(config, key, value, force_add=free)
    except OmegaConfBaseException:
        raise problem from None


def _is_model(name: str) -> bool:
    from ..models.factory import list_models

    return name in list_models()


def _sections() -> list[str]:
    return sorted({key.split(".")[0] for key in known_settings()})


def _nearest(key: str, cutoff: float = 0.6) -> str | None:
    known = list(known_settings())
    same_leaf = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    near = same_leaf[:1] or difflib.get_close_matches(key, known, n=1, cutoff=cutoff)
    return near[0] if near else None


def _flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat += _flatten(value, f"{prefix}{key}.")
        elif not (isinstance(value, dict) or (value is None and f"{prefix}{key}".lower() in _sections())):
            flat.append((f"{prefix}{key}", value))
    return flat


def _parse(text: str) -> Any:
    """Parse a command line's value: a YAML scalar or list, otherwise the text itself."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _in_words(kind: str | None) -> str:
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
    if kind is None:
        return "a value"
    if kind.startswith("Optional["):
        return _in_words(kind[len("Optional[") : -1]) + ", or null"
    if kind.startswith("list["):
        return {"float": "a list of numbers", "str": "a list of texts"}[kind[len("list[") : -1]]
    return words.get(kind, "keys with values")


def _neighbours(path: str) -> str:
    folder = os.path.dirname(path) or "."
    try:
        near = difflib.get_close_matches(os.path.basename(path), os.listdir(folder), n=1)
    except OSError:
        return f" (nor a folder {folder}){files.nearest(path)}"
    return f"; did you mean {os.path.join(folder, near[0])}?" if near else files.nearest(path)
