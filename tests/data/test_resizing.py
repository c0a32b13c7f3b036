"""Images many times as long as wide: the middle of the result, for the memory of the middle."""

import numpy as np
import pytest
from PIL import Image

from paddle_inline.data.draws import Draws
from paddle_inline.data.resizing import LONGEST, resized
from paddle_inline.data.transforms import eval_transform


@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
@pytest.mark.parametrize("shape", [(400, 9), (9, 401), (7, 1000), (1000, 3)])
def test_the_middle_is_that_of_the_whole(shape, resample):
    image = Image.fromarray(np.random.RandomState(0).randint(90, 160, (*shape, 3)).astype(np.uint8))
    short = 20
    size = tuple(int(short * side / min(shape)) for side in shape[::-1])
    whole, part = (
        np.asarray(image.resize(size, resample)).astype(int),
        np.asarray(resized(image, size, resample)),
    )
    assert max(part.shape[:2]) in (LONGEST * short, LONGEST * short + 1)
    starts = [(a - b) // 2 for a, b in zip(whole.shape, part.shape)]
    assert all((a - b) % 2 == 0 for a, b in zip(whole.shape, part.shape))
    same = whole[starts[0] : starts[0] + part.shape[0], starts[1] : starts[1] + part.shape[1]]
    inner = tuple(slice(40, -40) if side > 100 else slice(None) for side in part.shape[:2])
    difference = np.abs(same[inner] - part[inner])
    assert (
        difference.max() <= 2 and difference.mean() < 0.5
    )  # the order of the two directions rounds otherwise


def test_usual_images_are_resized_as_ever():
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (30, 400, 3)).astype(np.uint8))
    size = (266, 20)
    assert resized(image, size, Image.Resampling.BICUBIC) == image.resize(size, Image.Resampling.BICUBIC)


def test_a_strip_needs_no_memory_for_its_whole_length(monkeypatch):
    """The short side to 248: of 1 x 40,000 pixels the whole would have 10 million rows."""
    made, resize = [], Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, size, *a, **k: made.append(size) or resize(self, size, *a, **k)
    )
    transform = eval_transform(224, mean=(0.5,) * 3, std=(0.5,) * 3, resize="short", crop_ratio=0.9)
    for size in ((1, 40_000), (40_000, 1)):
        pixels = transform(Image.new("RGB", size, (255, 0, 128)), Draws(0, 0, 0))
        assert pixels.shape == (3, 224, 224)
        np.testing.assert_allclose(pixels[:, 100, 100], [1, -1, 128 / 127.5 - 1], atol=1e-6)
    assert max(max(size) for size in made) == LONGEST * 248
