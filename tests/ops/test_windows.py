"""Windows of the token grid: cut and put back, rolled, merged, masked, and their relative positions."""

import numpy as np
import paddle
import pytest
import torch

import paddle_inline.ops.inline_attention
import paddle_inline.ops.windows
import torch_ref.ops.inline_attention
import torch_ref.ops.windows

TWINS = [
    pytest.param(paddle_inline.ops, paddle.to_tensor, id="paddle"),
    pytest.param(torch_ref.ops, torch.tensor, id="torch"),
]
FAR = -100.0


def numbered(size, batch=1, channels=1):
    """Tokens [batch, H * W, channels] that count on from 0."""
    return np.arange(batch * size[0] * size[1] * channels, dtype="float64").reshape(batch, -1, channels)


@pytest.mark.parametrize(("ops", "tensor"), TWINS)
class TestWindows:
    @pytest.mark.parametrize(
        ("size", "window"),
        [((6, 6), (3, 3)), ((4, 10), (2, 5)), ((6, 4), (6, 1)), ((6, 4), (1, 4)), ((3, 5), (3, 5))],
    )
    def test_joining_undoes_cutting(self, ops, tensor, size, window):
        x = numbered(size, batch=3, channels=2)
        cut = ops.windows.cut_windows(tensor(x), size, window)
        assert list(cut.shape) == [3 * size[0] * size[1] // (window[0] * window[1]), window[0] * window[1], 2]
        np.testing.assert_array_equal(ops.windows.join_windows(cut, size, window).numpy(), x)

    def test_windows_are_row_major_image_by_image(self, ops, tensor):
        cut = ops.windows.cut_windows(tensor(numbered((4, 6), batch=2)), (4, 6), (2, 3)).numpy()[..., 0]
        first_image = [
            [0, 1, 2, 6, 7, 8],
            [3, 4, 5, 9, 10, 11],
            [12, 13, 14, 18, 19, 20],
            [15, 16, 17, 21, 22, 23],
        ]
        np.testing.assert_array_equal(cut[:4], first_image)
        np.testing.assert_array_equal(cut[4:], np.add(first_image, 24))

    def test_stripes_run_left_to_right_and_top_to_bottom(self, ops, tensor):
        x = tensor(numbered((2, 4)))
        vertical = ops.windows.cut_windows(x, (2, 4), (2, 2)).numpy()[..., 0]
        np.testing.assert_array_equal(vertical, [[0, 1, 4, 5], [2, 3, 6, 7]])
        horizontal = ops.windows.cut_windows(x, (2, 4), (1, 4)).numpy()[..., 0]
        np.testing.assert_array_equal(horizontal, [[0, 1, 2, 3], [4, 5, 6, 7]])

    def test_a_negative_shift_brings_later_tokens_forward(self, ops, tensor):
        x = numbered((2, 3))
        rolled = ops.windows.roll_tokens(tensor(x), (2, 3), -1)
        np.testing.assert_array_equal(rolled.numpy()[0, :, 0], [4, 5, 3, 1, 2, 0])
        np.testing.assert_array_equal(ops.windows.roll_tokens(rolled, (2, 3), 1).numpy(), x)

    def test_neighbours_are_gathered_column_by_column(self, ops, tensor):
        gathered = ops.windows.gather_neighbours(tensor(numbered((2, 4), channels=2)), (2, 4))
        expected = [[[0, 1, 8, 9, 2, 3, 10, 11], [4, 5, 12, 13, 6, 7, 14, 15]]]
        np.testing.assert_array_equal(gathered.numpy(), expected)


@pytest.mark.parametrize(("ops", "tensor"), TWINS)
class TestMaskAndPositions:
    def test_mask_of_four_by_four_tokens(self, ops, tensor):
        mask = ops.windows.shift_mask((4, 4), (2, 2), 1)
        zeros = np.zeros((4, 4))
        columns = [[0, FAR, 0, FAR], [FAR, 0, FAR, 0]] * 2
        rows = [[0, 0, FAR, FAR]] * 2 + [[FAR, FAR, 0, 0]] * 2
        corner = np.where(np.eye(4), 0, FAR)
        np.testing.assert_array_equal(mask.numpy(), [zeros, columns, rows, corner])
        assert str(mask.dtype).endswith("float32")

    def test_mask_of_a_grid_that_is_not_square(self, ops, tensor):
        """Three windows of 3 x 3 in a row, shifted by 1: in the last, two columns stand before the edge."""
        mask = ops.windows.shift_mask((6, 9), (3, 3), 1).numpy()
        assert mask.shape == (6, 9, 9)
        assert (mask[:2] == 0).all()
        region = np.array([0, 0, 1] * 3)
        np.testing.assert_array_equal(mask[2], np.where(region[:, None] == region, 0, FAR))
        region = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1])
        np.testing.assert_array_equal(mask[3], np.where(region[:, None] == region, 0, FAR))

    def test_positions_in_a_window_of_two(self, ops, tensor):
        index = ops.windows.relative_position_index(2)
        np.testing.assert_array_equal(index.numpy(), [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]])
        assert str(index.dtype).endswith("int64")

    def test_positions_in_a_window_of_seven(self, ops, tensor):
        index = ops.windows.relative_position_index(7).numpy()
        assert index.shape == (49, 49)
        assert (index[0, 0], index[0, 48], index[48, 0], index[0, 1], index[7, 0]) == (84, 0, 168, 83, 97)
        assert sorted(set(index.ravel())) == list(range(169))

    def test_bias_is_the_table_at_the_index(self, ops, tensor):
        table = np.random.RandomState(0).standard_normal((9, 3))
        index = ops.windows.relative_position_index(2)
        bias = ops.windows.relative_position_bias(tensor(table), index).numpy()
        np.testing.assert_array_equal(bias, table[index.numpy()].transpose(2, 0, 1))

    def test_each_window_of_an_image_has_its_own_bias(self, ops, tensor):
        random = np.random.RandomState(0)
        q, k, v = random.standard_normal((3, 6, 2, 4, 5))  # 2 images of 3 windows, h 2, N 4, d 5
        bias = random.standard_normal((3, 2, 4, 4))
        attend = ops.inline_attention.softmax_attention
        whole = attend(tensor(q), tensor(k), tensor(v), 0.5, tensor(bias)).numpy()
        for i in range(6):
            parts = (tensor(part[i : i + 1]) for part in (q, k, v))
            alone = attend(*parts, 0.5, tensor(bias[i % 3])).numpy()
            np.testing.assert_allclose(whole[i], alone[0], rtol=1e-13)


CASES = {
    "cut_windows": ([(3, 24, 2)], {"size": (4, 6), "window": (2, 3)}),
    "join_windows": ([(12, 6, 2)], {"size": (4, 6), "window": (2, 3)}),
    "roll_tokens": ([(3, 24, 2)], {"size": (4, 6), "shift": -3}),
    "gather_neighbours": ([(3, 24, 2)], {"size": (4, 6)}),
}


@pytest.mark.parametrize("name", [*CASES, "relative_position_bias"])
def test_op_and_its_gradient_are_equal_in_both_packages(name):
    random = np.random.RandomState(0)
    shapes, arguments = CASES.get(name, ([(25, 2)], {}))
    array = random.standard_normal(shapes[0])
    ours, theirs = paddle.to_tensor(array, stop_gradient=False), torch.tensor(array, requires_grad=True)
    results = []
    for package, x in ((paddle_inline, ours), (torch_ref, theirs)):
        windows = package.ops.windows
        index = [] if name in CASES else [windows.relative_position_index(3)]
        results.append(getattr(windows, name)(x, *index, **arguments))
    factor = random.standard_normal(results[1].shape)
    np.testing.assert_array_equal(results[0].numpy(), results[1].detach().numpy())
    (results[0] * paddle.to_tensor(factor)).sum().backward()
    (results[1] * torch.tensor(factor)).sum().backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-13, atol=1e-13)
