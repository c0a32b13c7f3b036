"""The quick functions of eager mode give what Paddle's own operators give, values and gradients alike."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from paddle_inline.layers.basic import GELU, Conv2d, LayerNorm, Linear
from paddle_inline.ops import eager
from paddle_inline.ops.inline_attention import local_residual
from paddle_inline.utils.flops import counted_macs


def numbers(*shape):
    return np.random.RandomState(len(shape) * 7 + shape[-1]).standard_normal(shape)


def convolve(x, kernel, bias=None):
    return F.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2, groups=kernel.shape[0])


def filter_quickly(x, kernel, bias=None):
    return eager.depthwise_conv2d(lambda x: convolve(x, kernel, bias), x, kernel)


def normalise(x, weight, bias):
    return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-5)


# what is quick, what it is to equal, its tensors
CASES = {
    "affine": (eager.affine, F.linear, [(3, 7, 5), (5, 6), (6,)]),
    "affine of rows": (eager.affine, F.linear, [(7, 5), (5, 6), (6,)]),
    "affine without bias": (
        lambda x, w: eager.affine(x, w, None),
        lambda x, w: F.linear(x, w),
        [(3, 7, 5), (5, 6)],
    ),
    "layer_norm": (
        lambda x, weight, bias: eager.layer_norm(x, weight, bias, 1e-5),
        normalise,
        [(3, 7, 16), (16,), (16,)],
    ),
    "gelu": (eager.gelu, F.gelu, [(3, 71, 5)]),
    "mean_rows": (eager.mean_rows, lambda x: x.mean(axis=-2, keepdim=True), [(2, 3, 9, 4)]),
    "repeat_row": (
        lambda x: eager.repeat_row(x, 9),
        lambda x: x.expand([2, 3, 9, 4]),
        [(2, 3, 1, 4)],
    ),
    "depthwise 3": (filter_quickly, convolve, [(2, 6, 5, 7), (6, 1, 3, 3), (6,)]),
    "depthwise 5": (filter_quickly, convolve, [(2, 6, 5, 7), (6, 1, 5, 5)]),
}


def run(function, arrays, dtype, frozen=()):
    """The output and the gradients of a function; those of frozen tensors are None."""
    tensors = [paddle.to_tensor(array, dtype=dtype) for array in arrays]
    for i, tensor in enumerate(tensors):
        tensor.stop_gradient = i in frozen
    out = function(*tensors)
    (out * paddle.to_tensor(numbers(*out.shape), dtype=dtype)).sum().backward()
    return [out.numpy(), *(None if t.grad is None else t.grad.numpy() for t in tensors)]


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_operators(name):
    function, operator, shapes = CASES[name]
    arrays = [numbers(*shape) for shape in shapes]
    for dtype, tolerance in (("float64", 1e-13), ("float32", 1e-5)):
        for ours, theirs in zip(run(function, arrays, dtype), run(operator, arrays, dtype)):
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["affine", "layer_norm", "depthwise 3"])
def test_frozen_tensors_get_no_gradient_and_the_others_keep_theirs(name):
    function, _, shapes = CASES[name]
    arrays = [numbers(*shape) for shape in shapes]
    whole = run(function, arrays, "float64")
    for frozen in ((0,), (1,), (2,), (1, 2), (0, 2)):
        part = run(function, arrays, "float64", frozen)
        for i, (ours, all_of_them) in enumerate(zip(part[1:], whole[1:])):
            assert (ours is None) == (i in frozen)
            if ours is not None:
                np.testing.assert_array_equal(ours, all_of_them)


@pytest.mark.parametrize("name", ["affine", "layer_norm", "gelu", "mean_rows", "repeat_row"])
def test_gradients_of_gradients_are_right(name):
    """Against differences of the first gradients, along one direction."""
    function, _, shapes = CASES[name]
    points = [numbers(*shape) for shape in shapes]
    along = [numbers(*shape)[::-1].copy() for shape in shapes]

    def slopes(arrays, recorded=False):
        tensors = [paddle.to_tensor(array, dtype="float64", stop_gradient=False) for array in arrays]
        out = function(*tensors)
        return tensors, paddle.grad((out**3).sum(), tensors, create_graph=recorded)

    tensors, first = slopes(points, recorded=True)
    second = paddle.grad(sum((slope * slope).sum() for slope in first), tensors)
    got = sum((s.numpy() * a).sum() for s, a in zip(second, along))
    step = 1e-5
    ahead, behind = (slopes([p + sign * step * a for p, a in zip(points, along)])[1] for sign in (1, -1))
    expected = sum(
        (2 * at.numpy() * (up.numpy() - down.numpy()) / (2 * step)).sum()
        for at, up, down in zip(first, ahead, behind)
    )
    np.testing.assert_allclose(got, expected, rtol=1e-7)


def test_a_layer_that_is_used_twice_sums_its_gradients():
    layer, x = Linear(4, 4), paddle.to_tensor(numbers(2, 3, 4), dtype="float32")
    layer(layer(x)).sum().backward()
    twice = layer.weight.grad.numpy(), layer.bias.grad.numpy()
    layer.clear_gradients()
    F.linear(F.linear(x, layer.weight, layer.bias), layer.weight, layer.bias).sum().backward()
    for ours, theirs in zip(twice, (layer.weight.grad.numpy(), layer.bias.grad.numpy())):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_layers_and_the_residual_take_the_quick_functions(monkeypatch):
    taken = []
    for name in ("affine", "layer_norm", "gelu", "depthwise_conv2d"):
        original = getattr(eager, name)
        monkeypatch.setattr(
            eager, name, lambda *a, name=name, original=original: taken.append(name) or original(*a)
        )
    x, image = paddle.ones([1, 4, 8]), paddle.ones([1, 8, 4, 4])
    Linear(8, 8)(x), LayerNorm(8)(x), GELU()(x), Conv2d(8, 8, 3, padding=1, groups=8)(image)
    local_residual(x, paddle.ones([1, 8, 3, 3]), (2, 2))
    assert taken == ["affine", "layer_norm", "gelu", "depthwise_conv2d", "depthwise_conv2d"]
    for other in (Conv2d(8, 8, 3, padding=1), Conv2d(8, 8, 3, groups=8), Conv2d(8, 8, 3, 2, 1, groups=8)):
        other(image)
    assert len(taken) == 5


@pytest.mark.parametrize(
    ("x", "suited"),
    [
        (lambda: paddle.ones([2, 3]), True),
        (lambda: paddle.ones([2, 3], "float64"), True),
        (lambda: paddle.ones([3]), False),
        (lambda: paddle.ones([2, 3], "bfloat16"), False),
        (lambda: paddle.zeros([0, 3]), False),
    ],
)
def test_what_suits(x, suited):
    assert eager.suits(x()) is suited


def test_multiply_adds_are_counted_once():
    block = paddle.nn.Sequential(Conv2d(8, 8, 3, padding=1, groups=8), Linear(4, 6, bias=False))
    with counted_macs(block) as macs:
        block(paddle.ones([2, 8, 4, 4], "float32")).sum().backward()
    assert macs == {"convolution": 2 * 8 * 16 * 9, "Linear": 2 * 8 * 4 * 24}
