"""Batches moved ahead of time: the same, in the same order, with their errors and counts at their turn."""

import re

import numpy as np
import paddle
import pytest

from paddle_inline.data.loaders import Loader, Samples
from paddle_inline.data.prefetch import Prefetch
from paddle_inline.utils.errors import UserError


class Source:
    classes, labels = ("a", "b"), [0, 1] * 6

    def __init__(self, broken=()):
        self.broken, self.read = broken, []

    def __len__(self):
        return 12

    def __getitem__(self, index):
        self.read.append(index)
        if index in self.broken:
            raise OSError("broken")
        return np.full((1, 2, 2), index, "float32"), self.labels[index]

    def name(self, index):
        return f"picture {index}"


def loader(broken=(), policy="fail"):
    samples = Samples(Source(broken), lambda image, draws: image, on_bad_image=policy)
    return Loader(samples, [[(0, i), (0, i + 1)] for i in range(0, 12, 2)], host=True)


def firsts(batches):
    return [int(images[0, 0, 0, 0]) for images, _ in batches]


@pytest.mark.parametrize("ahead", [1, 2, 9])
def test_the_same_batches_in_the_same_order(ahead):
    plain, moved = list(loader()), list(Prefetch(loader(), ahead))
    assert len(plain) == len(moved) == 6 == len(Prefetch(loader(), ahead))
    for a, b in zip(plain, moved):
        for one, other in zip(a, b):
            np.testing.assert_array_equal(one.numpy(), other.numpy())
    again = Prefetch(loader(), ahead)
    assert firsts(again) == firsts(again) == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("ahead", [0, -1, 1.5, "2", None])
def test_fewer_than_one_batch_ahead_is_refused(ahead):
    with pytest.raises(
        UserError, match=rf"ahead is {re.escape(repr(ahead))}; give a whole number from 1, or take"
    ):
        Prefetch(loader(), ahead)


def test_so_many_batches_are_read_ahead_and_no_more():
    wrapped = Prefetch(loader(), 2)
    batches = iter(wrapped)
    next(batches)
    assert wrapped.loader.samples.source.read == [0, 1, 2, 3, 4, 5]
    batches.close()
    assert wrapped.loader.samples.source.read == [0, 1, 2, 3, 4, 5]


def test_a_broken_picture_is_met_at_its_turn():
    wrapped, seen = Prefetch(loader(broken={5}), 3), []
    with pytest.raises(OSError, match="picture 5 cannot be read"):
        for images, _ in wrapped:
            seen.append(int(images[0, 0, 0, 0]))
    assert seen == [0, 2]


def test_replaced_pictures_are_counted_when_their_batch_is_handed_out(capsys):
    wrapped, counts = Prefetch(loader(broken={2, 6}, policy="skip"), 3), []
    for _ in wrapped:
        counts.append(wrapped.bad)
    assert counts == [0, 1, 1, 2, 2, 2] and wrapped.loader.bad == 2
    assert firsts(wrapped) == [0, 3, 4, 7, 8, 10] and wrapped.bad == 2  # of this time alone


def test_a_gpu_gets_them_through_pinned_memory(monkeypatch):
    """With a stand-in for the GPU: pinned, copied without waiting, and kept until the copy is done."""
    done, asked = [], []

    class Event:
        def __init__(self):
            self.number = len(asked)

        def record(self, stream):
            asked.append(stream)

        def query(self):
            return self.number in done

        def synchronize(self):
            done.append(self.number)

    class Batch:
        def pin_memory(self):
            return Pinned()

    class Pinned:
        def _copy_to(self, place, blocking):
            return place, blocking

    monkeypatch.setattr(paddle, "CUDAPlace", lambda number: f"GPU {number}")
    monkeypatch.setattr(paddle.device.cuda, "Event", Event)
    monkeypatch.setattr(paddle.device.cuda, "current_stream", lambda place: place)
    wrapped = Prefetch(loader(), 1, "gpu:1")
    assert wrapped._move((Batch(), Batch())) == (("GPU 1", False),) * 2
    for _ in range(15):
        wrapped._move((Batch(), Batch()))
    assert len(wrapped.unfinished) == 16 and not done  # nothing may be used again, nobody waits
    wrapped._move((Batch(), Batch()))
    assert done == [0] and len(wrapped.unfinished) == 16  # the oldest is waited for
    done.extend(range(1, 10))
    wrapped._move((Batch(), Batch()))
    assert len(wrapped.unfinished) == 8
