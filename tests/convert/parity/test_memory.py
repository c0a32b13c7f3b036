"""A comparison leaves nothing behind: neither framework frees a tensor whose gradient hook refers to it."""

import gc

import paddle
import torch

from convert.parity import compare


def living(tensor_class):
    gc.collect()
    return sum(issubclass(type(thing), tensor_class) for thing in gc.get_objects())


def test_tensors_of_a_comparison_are_freed():
    compare("inline_deit_digits", depth=1)
    before = living(torch.Tensor), living(paddle.Tensor)
    compare("inline_deit_digits", depth=1)
    assert (living(torch.Tensor), living(paddle.Tensor)) == before
