"""Sources, samplers and loaders: who sees which image when, and what happens to a broken one."""

import collections
import multiprocessing
import os
import signal

import numpy as np
import pytest
from PIL import Image

from paddle_inline.data import embedded, loaders, sampler
from paddle_inline.data.embedded import Digits
from paddle_inline.data.loaders import BAD, BadImage, Loader, Samples
from paddle_inline.data.transforms import train_transform
from paddle_inline.utils.child import run_python


def test_digits_are_split_by_class_and_never_shared():
    pytest.importorskip("sklearn")
    train, test = Digits(train=True), Digits(train=False)
    assert (len(train), len(test)) == (1433, 364)
    assert collections.Counter(test.labels.tolist()) == dict(
        enumerate([36, 37, 36, 37, 37, 37, 37, 36, 35, 36])
    )
    image, label = train[0]
    assert image.mode == "RGB" and image.size == (8, 8) and label == train.labels[0]
    assert np.asarray(image).max() == 255
    # (All 1797 images differ, so a shared one would show.)
    seen = {image.tobytes() for image in train.pixels}
    assert len(seen) == 1433 and not any(image.tobytes() in seen for image in test.pixels)


def test_digits_are_those_of_sklearn(monkeypatch):
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = embedded.load_digits()
    expected = datasets.load_digits()
    np.testing.assert_array_equal(images, expected.images)
    np.testing.assert_array_equal(labels, expected.target)
    assert labels.dtype == np.int64
    monkeypatch.setattr(
        embedded.Path, "is_file", lambda path: False
    )  # in a version that keeps them elsewhere
    np.testing.assert_array_equal(embedded.load_digits()[0], expected.images)


def test_digits_without_sklearn_say_what_to_install(monkeypatch):
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        Digits(train=True)


def flat(batches):
    return [key for batch in batches for key in batch]


def test_the_order_depends_on_seed_and_epoch():
    orders = {
        tuple(sampler.epoch_order(50, seed, epoch))
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1), (10, 0)]
    }
    assert len(orders) == 5
    assert sorted(orders.pop()) == list(range(50))
    np.testing.assert_array_equal(sampler.epoch_order(50, 3, 4), sampler.epoch_order(50, 3, 4))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_a_step_as_one_rank_would_take_it(world):
    together = sampler.train_batches(53, 4 * world, seed=1, epoch=2)
    apart = [sampler.train_batches(53, 4, seed=1, epoch=2, rank=r, world=world) for r in range(world)]
    for k, batch in enumerate(together):
        assert batch == flat(ranks[k] for ranks in apart)
    keys = flat(flat(apart))
    assert len(set(keys)) == len(keys) == 53 // (4 * world) * 4 * world
    assert {epoch for epoch, _ in keys} == {2}


def test_an_epoch_is_taken_up_in_its_middle():
    whole = sampler.train_batches(40, 4, seed=0, epoch=1, rank=1, world=2)
    assert sampler.train_batches(40, 4, seed=0, epoch=1, rank=1, world=2, skip=3) == whole[3:]


def test_only_whole_steps_are_made():
    assert sampler.batches_per_epoch(100, 8, world=2, accumulation=3) == 6
    with pytest.raises(ValueError, match="8 x 2 ranks x 3 accumulation steps = 48"):
        sampler.batches_per_epoch(47, 8, world=2, accumulation=3)


@pytest.mark.parametrize(
    ("length", "size", "world", "accumulation", "way"),
    [
        (7, 8, 1, 1, "data.batch_size to 7 or less"),
        (7, 4, 1, 3, "data.batch_size to 2 or less"),
        (4, 4, 1, 50, "train.accumulation_steps to 4 or less, with data.batch_size 1"),
        (7, 1, 2, 4, "train.accumulation_steps to 3 or less"),
        (3, 1, 4, 1, "the number of ranks to 3 or less"),
    ],
)
def test_the_way_out_of_too_few_images_is_one(length, size, world, accumulation, way):
    with pytest.raises(ValueError, match=rf"{length} training images are fewer .* lower {way}"):
        sampler.batches_per_epoch(length, size, world, accumulation)
    number = int(way.split(" to ")[1].split()[0])
    if "batch_size to" in way:
        size = number
    elif "accumulation" in way:
        size, accumulation = 1, number
    else:
        world = number
    assert sampler.batches_per_epoch(length, size, world, accumulation) >= 1


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("length", [1, 5, 12, 13])
def test_evaluation_sees_every_image_once(world, length):
    keys = flat(flat(sampler.eval_batches(length, 4, rank=rank, world=world)) for rank in range(world))
    assert sorted(keys) == [(0, i) for i in range(length)]


class Photos:
    """Twelve flat images, two of which cannot be read."""

    classes = ("a", "b")

    def __init__(self, broken=(4, 11)):
        self.broken = broken

    def __len__(self):
        return 12

    def __getitem__(self, i):
        if i in self.broken:
            raise OSError("image file is truncated")
        return Image.new("RGB", (40, 40), (20 * i, 0, 255)), i

    def name(self, i):
        return f"photo{i}.jpg"


def transform():
    return train_transform(34, mean=(0.5,) * 3, std=(0.5,) * 3)


def collected(num_workers, epoch=0, source=None):
    samples = Samples(source or Photos(broken=()), transform(), seed=5)
    batches = sampler.train_batches(12, 2, seed=5, epoch=epoch)
    loaded = list(Loader(samples, batches, num_workers=num_workers))
    return [(images.numpy(), labels.numpy()) for images, labels in loaded]


@pytest.mark.parametrize("take", [1, 3, 6])
def test_a_loader_that_is_left_leaves_no_process_behind(take):
    """Training takes an epoch's batches and does not ask for one more, which is when Paddle's loader would end them."""
    samples = Samples(Photos(broken=()), transform())
    batches = iter(Loader(samples, [[(0, 2 * i), (0, 2 * i + 1)] for i in range(6)], num_workers=2))
    for _ in range(take):
        next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []


def test_batches_do_not_depend_on_the_number_of_workers():
    alone, three = collected(0), collected(3)
    assert len(alone) == 6 and alone[0][0].shape == (2, 3, 34, 34)
    assert alone[0][0].dtype == np.float32 and alone[0][1].dtype == np.int64
    for (a, b), (c, d) in zip(alone, three):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)
    other = collected(0, epoch=1)
    assert any(not np.array_equal(a, c) for (a, _), (c, _) in zip(alone, other))


def test_a_broken_image_is_fatal_and_named():
    samples = Samples(Photos(), transform())
    with pytest.raises(BadImage, match=r"photo4\.jpg cannot be read \(image file is truncated\); .*skip"):
        samples[(0, 4)]
    for num_workers in (0, 2):
        with pytest.raises(BadImage, match=r"photo4\.jpg cannot be read"):
            list(Loader(samples, [[(0, 3)], [(0, 4)], [(0, 5)]], num_workers=num_workers))


def test_a_killed_worker_ends_the_loading(monkeypatch):
    class Deadly(Photos):
        def __getitem__(self, i):
            os.kill(os.getpid(), signal.SIGKILL)

    samples = Samples(Deadly(), transform())
    loader = Loader(samples, [[(0, 3)], [(0, 4)]], num_workers=2)
    monkeypatch.setattr(loaders, "shared_memory_suffices", lambda *args: True)  # it loads one here
    with pytest.raises(RuntimeError, match="one of 2 data workers was killed"):
        list(loader)


def test_workers_end_when_loading_is_given_up():
    before = {child.pid for child in multiprocessing.active_children()}
    batches = iter(
        Loader(Samples(Photos(broken=()), transform()), [[(0, i)] for i in range(12)], num_workers=2)
    )
    next(batches)
    assert len({child.pid for child in multiprocessing.active_children()} - before) == 2
    batches.close()
    assert {child.pid for child in multiprocessing.active_children()} <= before


KILLED = """
import os, signal
from paddle_inline.data.embedded import Digits
from paddle_inline.data.loaders import Loader, Samples
from paddle_inline.data.transforms import train_transform

samples = Samples(Digits(train=False), train_transform(8, mean=(0.5,) * 3, std=(0.5,) * 3))
next(iter(Loader(samples, [[(0, i)] for i in range(12)], num_workers=2)))
kept = iter(Loader(samples, [[(0, i)] for i in range(12)], num_workers=2))
next(kept)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_when_their_run_is_killed():
    pytest.importorskip("sklearn")
    # (It ends when nobody holds its output any more, and the workers hold it.)
    assert run_python(KILLED, timeout=60).returncode == -signal.SIGKILL


def test_a_broken_image_is_replaced_or_not_counted(capfd):
    replaced = Samples(Photos(), transform(), on_bad_image="skip")
    assert [int(replaced[(0, i)][1]) for i in (3, 4, 11)] == [3, 5, 0]
    masked = Samples(Photos(), transform(), on_bad_image="skip", replace=False)
    assert [int(masked[(0, i)][1]) for i in (3, 4, 11)] == [3, BAD, BAD]
    assert "photo11.jpg cannot be read" in capfd.readouterr().err
    for num_workers in (0, 2):
        loader = Loader(replaced, [[(0, 3), (0, 4)], [(0, 11), (0, 5)]], num_workers=num_workers)
        assert [labels.tolist() for _, labels in loader] == [[3, 5], [0, 5]] and loader.bad == 2
    with pytest.raises(BadImage, match="no image"):
        Samples(Photos(range(12)), transform(), on_bad_image="skip")[(0, 0)]


def test_a_small_shared_memory_is_noticed(monkeypatch, capfd):
    samples, batches = Samples(Photos(()), transform()), [[(0, 1), (0, 2)]]
    one = 3 * 34 * 34 * 4

    def free(amount):
        usage = collections.namedtuple("usage", "free")(amount)
        monkeypatch.setattr(loaders.shutil, "disk_usage", lambda folder: usage)

    free(2 * 3 * 2 * one)
    assert loaders.shared_memory_suffices(samples, batches, num_workers=3)
    assert capfd.readouterr().err == ""
    free(2 * 3 * 2 * one - 1)
    assert not loaders.shared_memory_suffices(samples, batches, num_workers=3)
    assert "--shm-size" in capfd.readouterr().err
    whole = Samples(Photos(()), train_transform(34, mean=(0.5,) * 3, std=(0.5,) * 3, reprob=0))
    free(2 * 3 * 2 * one // 4)  # a byte for each value where nothing is erased
    assert loaders.shared_memory_suffices(whole, batches, num_workers=3)
    free(2 * 3 * 2 * one // 4 - 1)
    assert not loaders.shared_memory_suffices(whole, batches, num_workers=3)
