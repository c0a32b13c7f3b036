"""~ is the home folder wherever a path can be given; where there is none, that is said and nothing is made."""

import argparse
import os
import pwd
import tempfile
from pathlib import Path

import pytest
from PIL import Image

import convert.__main__ as convert_program
import train_paddle
from convert.formats.write import atomic, check_output
from convert.parity.golden import read_goldens
from convert.parity.recording import load_recording
from convert.parity.report import write_file
from paddle_inline import Predictor, create_model, load_weights
from paddle_inline.cli import main as command
from paddle_inline.cli.output import write_text
from paddle_inline.config.load import load_config
from paddle_inline.data.classes import read_class_names
from paddle_inline.data.folders import find_images, index_file
from paddle_inline.data.pictures import read_image
from paddle_inline.data.sources import open_source
from paddle_inline.training.checkpoint import find_checkpoint
from paddle_inline.training.lock import locked
from paddle_inline.training.log import RunLog, make_folder
from paddle_inline.utils.errors import UserError
from paddle_inline.utils.paths import expand, home_folder, home_for_libraries
from paddle_inline.weights import open_weights
from paddle_inline.weights.atomic import atomic_write


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return tmp_path / "home"


@pytest.fixture
def homeless(home, monkeypatch):
    """As in a container whose user has no entry among its accounts."""

    def unknown(number):
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def enter(context):
    with context:
        pass


TAKE_A_PATH = {
    "create_model": lambda path: create_model("inline_deit_digits", weights=path),
    "create_model without a name": lambda path: create_model(weights=path),
    "load_weights": lambda path: load_weights(None, path),
    "open_weights": open_weights,
    "Predictor": Predictor,
    "export's card": lambda path: Predictor(Path(path)),
    "read_image": read_image,
    "find_images": lambda path: find_images([path]),
    "read_class_names": read_class_names,
    "open_source": lambda path: open_source("imagenet", path, train=True),
    "open_source of CIFAR": lambda path: open_source("cifar10", path, train=True),
    "find_checkpoint": find_checkpoint,
    "load_config": load_config,
    "inspect": lambda path: convert_program.command.Inspection(
        path, convert_program.command.ConversionOptions()
    ),
    "load_recording": load_recording,
    "read_goldens": read_goldens,
}
MAKE_A_FILE = {
    "atomic_write": lambda path: enter(atomic_write(path)),
    "atomic": lambda path: enter(atomic(path)),
    "write_text": lambda path: write_text(path, ""),
    "write_file": lambda path: write_file(path, ""),
    "check_output": lambda path: check_output(path, "paddle"),
    "RunLog": lambda path: RunLog(path, visualdl=False),
    "make_folder": make_folder,
    "locked": lambda path: enter(locked(path)),
}


@pytest.mark.parametrize("name", TAKE_A_PATH)
def test_what_takes_a_path_looks_in_the_home_folder(name, home):
    with pytest.raises(UserError, match=str(home)):
        TAKE_A_PATH[name]("~/a")


@pytest.mark.parametrize("name", [*TAKE_A_PATH, *MAKE_A_FILE])
def test_without_a_home_it_is_said_and_nothing_is_made(name, homeless):
    with pytest.raises(UserError, match=r"~/a\.pdparams: ~ is the home folder, but HOME is not set"):
        {**TAKE_A_PATH, **MAKE_A_FILE}[name]("~/a.pdparams")
    assert os.listdir() == []


def test_what_makes_a_file_makes_it_in_the_home_folder(home):
    write_text("~/text", "a")
    write_file("~/reports/text", "a")
    make_folder("~/run")
    assert sorted(os.listdir(home)) == ["reports", "run", "text"] and os.listdir() == []


def test_settings_that_are_paths(home, tmp_path):
    (home / "base.yaml").write_text("output: ~/runs\n")
    (tmp_path / "a.yaml").write_text("base: ~/base.yaml\ndata: {data_path: ~/data}\n")
    config = load_config(str(tmp_path / "a.yaml"), ["model.pretrained", "~/w"], ["model.resume=~"])
    assert (config.output, config.data.data_path) == (f"{home}/runs", f"{home}/data")
    assert (config.model.pretrained, config.model.resume) == (f"{home}/w", str(home))
    assert load_config("", ["model.resume", "auto"]).model.resume == "auto"


@pytest.mark.parametrize("key", ["output", "data.data_path", "model.pretrained", "model.resume"])
def test_settings_without_a_home(homeless, key, capsys):
    assert train_paddle.main(["-o", f"{key}=~/x"]) == 2
    assert "error: ~/x: ~ is the home folder, but HOME is not set" in capsys.readouterr().err
    assert os.listdir() == []


def options_of(parser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from options_of(each)
        elif action.metavar in ("FILE", "DIR", "PATH", "IMAGE", "DATA", "OUT", "DETECTOR", "PICTURES"):
            yield action.dest


def test_every_argument_that_is_a_path_is_known():
    """A new one must be added, or ~ would be no home folder there."""
    assert set(options_of(command.build_parser())) == set(command.PATHS)
    assert set(options_of(convert_program.build_parser())) == set(convert_program.PATHS)


def test_an_empty_path_is_not_the_working_directory(home, capsys):
    """Of a variable of the shell that is not set."""
    for words in (["predict", "a", "--export", ""], ["export", "--weights", "w", "--output", ""]):
        assert command.main(words) == 2
        assert (
            f"error: {words[-2][2:]} is an empty path: give one, or leave it out" in capsys.readouterr().err
        )
    assert convert_program.main(["inspect", ""]) != 0
    assert "is an empty path" in capsys.readouterr().err
    assert os.listdir() == []


def test_arguments_of_the_commands(home, capsys):
    assert command.main(["predict", "~/a", "--weights", "~/w"]) == 2
    assert f"error: no image {home}/a" in capsys.readouterr().err
    assert convert_program.main(["inspect", "~/w.pth"]) == 3
    assert f"error: no file {home}/w.pth" in capsys.readouterr().err


def test_the_list_of_images_is_kept_in_the_home_folder_if_there_is_one(home, monkeypatch):
    assert index_file("x").parent == home / ".cache" / "paddle_inline"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert index_file("x").parent == home / ".cache" / "paddle_inline"
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert index_file("x").parent == Path("/c/paddle_inline")


def test_without_a_home_no_list_is_kept(homeless):
    assert index_file("x") is None and home_folder() is None


@pytest.mark.parametrize("kind", [str, Path])
def test_the_kind_of_a_path_stays(home, kind):
    assert expand(kind("~/a")) == kind(home / "a") and isinstance(expand(kind("~/a")), kind)
    for other in ("a/~", "/~", "", "a~b"):
        assert expand(kind(other)) == kind(other)
    assert expand("./~/a") == "./~/a"


def test_a_folder_that_is_called_so_can_be_walked(home):
    (home / "a.png").write_text("another")
    Path("./~").mkdir()
    Image.new("RGB", (3, 2)).save("./~/a.png")
    for where in ("./~", "./~/*.png", "./~/a.png"):
        (found,) = find_images([where])
        assert read_image(found).size == (3, 2)
    assert expand(7) == 7 and expand(b"~") == b"~" and expand(None) is None


def test_other_users_and_names_that_begin_so(home, monkeypatch):
    user = pwd.getpwuid(0)
    assert expand(f"~{user.pw_name}/a") == f"{user.pw_dir.rstrip('/')}/a"
    assert expand("~draft.txt") == "~draft.txt" and expand("~$a.doc") == "~$a.doc"
    with pytest.raises(UserError, match="no user nobody-of-this-name"):
        expand("~nobody-of-this-name/a")
    Path("~nobody-of-this-name").mkdir()
    assert expand("~nobody-of-this-name/a") == "~nobody-of-this-name/a"


def test_libraries_keep_their_files_elsewhere(homeless, monkeypatch):
    with home_for_libraries():
        assert os.path.expanduser("~/.visualdl") == os.path.join(tempfile.gettempdir(), ".visualdl")
    assert "HOME" not in os.environ
    monkeypatch.setenv("HOME", "")
    with home_for_libraries():
        assert os.environ["HOME"] == tempfile.gettempdir()
    assert os.environ["HOME"] == ""


def test_a_home_that_is_there_stays_that_of_libraries(home):
    with home_for_libraries():
        assert os.environ["HOME"] == str(home)


def test_an_empty_home_is_none(home, monkeypatch):
    monkeypatch.setenv("HOME", "")
    with pytest.raises(UserError, match="HOME is not set"):
        expand("~/a")
