"""The program where PaddleSeg is not installed."""

import importlib.util
from pathlib import Path

import pytest

from paddle_inline.segmentation import mends
from paddle_inline.segmentation.cli import main
from paddle_inline.utils.errors import MissingPackageError

CONFIG = Path(__file__).parents[2] / "configs" / "segmentation" / "semantic_fpn_inline_pvt_tiny_40k.yml"


@pytest.mark.skipif(importlib.util.find_spec("paddleseg") is not None, reason="PaddleSeg is installed")
def test_a_toolkit_that_is_missing_is_one_line_with_the_command_that_installs_it(capsys):
    assert main(["train", "--cfg", str(CONFIG)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "error: paddleseg is not installed; install it with: pip install paddleseg==2.8.0" in error


@pytest.mark.parametrize("command", ["train", "eval", "predict", "export"])
def test_help_needs_no_toolkit(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert "--cfg FILE" in capsys.readouterr().out


def test_a_toolkit_that_cannot_be_imported_says_what_it_goes_with(monkeypatch):
    def broken(package, install):
        raise ImportError("numpy.core.multiarray failed to import")

    monkeypatch.setattr(mends, "require", broken)
    with pytest.raises(
        MissingPackageError, match=r"multiarray failed to import.*paddleseg==2\.8\.0 'numpy<2'"
    ):
        mends.toolkit()
