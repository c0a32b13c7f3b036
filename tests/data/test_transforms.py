"""Transforms against timm and torchvision: the same draws give the same pixels."""

import collections
import random

import numpy as np
import pytest
from PIL import Image

from paddle_inline.data import randaugment, transforms
from paddle_inline.data.draws import Draws, seed_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pixels(image):
    return np.asarray(image)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (3.0, 4.0), (0.1, 0.2)], ids=["usual", "wide", "tall"])
def test_random_resized_crop_equals_timm(timm_data, photo, paired, interpolation, ratio):
    scale = (0.08, 1.0) if ratio[0] == 3 / 4 else (0.9, 1.0)  # where no box fits, the centre is taken
    reference = timm_data.transforms.RandomResizedCropAndInterpolation(
        40, scale=scale, ratio=ratio, interpolation=interpolation
    )
    candidate = transforms.RandomResizedCrop(40, scale, ratio, interpolation)
    for seed in range(20):
        draws = paired(seed)
        np.testing.assert_array_equal(pixels(reference(photo)), pixels(candidate(photo, draws)))


@pytest.mark.parametrize(
    "policy",
    [
        "rand-m9-mstd0.5-inc1",
        "rand-m9-n3-mstd0.5",
        "rand-m15-mmax20-mstd1-p1-inc1",
        "rand-mstd101-n4-inc1",
        "rand-m9-tweights-n3-inc1",
        "rand-m9-t3a-p0.9",
        "rand-m7-t3aw-n4-mstd0.5",
    ],
)
@pytest.mark.parametrize("interpolation", ["bicubic", "random"])
def test_rand_augment_equals_timm(timm_data, photo, paired, policy, interpolation):
    pil = {"bicubic": Image.BICUBIC, "random": (Image.BILINEAR, Image.BICUBIC)}[interpolation]
    fill = (124, 116, 104)
    reference = timm_data.auto_augment.rand_augment_transform(
        policy, dict(translate_const=100, img_mean=fill, interpolation=pil)
    )
    candidate = randaugment.rand_augment(policy, fill, pil)
    for seed in range(40):
        draws = paired(seed)
        np.testing.assert_array_equal(pixels(reference(photo)), pixels(candidate(photo, draws)))


@pytest.mark.parametrize("name", [*randaugment.PLAIN, *randaugment.LEVELLED])
@pytest.mark.parametrize("magnitude", [0, 5, 10])
def test_every_operation_equals_timm(timm_data, photo, paired, name, magnitude):
    reference = timm_data.auto_augment.AugmentOp(
        name, 1.0, magnitude, dict(img_mean=(1, 2, 3), interpolation=Image.BILINEAR)
    )
    candidate = randaugment.RandAugment(
        [name],
        randaugment.Geometry((1, 2, 3), Image.BILINEAR),
        magnitude=magnitude,
        count=1,
        p=1.0,
        deviation=0.0,
        top=10.0,
    )
    for seed in range(4):
        draws = paired(seed)
        np.testing.assert_array_equal(pixels(reference(photo)), pixels(candidate.apply(name, photo, draws)))


def test_the_sets_of_operations_are_timms(timm_data):
    reference = timm_data.auto_augment
    assert list(randaugment.INCREASING) == reference._RAND_INCREASING_TRANSFORMS
    assert list(randaugment.STANDARD) == reference._RAND_TRANSFORMS
    assert list(randaugment.THREE) == reference._RAND_3A
    assert randaugment.WEIGHTED["weights"] == reference._RAND_WEIGHTED_0
    assert randaugment.WEIGHTED["3aw"] == reference._RAND_WEIGHTED_3A


def test_rand_augment_frequencies(photo):
    """Each of the 15 operations is drawn equally often: 3000 draws, 200 each, +-5 deviations."""
    policy = randaugment.rand_augment("rand-m9-mstd0.5-inc1", (0, 0, 0))
    seen = collections.Counter()
    policy.apply = lambda name, image, draws: seen.update([name]) or image
    for seed in range(1500):
        policy(photo, Draws(seed))
    assert sum(seen.values()) == 3000 and len(seen) == 15
    assert all(abs(count - 200) < 5 * 13.7 for count in seen.values()), seen


@pytest.mark.parametrize("policy", ["rand-x9", "autoaug", "rand-m", "rand-m9-tbest", "rand-9", ""])
def test_a_policy_that_cannot_be_read(policy):
    with pytest.raises(ValueError, match="is no policy"):
        randaugment.rand_augment(policy, (0, 0, 0))


@pytest.mark.parametrize("count", [1, 3])
def test_random_erasing_boxes_equal_timm(timm_data, paired, count):
    import torch

    reference = timm_data.random_erasing.RandomErasing(0.5, mode="const", max_count=count, device="cpu")
    candidate = transforms.RandomErasing(0.5, "const", count)
    touched = 0
    for seed in range(60):
        draws = paired(seed)
        image = np.ones((3, 40, 56), np.float32)
        expected = reference(torch.from_numpy(image.copy())).numpy()
        np.testing.assert_array_equal(candidate(image, draws), expected)
        touched += not expected.all()
    assert 15 < touched < 45


@pytest.mark.parametrize(("mode", "values"), [("pixel", "every"), ("rand", "channel"), ("const", "zero")])
def test_what_random_erasing_writes(mode, values):
    erase = transforms.RandomErasing(1.0, mode)
    noise = []
    for seed in range(200):
        image = np.full((3, 32, 32), 9.0, np.float32)
        box = erase.boxes(32, 32, Draws(seed))
        image = erase(image, Draws(seed))
        if not box:
            continue
        top, left, h, w = box[0]
        inside = image[:, top : top + h, left : left + w]
        assert (image == 9.0).sum() == image.size - inside.size
        if values == "zero":
            assert not inside.any()
        elif values == "channel":
            assert (inside == inside[:, :1, :1]).all() and len(np.unique(inside)) == 3
        else:
            assert len(np.unique(inside)) == inside.size
        noise += list(inside.ravel() if mode == "pixel" else inside[:, 0, 0])
    if mode != "const":
        assert abs(np.mean(noise)) < 0.1 and abs(np.std(noise) - 1) < 0.1
    with pytest.raises(ValueError, match="pixel, rand, const"):
        transforms.RandomErasing(1.0, "salt")


def test_to_array_equals_torchvision(timm_data, photo):
    import torchvision.transforms as T

    reference = T.Compose([T.ToTensor(), T.Normalize(MEAN, STD)])(photo).numpy()
    np.testing.assert_array_equal(transforms.ToArray(MEAN, STD)(photo, None), reference)


def test_colour_jitter_equals_torchvision_for_the_same_factors(timm_data, photo):
    import torchvision.transforms.functional as TF

    adjust = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation)
    jitter = transforms.ColorJitter(0.4)
    for seed in range(10):
        candidate, draws, reference = jitter(photo, Draws(seed)), Draws(seed), photo
        for i in draws.np.permutation(3):
            reference = adjust[i](reference, draws.py.uniform(0.6, 1.4))
        np.testing.assert_array_equal(pixels(candidate), pixels(reference))


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("crop", [True, False])
def test_eval_squashes_both_sides_then_crops(timm_data, photo, size, crop):
    import torchvision.transforms as T

    steps = [T.Resize((int(256 / 224 * size),) * 2, T.InterpolationMode.BICUBIC), T.CenterCrop(size)]
    if not crop:
        steps = [T.Resize((size, size), T.InterpolationMode.BICUBIC)]
    reference = T.Compose([*steps, T.ToTensor(), T.Normalize(MEAN, STD)])(photo).numpy()
    candidate = transforms.eval_transform(size, mean=MEAN, std=STD, crop=crop)
    np.testing.assert_array_equal(candidate(photo, None), reference)


def names(transform):
    return [type(step).__name__ for step in transform.steps]


def test_the_training_recipe_in_order():
    make = transforms.train_transform
    crop, array = "RandomResizedCrop", "ToArray"
    assert names(make(224, mean=MEAN, std=STD)) == [
        *(crop, "RandomFlip", "RandAugment"),
        *(array, "RandomErasing"),
    ]
    plain = make(224, mean=MEAN, std=STD, auto_augment="none", reprob=0, rotation=20)
    assert names(plain) == [crop, "RandomFlip", "RandomRotation", "ColorJitter", array]
    small = make(32, mean=MEAN, std=STD, auto_augment="none", color_jitter=0, reprob=0, hflip=0)
    assert names(small) == ["Resize", "RandomShift", array]


def test_the_recipe_is_a_function_of_its_draws(photo):
    transform = transforms.train_transform(48, mean=MEAN, std=STD, reprob=1.0)
    first, again = transform(photo, Draws(0, 3, 7)), transform(photo, Draws(0, 3, 7))
    assert first.shape == (3, 48, 48) and first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    state = random.getstate(), np.random.get_state()[1].tobytes()
    assert not np.array_equal(first, transform(photo, Draws(0, 3, 8)))
    assert state == (random.getstate(), np.random.get_state()[1].tobytes())  # globals untouched


def test_shift_and_flip_and_rotation(photo):
    image = photo.resize((32, 32))
    corner = set()
    for seed in range(300):
        shifted = pixels(transforms.RandomShift(4)(image, Draws(seed)))
        assert shifted.shape == (32, 32, 3)
        rows = np.flatnonzero(shifted.any((1, 2)))
        corner.add((rows[0], 31 - rows[-1]))
    assert {top for top, _ in corner} == {0, 1, 2, 3, 4} == {bottom for _, bottom in corner}
    flip = transforms.RandomFlip(0.5)
    flipped = sum(
        np.array_equal(pixels(flip(image, Draws(seed))), pixels(image)[:, ::-1]) for seed in range(400)
    )
    assert 150 < flipped < 250
    turned = pixels(transforms.RandomRotation(20)(image, Draws(1)))
    assert turned.shape == (32, 32, 3) and not np.array_equal(turned, pixels(image))


def test_draws_depend_on_the_whole_key():
    def first(*key):
        draws = Draws(*key)
        return draws.py.random(), draws.np.rand()

    assert first(0, 1, 2) == first(0, 1, 2)
    seen = {first(*key) for key in [(0, 1, 2), (0, 2, 1), (1, 1, 2), (0, 1, 3), (0, 1)]}
    assert len(seen) == 5
    assert len({seed_of(0, rank, 5) for rank in range(50)}) == 50
