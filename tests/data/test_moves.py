"""Rotations, shears and translations by compiled loops: the bits of Pillow's transform."""

import numpy as np
import pytest
from PIL import Image

from paddle_inline.data.filters import loops
from paddle_inline.data.moves import move, rotation
from paddle_inline.utils import compiled

FILL = (124, 116, 104)
needs_loops = pytest.mark.skipif(
    loops() is None, reason="without Numba, or where its bits may not be Pillow's, Pillow moves pixels"
)


def pictures(count):
    """Of noise and, where the cubic leaves 0..255, of black and white alone."""
    rng = np.random.RandomState(0)
    for i in range(count):
        values = rng.randint(0, 256, (*rng.randint(1, 80, 2), 3))
        yield rng, Image.fromarray((values if i % 2 else (values > 127) * 255).astype(np.uint8))


def check(image, matrix):
    expected = image.transform(image.size, Image.AFFINE, matrix, Image.BICUBIC, fillcolor=FILL)
    np.testing.assert_array_equal(
        np.asarray(move(image, matrix, FILL)), np.asarray(expected), err_msg=str(matrix)
    )


@needs_loops
def test_any_matrix():
    for rng, image in pictures(150):
        a, b, d, e = rng.uniform(-2, 2, 4)
        check(image, (a, b, rng.uniform(-40, 40), d, e, rng.uniform(-40, 40)))


@needs_loops
def test_one_axis():
    """Also where rounding sets neighbours two apart, on whole and half pixels, and beyond every edge."""
    for rng, image in pictures(40):
        for lean, offset in [(rng.uniform(-1, 1), 0), (0, rng.uniform(-90, 90)), (0.2, -3.3), (0.25, 0)] + [
            (0, offset) for offset in (0, 1, -7, 3.5, -0.25, 500, -500)
        ]:
            check(image, (1, lean, offset, 0, 1, 0))
            check(image, (1, 0, 0, lean, 1, offset))


@needs_loops
def test_rotations():
    for rng, image in pictures(100):
        degrees = rng.uniform(-200, 200)
        found = move(image, rotation(image.size, degrees), FILL)
        assert found == image.rotate(degrees, Image.BICUBIC, fillcolor=FILL)


def test_without_loops_nothing_is_moved(photo):
    with compiled.paused():
        assert move(photo, (1, 0.2, 0, 0, 1, 0), FILL) is None
