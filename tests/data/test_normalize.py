"""Batches that travel in 8 bits become the bits that one image after the other gives."""

import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_inline.data.draws import Draws
from paddle_inline.data.loaders import Loader, Samples
from paddle_inline.data.normalize import Normalize, Pixels, collate_pixels
from paddle_inline.data.prefetch import Prefetch
from paddle_inline.data.transforms import Compose, RandomErasing, ToArray, eval_transform, train_transform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RNG = np.random.RandomState(0)
PHOTOS = [Image.fromarray(RNG.randint(0, 256, (40 + i, 50, 3)).astype(np.uint8)) for i in range(6)]


class Source:
    classes = ("a",)

    def __len__(self):
        return len(PHOTOS)

    def __getitem__(self, index):
        return PHOTOS[index], index

    def name(self, index):
        return f"photo {index}"


def by_hand(image, mean=MEAN, std=STD):
    """The definition, in float32: (value / 255 - mean) / std."""
    values = np.asarray(image).reshape(image.height, image.width, -1).astype(np.float32).transpose(2, 0, 1)
    mean, std = (np.float32(each).reshape(-1, 1, 1) for each in (mean, std))
    return (values / np.float32(255) - mean) / std


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_value_is_normalised_as_the_definition_says(channels):
    mean, std = (MEAN[0], *MEAN)[:channels], (STD[0], *STD)[:channels]
    values = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 16, 16), (channels, 1, 1))
    image = Image.fromarray(values.transpose(1, 2, 0).squeeze())
    expected = by_hand(image, mean, std)
    normalize = Normalize(mean, std)
    np.testing.assert_array_equal(ToArray(mean, std)(image, None), expected)
    batch = [
        paddle.to_tensor(part)
        for part in collate_pixels([Pixels(values, *erased()), Pixels(values, *erased())])
    ]
    for way in (normalize, normalize.by_table):  # the host's, and a device's
        found = way(*batch)
        assert found.dtype == paddle.float32 and found.shape == [2, channels, 16, 16]
        np.testing.assert_array_equal(found.numpy(), np.stack([expected, expected]))


def erased(*places):
    return np.asarray(places, np.int32), -np.arange(1, len(places) + 1, dtype=np.float32)


def test_what_is_erased_stands_where_it_belongs():
    values = np.zeros((3, 2, 2), np.uint8)
    parts = collate_pixels(
        [Pixels(values, *erased()), Pixels(values, *erased(0, 11)), Pixels(values, *erased(5))]
    )
    assert parts[0].dtype == np.uint8 and [each.tolist() for each in parts[1:]] == [
        [12, 23, 29, 36],
        [-1, -2, -1, 0],
    ]
    normalize = Normalize((0.0,) * 3, (1.0,) * 3)
    expected = np.zeros(36, np.float32)
    expected[[12, 23, 29]] = -1, -2, -1
    for way in (normalize, normalize.by_table):
        np.testing.assert_array_equal(way(*map(paddle.to_tensor, parts)).numpy().ravel(), expected)
        none = collate_pixels([Pixels(values, *erased())])
        assert way(*map(paddle.to_tensor, none)).numpy().tolist() == np.zeros((1, 3, 2, 2)).tolist()


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
@pytest.mark.parametrize("count", [1, 5])
def test_places_and_filling_are_what_a_call_writes(mode, count):
    """Of several boxes, the last stands where they overlap; every place comes once."""
    erase, overlaps = RandomErasing(0.9, mode, count), 0
    for seed in range(40):
        expected = erase(np.full((3, 30, 20), 9.0, np.float32), Draws(seed))
        places, filling = erase.filling((3, 30, 20), Draws(seed))
        found = np.full(1800, 9.0, np.float32)
        found[places[::-1]] = filling[::-1]
        np.testing.assert_array_equal(found.reshape(3, 30, 20), expected)
        assert (
            len(np.unique(places)) == len(places) and filling.dtype == np.float32 and places.dtype == np.int32
        )
        boxes = erase.boxes(30, 20, Draws(seed))
        overlaps += sum(3 * h * w for _, _, h, w in boxes) > len(places)
    assert (overlaps > 5) == (count > 1)


RECIPES = {
    "randaugment": train_transform(34, mean=MEAN, std=STD, reprob=0.9, recount=3),
    "simple": train_transform(34, mean=MEAN, std=STD, auto_augment="none", reprob=0),
    "evaluation": eval_transform(34, mean=MEAN, std=STD),
    "grey": train_transform(34, mean=MEAN[:1], std=STD[:1], reprob=1.0),
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_the_bits_of_single_images(name, workers):
    samples = Samples(Source(), RECIPES[name], seed=3)
    keys = [[(1, 0), (1, 4)], [(1, 2), (1, 5)]]
    expected = [np.stack([RECIPES[name](PHOTOS[i], Draws(3, 1, i)) for _, i in batch]) for batch in keys]
    np.testing.assert_array_equal(np.stack([samples[key][0] for key in keys[0]]), expected[0])
    loader = Loader(samples, keys, num_workers=workers)
    for batches in (list(loader), list(Prefetch(loader))):
        for (images, _), right in zip(batches, expected):
            assert images.dtype == paddle.float32 and images.place.is_cpu_place()
            np.testing.assert_array_equal(images.numpy(), right)  # after the workers have ended, too
    first = next(loader.unfinished())
    assert first[0].dtype == paddle.uint8 and first[0].shape == [2, 1 if name == "grey" else 3, 34, 34]


def test_a_recipe_of_another_end_hands_over_its_own_arrays():
    """It is run whole, nothing is left out."""
    twice = Compose([*RECIPES["simple"].steps, lambda pixels, draws: 2 * pixels])
    samples = Samples(Source(), twice, seed=3)
    assert samples.normalize is None
    ((images, _),) = Loader(samples, [[(1, 0)]])
    np.testing.assert_array_equal(images.numpy()[0], 2 * RECIPES["simple"](PHOTOS[0], Draws(3, 1, 0)))


def test_images_outlive_the_memory_that_they_were_made_in():
    kept = [
        images for images, _ in Loader(Samples(Source(), RECIPES["simple"]), [[(0, i)] for i in range(6)])
    ]
    expected = [RECIPES["simple"](PHOTOS[i], Draws(0, 0, i)) for i in range(6)]
    np.zeros((6, 3, 34, 34), np.float32)  # (may be put where memory was given back)
    for images, right in zip(kept, expected):
        np.testing.assert_array_equal((images + 0).numpy()[0], right)
