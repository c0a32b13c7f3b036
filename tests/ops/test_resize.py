"""Bilinear resizing by matrices, against PyTorch's own."""

import numpy as np
import paddle
import pytest

from paddle_inline.ops.resize import bilinear_matrix, resize_map, resize_tokens

SIZES = [((7, 7), (7, 7)), ((7, 7), (5, 9)), ((56, 56), (40, 72)), ((14, 14), (24, 3)), ((1, 3), (4, 1))]


@pytest.mark.parametrize("source, target", SIZES)
def test_resize_map_is_interpolate(source, target):
    import torch

    from torch_ref.ops.resize import resize_map as torch_resize_map

    x = np.random.default_rng(0).standard_normal((2, 3, *source))
    expected = torch.nn.functional.interpolate(
        torch.tensor(x), size=target, mode="bilinear", align_corners=False
    ).numpy()
    assert abs(torch_resize_map(torch.tensor(x), target).numpy() - expected).max() < 1e-12
    assert np.abs(resize_map(paddle.to_tensor(x), target).numpy() - expected).max() < 1e-12


def test_a_matrix_by_hand():
    # 2 points to 4: centres at -0.25 (held at 0), 0.25, 0.75, 1.25 (held at 1)
    assert bilinear_matrix(2, 4).tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    # 4 points to 2: each the mean of a pair
    assert bilinear_matrix(4, 2).tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]


@pytest.mark.parametrize("source, target", [(56, 40), (56, 72), (7, 50), (50, 7), (1, 5)])
def test_a_constant_and_a_slope_are_kept(source, target):
    matrix = bilinear_matrix(source, target)
    assert np.allclose(matrix.sum(axis=1), 1, atol=1e-14)
    centres = (np.arange(target) + 0.5) * source / target - 0.5
    assert np.allclose(matrix @ np.arange(source), centres.clip(0, source - 1), atol=1e-12)


def test_tokens_of_the_same_grid_are_returned_untouched():
    tokens = paddle.randn([1, 6, 4])
    assert resize_tokens(tokens, (2, 3), (2, 3)) is tokens


def test_tokens_of_a_transposed_grid_are_resized():
    """As many tokens on another grid are not the same tokens: 2 x 6 to 6 x 2."""
    ramp = np.tile(np.arange(6.0), (2, 1)).reshape(1, 12, 1)  # grows along the width
    resized = resize_tokens(paddle.to_tensor(ramp), (2, 6), (6, 2)).numpy().reshape(6, 2)
    assert np.allclose(resized, [[1, 4]] * 6, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "cells"), [((7, 10), (3, 3)), ((14, 14), (7, 7)), ((5, 3), (7, 7)), ((1, 1), (2, 2))]
)
def test_pooling_is_adaptive_average_pooling(size, cells):
    import paddle

    from paddle_inline.ops.resize import pool_map

    x = paddle.rand([2, 3, *size], "float64")
    expected = paddle.nn.functional.adaptive_avg_pool2d(x, cells)
    np.testing.assert_allclose(pool_map(x, cells).numpy(), expected.numpy(), rtol=1e-13)
