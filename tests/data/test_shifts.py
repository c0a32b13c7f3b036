"""Shears and translations along one axis: the bits of Pillow's transform."""

import contextlib

import numpy as np
import pytest
from PIL import Image

from paddle_inline.data import randaugment
from paddle_inline.data.draws import Draws
from paddle_inline.data.shifts import SAME_BITS, shift
from paddle_inline.utils import compiled

FILL = (124, 116, 104)
needs_same_bits = pytest.mark.skipif(
    not SAME_BITS, reason="Pillow may have fused multiply-adds here: not used"
)


def matrices(size):
    """Leans and offsets drawn as RandAugment draws them, whole and half pixels, and beyond every edge."""
    rng = np.random.RandomState(0)
    leans = [0, *rng.uniform(-0.3, 0.3, 4), 0.25, -0.27, 1.5]
    offsets = [0, *(rng.uniform(-0.45, 0.45, 4) * max(size)), 1, -7, 3.5, -0.25, 90.72, 500, -500]
    for lean, offset in (
        [(lean, 0) for lean in leans] + [(0, offset) for offset in offsets] + [(0.21, -3.317)]
    ):
        yield 1, lean, offset, 0, 1, 0
        yield 1, 0, 0, lean, 1, offset


@needs_same_bits
@pytest.mark.parametrize("size", [(61, 47), (48, 80), (1, 1), (3, 1), (1, 5)])
@pytest.mark.parametrize("top", [256, 2])
def test_bits_are_pillow_s(size, top):
    """Of noise, and of black and white alone, where the cubic leaves 0..255 on either side."""
    noise = np.random.RandomState(1).randint(0, top, (size[1], size[0], 3)) * (255 // (top - 1))
    image = Image.fromarray(noise.astype(np.uint8))
    for matrix in matrices(size):
        expected = image.transform(size, Image.AFFINE, matrix, Image.BICUBIC, fillcolor=FILL)
        found = shift(image, matrix, FILL)
        assert found.mode == "RGB" and found.size == size
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected), err_msg=str(matrix))


def test_what_is_left_to_pillow(photo):
    """Other matrices, and rows that lie on whole pixels but for the rounding, which sets neighbours two apart."""
    assert shift(photo, (1, 0.2, 0, 0.1, 1, 0), FILL) is None
    assert shift(photo, (0.9, 0, 0, 0, 1, 0), FILL) is None
    assert shift(photo, (1, 0.2, -3.3, 0, 1, 0), FILL) is None


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("resample", [Image.BICUBIC, Image.BILINEAR])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"])
def test_operations_keep_their_bits(photo, monkeypatch, name, mode, resample, loops):
    image = photo.convert(mode)
    policy = randaugment.rand_augment(
        "rand-m9-mstd0.5-inc1", FILL[: len(mode)] + (255,) * (len(mode) == 4), resample
    )
    with contextlib.nullcontext() if loops else compiled.paused():
        found = [policy.apply(name, image, Draws(0, seed)) for seed in range(8)]
    monkeypatch.setattr(randaugment, "SAME_BITS", False)
    with compiled.paused():
        for seed, image_found in enumerate(found):
            expected = policy.apply(name, image, Draws(0, seed))
            np.testing.assert_array_equal(np.asarray(image_found), np.asarray(expected))
