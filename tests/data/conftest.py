"""Shared by the tests of the data pipeline."""

import random

import numpy as np
import pytest
from PIL import Image, ImageOps


@pytest.fixture
def timm_data(timm_installed, monkeypatch):
    """timm.data as it works with Pillow before 13, which posterized to no bits at all: black."""
    posterize = ImageOps.posterize
    monkeypatch.setattr(
        ImageOps, "posterize", lambda im, bits: posterize(im, bits) if bits > 0 else im.point(lambda _: 0)
    )
    return timm_installed


@pytest.fixture(scope="session")
def timm_installed():
    """timm.data, the reference of the transforms; a CPU torch beside a GPU torchvision works too."""
    for name in ("torch", "torchvision"):
        pytest.importorskip(name)
    return pytest.importorskip("timm.data")


@pytest.fixture
def photo():
    """A smooth, colourful image whose sides differ, 61 x 47 pixels."""
    y, x = np.mgrid[0:47, 0:61] / 47
    noise = np.random.RandomState(0).uniform(0, 0.2, (47, 61, 3))
    channels = np.stack([np.sin(3 * x) ** 2, np.cos(4 * y * x) ** 2, (x + y) / 2.4], -1)
    return Image.fromarray((255 * np.clip(0.8 * channels + noise, 0, 1)).astype(np.uint8))


class Pair:
    """Our draws and the global generators, set to the same state."""

    def __init__(self, seed):
        random.seed(seed)
        np.random.seed(seed)
        self.py = random.Random(seed)
        self.np = np.random.RandomState(seed)


@pytest.fixture
def paired():
    return Pair
