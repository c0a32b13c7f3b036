"""Filters by compiled loops: the bits of Pillow's, and Pillow's own where there are no loops."""

import numpy as np
import pytest
from PIL import Image

from paddle_inline.data import filters
from paddle_inline.data.draws import Draws
from paddle_inline.data.filters import resize
from paddle_inline.data.reduced import Cut
from paddle_inline.data.transforms import eval_transform, train_transform
from paddle_inline.utils import compiled

FILTERS = (Image.BICUBIC, Image.BILINEAR)
needs_loops = pytest.mark.skipif(
    filters.loops() is None, reason="without Numba, or where its bits may not be Pillow's, Pillow filters"
)


def picture(rng, width, height, mode="RGB", top=256):
    values = rng.randint(0, top, (height, width, 3)) * (255 // (top - 1))
    return Image.fromarray(values.astype(np.uint8)).convert(mode)


@pytest.fixture
def only_loops(monkeypatch):
    """Fail where Pillow would filter in place of the loops; return Pillow's own."""
    pillow = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda *a, **k: pytest.fail("left to Pillow"))
    return pillow


@needs_loops
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("resample", FILTERS)
def test_bits_are_pillow_s(only_loops, mode, resample):
    """Of noise, and of black and white alone, where the cubic leaves 0..255; larger, smaller, all and boxes."""
    rng = np.random.RandomState(0)
    for case in range(600):
        longest = 300 if case % 20 == 0 else 60
        sides, size = rng.randint(1, longest, 2), tuple(rng.randint(1, longest, 2).tolist())
        image = picture(
            rng, max(sides[0], 1 + sides[1] // filters.SLIM), sides[1], mode, (256, 2)[case % 3 == 0]
        )
        ends = np.sort(rng.uniform(0, 1, (2, 2)), 1) * np.array(image.size)[:, None]
        ends[:, 1] += 1e-3 * (np.array(image.size) - ends[:, 1])
        if case % 5 == 0:
            ends = np.stack([np.floor(ends[:, 0]), np.floor(ends[:, 1]) + 1], 1)
        box = tuple(ends.T.ravel().tolist()) if case % 2 else None
        found, expected = resize(image, size, resample, box), only_loops(image, size, resample, box=box)
        assert (found.mode, found.size) == (expected.mode, expected.size)
        np.testing.assert_array_equal(
            np.asarray(found), np.asarray(expected), err_msg=f"{image.size} {size} {box}"
        )


@needs_loops
def test_the_same_size_is_the_same_picture(only_loops, photo):
    assert resize(photo, photo.size, Image.BICUBIC) == photo
    assert resize(photo, (61, 20), Image.BICUBIC) == only_loops(photo, (61, 20), Image.BICUBIC)


@needs_loops
def test_cuts_are_pillow_s(only_loops, photo):
    box = (7, 3, 50, 40)
    assert Cut(box, (31, 33), Image.BICUBIC).of(photo) == only_loops(photo.crop(box), (31, 33), Image.BICUBIC)
    half = tuple(side / 2 for side in box)
    expected = only_loops(photo, (31, 33), Image.BILINEAR, box=half)
    assert Cut(box, (31, 33), Image.BILINEAR).of(photo, 2) == expected


@pytest.mark.parametrize(
    ("size", "mode", "resample"),
    [
        ((20, 30), "RGBA", Image.BICUBIC),
        ((20, 30), "P", Image.NEAREST),
        ((20, 30), "RGB", Image.LANCZOS),
        ((2, 300), "RGB", Image.BICUBIC),
    ],
)
def test_what_is_left_to_pillow(monkeypatch, size, mode, resample):
    """Other modes and filters, and slim pictures, whose rows Pillow may take before the columns."""
    asked, pillow = [], Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda *a, **k: asked.append(a) or pillow(*a, **k))
    image = picture(np.random.RandomState(0), *size, mode)
    assert resize(image, (9, 8), resample) == pillow(image, (9, 8), resample)
    assert asked


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, 0, 62, 5), (5, 0, 2, 5)])
def test_a_box_outside_is_pillow_s_error(photo, box):
    with pytest.raises(ValueError, match=r"[Bb]ox"):
        resize(photo, (9, 8), Image.BICUBIC, box)


@needs_loops
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
def test_recipes_make_the_same_arrays_without_loops(photo, channels, interpolation):
    common = dict(mean=(0.5,) * channels, std=(0.25,) * channels, interpolation=interpolation)
    recipes = [train_transform(40, **common), eval_transform((40, 48), resize="short", **common)]
    recipes += [eval_transform(40, **common), train_transform(32, **common)]
    for recipe in recipes:
        for seed in range(12):
            found = recipe(photo, Draws(0, seed))
            with compiled.paused():
                expected = recipe(photo, Draws(0, seed))
            np.testing.assert_array_equal(found, expected)


def test_without_numba_pillow_filters(photo, monkeypatch):
    monkeypatch.setattr(filters, "_imported", lambda: None)
    assert resize(photo, (20, 30), Image.BICUBIC) == photo.resize((20, 30), Image.BICUBIC)
