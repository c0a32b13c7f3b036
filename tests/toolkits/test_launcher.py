"""The launchers' command line: settings, their errors, exit codes."""

import warnings

import pytest

from paddle_inline.toolkits.launcher import build_parser, launch, numbers, parse_overrides, require
from paddle_inline.utils.errors import MissingFileError, MissingPackageError, UserError


@pytest.mark.parametrize(
    ("pairs", "tree"),
    [
        ([], {}),
        (["epoch=12"], {"epoch": 12}),
        (["a.b=1", "a.c=x", "a.b=2"], {"a": {"b": 2, "c": "x"}}),
        (["lr=5e-4"], {"lr": 5e-4}),
        (["size=[800, 1.5e3]"], {"size": [800, 1500.0]}),
        (["name='5e-4 '"], {"name": "5e-4 "}),
        (["on=true", "off=null"], {"on": True, "off": None}),
        (["path=a=b"], {"path": "a=b"}),
    ],
)
def test_overrides_become_settings(pairs, tree):
    assert parse_overrides(pairs) == tree


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["epoch"], "-o epoch: give KEY=VALUE"),
        (["=1"], "-o =1: give KEY=VALUE"),
        (["a..b=1"], "-o a..b=1: give KEY=VALUE"),
        (["a=1", "a.b=2"], "a was given a value before"),
        (["a=["], "-o a=\\[: not a YAML value"),
    ],
)
def test_wrong_overrides_are_named(pairs, message):
    with pytest.raises(UserError, match=message):
        parse_overrides(pairs)


def test_numbers_of_a_file_are_numbers():
    assert numbers({"a": ["1e-4", "x1e-4", 3]}) == {"a": [1e-4, "x1e-4", 3]}


def test_a_package_that_is_missing_is_one_line():
    assert require("json", "pip install json").dumps([]) == "[]"
    with pytest.raises(
        MissingPackageError, match="no_such_package is not installed; install it with: pip install x"
    ):
        require("no_such_package", "pip install x")


def test_a_package_that_lacks_another_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "lacking_package.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        MissingPackageError, match=r"lacking_package needs no_such_package.*pip install no_such"
    ):
        require("lacking_package", "pip install x")


def show(arguments):
    """Show what was given."""
    if arguments.o == ["fail=1"]:
        raise UserError("fail is 1; give 0")
    if arguments.o == ["stop=1"]:
        raise KeyboardInterrupt
    if arguments.o == ["warn=1"]:
        warnings.warn("head.weight is left out", stacklevel=1)
        return
    print(parse_overrides(arguments.o), getattr(arguments, "images", None))


show.arguments = lambda row: row.add_argument("--images")


def run(tmp_path, *more, cfg="a.yml"):
    (tmp_path / "a.yml").write_text("")
    return launch("program", "Text.", {"show": show}, ["show", "--cfg", str(tmp_path / cfg), *more])


def test_a_command_gets_its_settings_and_options(tmp_path, capsys):
    assert run(tmp_path, "-o", "a=1", "b.c=2", "-o", "d=3", "--images", "x") == 0
    assert capsys.readouterr().out == "{'a': 1, 'b': {'c': 2}, 'd': 3} x\n"


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (["-o", "fail=1"], 2, "error: fail is 1; give 0\n"),
        (["-o", "stop=1"], 130, "interrupted\n"),
        (["-o", "warn=1"], 0, "note: head.weight is left out\n"),
    ],
)
def test_a_mistake_and_a_warning_are_one_line_and_an_exit_code(tmp_path, capsys, options, code, line):
    assert run(tmp_path, *options) == code
    assert capsys.readouterr().err == line


def test_a_missing_file_of_settings_is_one_line(tmp_path, capsys):
    assert run(tmp_path, cfg="none.yml") == 2
    assert "error: --cfg: there is no" in capsys.readouterr().err


def test_the_traceback_is_there_for_who_asks(tmp_path):
    with pytest.raises(MissingFileError):
        run(tmp_path, "--traceback", cfg="none.yml")


def test_each_command_says_what_it_does():
    assert "Show what was given." in build_parser("program", "Text.", {"show": show}).format_help()
