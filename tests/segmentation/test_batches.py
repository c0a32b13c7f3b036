"""The order of pictures in training: the same for any number of ranks, and from any step on."""

import numpy as np

from paddle_inline.segmentation.data import Batches


def batches(length=5, size=4, start=0, stop=5, rank=0, world=1):
    return list(Batches(length, size, seed=3, start=start, stop=stop, rank=rank, world=world))


def test_nothing_is_left_out_and_every_epoch_is_shuffled_anew():
    keys = [key for batch in batches() for key in batch]
    assert len(keys) == 20
    assert [epoch for epoch, _ in keys] == sorted([0, 1, 2, 3] * 5)
    orders = [tuple(index for epoch, index in keys if epoch == e) for e in range(4)]
    assert all(sorted(order) == list(range(5)) for order in orders)
    assert len(set(orders)) > 1


def test_ranks_share_what_one_rank_of_their_batches_sees():
    for whole, *parts in zip(batches(), batches(size=2, world=2), batches(size=2, rank=1, world=2)):
        assert [key for part in parts for key in part] == whole


def test_a_run_goes_on_where_it_stopped():
    assert batches(start=3) == batches()[3:]
    assert len(Batches(5, 4, seed=3, start=3, stop=5, rank=0, world=1)) == 2


def test_a_set_smaller_than_a_batch_is_gone_through_again():
    keys = batches(length=2, size=3, stop=1)[0]
    assert [epoch for epoch, _ in keys] == [0, 0, 1]
    assert np.unique([index for epoch, index in keys if epoch == 0]).tolist() == [0, 1]
