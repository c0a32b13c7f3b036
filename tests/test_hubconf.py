"""`paddle.hub` finds, explains and builds the models from a clone."""

from pathlib import Path

import numpy as np
import paddle
import pytest

import paddle_inline

ROOT = str(Path(__file__).parents[1])
SIZES = {"depth": 1, "embed_dim": 16, "num_heads": 2}


def test_every_model_is_listed_and_nothing_else():
    assert sorted(paddle.hub.list(ROOT, source="local")) == sorted(paddle_inline.list_models())


def test_help_says_what_it_builds_and_takes():
    text = paddle.hub.help(ROOT, "inline_swin_tiny", source="local")
    assert "Build inline_swin_tiny, a InLineSwin" in text and "weights" in text and "num_classes" in text


def test_a_model_is_loaded_with_its_arguments_and_weights(tmp_path):
    model = paddle.hub.load(ROOT, "inline_deit_digits", source="local", num_classes=3, **SIZES)
    assert (model.name, model.num_classes) == ("inline_deit_digits", 3)
    paddle.save(model.state_dict(), str(tmp_path / "w.pdparams"))
    again = paddle.hub.load(
        ROOT, "inline_deit_digits", source="local", weights=tmp_path / "w.pdparams", **SIZES
    )
    assert again.num_classes == 3
    np.testing.assert_array_equal(again.head.weight.numpy(), model.head.weight.numpy())


def test_what_is_not_there_is_said():
    with pytest.raises(RuntimeError, match="Cannot find callable resnet50 in hubconf"):
        paddle.hub.load(ROOT, "resnet50", source="local")
    with pytest.raises(
        ValueError, match="has no weights to download; pass weights=FILE instead of pretrained"
    ):
        paddle.hub.load(ROOT, "inline_deit_tiny", source="local", pretrained=True)
