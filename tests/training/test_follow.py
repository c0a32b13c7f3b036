"""`--eval` makes images as the weights say that theirs are made: every entry of their transform, each by its own."""

import pytest

from paddle_inline.config.evaluation import evaluation_transform
from paddle_inline.config.schema import Config, known_settings
from paddle_inline.training import described_eval
from paddle_inline.weights.description import check_transform

OTHER = {  # setting: a value that is not its default
    "data.img_size": 96,
    "data.mean": [0.1, 0.2, 0.3],
    "data.std": [0.4, 0.5, 0.6],
    "data.interpolation": "bilinear",
    "test.crop": False,
    "test.resize": "short",
    "test.crop_ratio": 0.5,
}


def value_of(config, key):
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def set_value(config, key, value):
    section, name = key.split(".")
    setattr(getattr(config, section), name, value)


@pytest.fixture
def weights(monkeypatch):
    """Return the function that lets weights say this transform."""

    def say(transform, model="inline_deit_tiny"):
        described = {"model": model, "overrides": {}, "transform": transform}
        monkeypatch.setattr(described_eval, "open_weights", lambda path: ({}, described))

    return say


def test_every_entry_of_a_transform_is_followed():
    assert set(described_eval.SETTINGS) == set(OTHER) <= set(known_settings())
    assert set(described_eval.SETTINGS.values()) == set(evaluation_transform(Config()))


@pytest.mark.parametrize("key", OTHER)
def test_an_entry_of_the_weights_takes_the_place_of_its_setting(weights, key):
    asked, config = Config(), Config()
    set_value(asked, key, OTHER[key])
    transform = evaluation_transform(asked)
    assert check_transform(transform) == transform != evaluation_transform(config)
    weights(transform)
    assert described_eval.follow(config, "w", set(), named=True) == []
    assert value_of(config, key) == OTHER[key] and evaluation_transform(config) == transform
    assert config == asked


@pytest.mark.parametrize("key", OTHER)
def test_what_the_command_line_says_stays_and_the_difference_is_said(weights, key):
    config = Config()
    default = value_of(config, key)
    weights({**evaluation_transform(config), described_eval.SETTINGS[key]: OTHER[key]})
    (note,) = described_eval.follow(config, "w", {key}, named=True)
    assert note == f"{key} is {default}, as you say; the weights were evaluated with {OTHER[key]}"
    assert config == Config()


@pytest.mark.parametrize("named", [True, False])
def test_weights_of_another_model_are_refused_where_one_is_named(weights, named):
    weights(evaluation_transform(Config()), model="soft_tiny")
    config = Config()
    if named:
        with pytest.raises(ValueError, match="w is of soft_tiny, the settings name inline_deit_tiny"):
            described_eval.follow(config, "w", set(), named=True)
        return
    described_eval.follow(config, "w", set(), named=False)
    assert config.model.name == "soft_tiny"
    with pytest.raises(ValueError, match="the settings name inline_deit_tiny"):
        described_eval.follow(Config(), "w", {"model.name"}, named=False)
