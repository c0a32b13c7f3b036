"""The command line of both launchers: COMMAND --cfg FILE -o KEY=VALUE, and mistakes as one line."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from ..config import files
from ..utils.environment import import_paddle, tune_cpu
from ..utils.errors import MissingFileError, MissingPackageError, UserError, short
from ..utils.paths import expand
from ..utils.streams import forgiving_streams, warnings_as_notes

Command = Callable[[argparse.Namespace], "int | None"]

# 5e-4, which YAML 1.1 takes for a text
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """Return `A.b=VALUE` texts as nested settings.

    Args:
        pairs: each a dotted key, an equals sign and a YAML value; a later one of the same key counts.

    Raises:
        UserError: a text without a key and an equals sign, a value that is no YAML, or a key that is both a value
            and a section.
    """
    tree: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise UserError(
                f"-o {short(pair)}: give KEY=VALUE, as -o epoch=12 or -o TrainReader.batch_size=2"
            )
        branch = tree
        for part in parts[:-1]:
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                raise UserError(
                    f"-o {short(pair)}: {part} was given a value before; it cannot have keys as well"
                )
        branch[parts[-1]] = parse_value(text, f"-o {short(pair)}")
    return tree


def parse_value(text: str, origin: str) -> Any:
    """Return a command line's YAML value; 5e-4 is a number.

    Raises:
        UserError: it is not valid YAML; the message begins with `origin`.
    """
    try:
        return numbers(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise UserError(f"{origin}: not a YAML value ({' '.join(str(error).split())}); quote it") from None


def numbers(value: Any) -> Any:
    """Return settings in which texts such as 5e-4, which YAML does not take for numbers, are numbers."""
    if isinstance(value, dict):
        return {key: numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [numbers(each) for each in value]
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def require(package: str, install: str) -> Any:
    """Import and return an optional package.

    Args:
        package: its module's name.
        install: the command that installs it.

    Raises:
        MissingPackageError: it, or something that it imports, is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(f"{package} is not installed; install it with: {install}")
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{package} needs {error.name}, which is not installed; install it with: pip install {error.name}"
        ) from None


def existing(path: str, what: str, way_out: str) -> str:
    """Return a path, ~ expanded, after a look whether it is there.

    Args:
        path: of a file or folder.
        what: it is to hold, for the message.
        way_out: what to give instead.

    Raises:
        MissingFileError: it is not there.
    """
    path = expand(path)
    if not os.path.exists(path):
        raise MissingFileError(f"{what}: there is no {path}; {way_out}")
    return path


def build_parser(prog: str, text: str, commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """Return a parser of `COMMAND --cfg FILE -o KEY=VALUE ...`.

    Args:
        prog: the program's name.
        text: its description.
        commands: {name: function}; the first line of a function's docstring is its help. An attribute `arguments`,
            a function of the command's parser, adds its own options.
    """
    parser = argparse.ArgumentParser(
        prog=prog, description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    rows = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, run in commands.items():
        line = str(run.__doc__).splitlines()[0]
        row = rows.add_parser(name, help=line, description=line, allow_abbrev=False)
        row.add_argument("-c", "--cfg", required=True, metavar="FILE", help="a YAML file of settings")
        row.add_argument(
            "-o",
            nargs="+",
            action="extend",
            default=[],
            metavar="KEY=VALUE",
            help="change settings; may be repeated",
        )
        row.add_argument("--traceback", action="store_true", help="show the traceback of a user error")
        getattr(run, "arguments", lambda row: None)(row)
        row.set_defaults(run=run)
    return parser


def launch(prog: str, text: str, commands: Mapping[str, Command], argv: Sequence[str] | None = None) -> int:
    """Run one command of a launcher and return its exit code.

    0: done; 2: a mistake of the user's, as one line; 130: interrupted. Any other error keeps its traceback.

    Args:
        prog, text, commands: as `build_parser`.
        argv: the command line; None: the process's.
    """
    with forgiving_streams():
        arguments = build_parser(prog, text, commands).parse_args(argv)
        try:
            section = prog.rpartition(".")[2]
            given = files.find(expand(arguments.cfg), section)
            arguments.cfg = existing(
                given, "--cfg", f"give a file of settings{files.nearest(given, section)}"
            )
            tune_cpu(workers=int(os.environ.get("PADDLE_LOCAL_SIZE", "1")))
            import_paddle()
            with warnings_as_notes():
                return arguments.run(arguments) or 0
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except UserError as error:
            if arguments.traceback:
                raise
            print(f"error: {error}", file=sys.stderr)
            return 2
        except ModuleNotFoundError as error:
            if error.name != "paddle" or arguments.traceback:
                raise
            print(f"error: {error}; install PaddlePaddle for your device (README, Install)", file=sys.stderr)
            return 2
