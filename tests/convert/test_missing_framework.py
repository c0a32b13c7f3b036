"""Without one of the frameworks a command says so in one line."""

import sys

from convert.__main__ import main


def test_missing_torch_is_one_message(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    assert main(["verify", "--model", "inline_deit_digits"]) == 2
    assert capsys.readouterr().err == "error: this needs torch, which is not installed (README, Install)\n"
