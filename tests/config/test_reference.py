"""The page of settings has every one, as the schema has it."""

from pathlib import Path

from paddle_inline.cli.main import main
from paddle_inline.config import reference
from paddle_inline.config.schema import known_settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_every_setting_has_a_meaning():
    assert list(reference.MEANINGS) == list(known_settings()), (
        "settings and their meanings, in the schema's order"
    )


def test_the_page_is_what_the_command_prints(capsys):
    assert main(["settings", "--markdown"]) == 0
    made = "`python -m paddle_inline settings --markdown > docs/settings.md` renews the page"
    assert capsys.readouterr().out == PAGE.read_text(encoding="utf-8"), made


def test_a_row_says_what_is_taken():
    rows = {row.key: (row.default, row.takes) for row in reference.reference()}
    assert rows["model.drop_rate"] == ("0", "number from 0 below 1")
    assert rows["train.clip_grad"] == ("5", "number from 0, or null")
    assert rows["aug.ratio"] == ("[0.75, 1.33333]", "two numbers, the smaller first")
    assert rows["data.std"] == ("[0.229, 0.224, 0.225]", "numbers above 0")
    assert rows["amp.dtype"] == ("float16", "float16, bfloat16")
    assert rows["ema.decay"] == ("null", "number from 0 below 1, or null")
    assert rows["visualdl"] == ("true", "true, false")


def test_the_terminal_shows_those_that_are_asked_for(capsys):
    assert main(["settings", "img_size"]) == 0
    shown = capsys.readouterr().out
    assert "data.img_size" in shown and "[height," in shown and "aug." not in shown
    assert main(["settings", "nothing"]) == 2
    assert "no setting's key holds 'nothing'" in capsys.readouterr().err
