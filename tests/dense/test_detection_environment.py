"""The environment of `make test-dense`: the wheels that the mends are made for."""

import importlib.metadata


def test_the_wheel_is_the_one_that_is_mended():
    assert importlib.metadata.version("paddledet") == "2.6.0"
