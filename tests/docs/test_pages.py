"""The commands that the documentation shows are ones that the programs understand."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fences import commands

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def understood(words):
    """Whether a command's program parses it and its configuration file exists; None for other programs."""
    if "train_paddle.py" in words:
        from paddle_inline.training import program

        arguments = program.parse(words[words.index("train_paddle.py") + 1 :])
        return not arguments.cfg or (ROOT / arguments.cfg).is_file()
    if words[:3] == ["python", "-m", "convert"]:
        from convert.__main__ import build_parser

        return bool(build_parser().parse_args(words[3:]))
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_understood(page):
    for words in commands(page.read_text(encoding="utf-8")):
        assert understood(words) is not False, " ".join(words)


def test_a_wrong_command_is_seen():
    with pytest.raises(SystemExit):
        understood(["python", "train_paddle.py", "--no-such-flag"])
    with pytest.raises(SystemExit):
        understood(["python", "-m", "convert", "verify", "--no-such-flag"])
    assert understood(["python", "train_paddle.py", "--cfg", "configs/absent.yaml"]) is False
