"""The quick functions of eager mode give what Paddle's own operators give, values and gradients alike."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from paddle_inline.layers.basic import (
    GELU,
    Conv1d,
    Conv2d,
    LayerNorm,
    Linear,
    TanhGELU,
    convolve_to_tokens,
    filter_tokens,
)
from paddle_inline.layers.mlp import Mlp
from paddle_inline.ops import eager, eager_filters, eager_windows, kernels
from paddle_inline.ops.inline_attention import local_residual
from paddle_inline.ops.softmax_free import gaussian_kernel, newton_inverse
from paddle_inline.utils import compiled
from paddle_inline.utils.flops import counted_macs


def numbers(*shape):
    return np.random.RandomState(len(shape) * 7 + shape[-1]).standard_normal(shape)


def convolve(x, kernel, bias=None):
    return F.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2, groups=kernel.shape[0])


def filter_quickly(x, kernel, bias=None):
    return eager_filters.depthwise_conv2d(lambda x: convolve(x, kernel, bias), x, kernel)


def plain_filter(x, kernel, bias=None, size=(5, 7), prefix=0):
    """`eager_filters.filter_tokens` by one convolution for each group of images."""
    images, _, channels = x.shape
    x = x[:, prefix:].transpose([0, 2, 1]).reshape([images, channels, *size])
    out = paddle.zeros_like(x)
    parts = [convolve(x[i : i + 1], kernel[i % len(kernel)].unsqueeze(1), bias) for i in range(images)]
    out = paddle.concat(parts).reshape([images, channels, -1]).transpose([0, 2, 1])
    return paddle.concat([paddle.zeros([images, prefix, channels], out.dtype), out], axis=1)


def plain_gaussian(a, b):
    return paddle.exp(-0.5 * ((a.unsqueeze(-2) - b.unsqueeze(-3)) ** 2).sum(axis=-1))


def plain_perceptron(x, weight1, bias1, weight2, bias2):
    return F.linear(plain_gelu(F.linear(x, weight1, bias1)), weight2, bias2)


def plain_gelu(x):
    return 0.5 * x * (1 + paddle.erf(x * 0.5**0.5))


def plain_tanh_gelu(x):
    return 0.5 * x * (1 + paddle.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))


def plain_softmax(x):
    powers = paddle.exp(x)
    return powers / powers.sum(axis=-1, keepdim=True)


def plain_grouped(x, weight, bias):
    return F.conv1d(x, weight, bias, groups=x.shape[1] // weight.shape[1])


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
    "gelu by tanh": (lambda x: eager.gelu(x, True), lambda x: F.gelu(x, True), [(3, 71, 5)]),
    "softmax": (eager.softmax, F.softmax, [(3, 7, 37)]),
    "swap": (lambda x: eager.swap(x, 1), lambda x: x.transpose([0, 2, 1, 3]), [(2, 70, 3, 8)]),
    "swap of the last": (lambda x: eager.swap(x, 1), lambda x: x.transpose([0, 2, 1]), [(2, 70, 37)]),
    "add_row": (
        lambda x, row: eager.add_row(x, row, -0.5),
        lambda x, row: x - 0.5 * row,
        [(2, 130, 4), (2, 1, 4)],
    ),
    "centre_rows": (
        lambda x: eager.centre_rows(x, 0.3),
        lambda x: 0.3 * (x - x.mean(axis=-2, keepdim=True)),
        [(2, 3, 130, 4)],
    ),
    "add_bias": (eager.add_bias, lambda x, b: x + b.reshape([1, -1, 1, 1]), [(2, 5, 3, 4), (5,)]),
    "split_columns": (
        lambda x: paddle.stack(eager.split_columns(x, 3)),
        lambda x: paddle.stack(paddle.split(x, 3, axis=-1)),
        [(2, 7, 12)],
    ),
    "join_columns": (
        lambda *parts: eager.join_columns(parts),
        lambda *parts: paddle.concat(parts, axis=-1),
        [(2, 7, 3), (2, 7, 3)],
    ),
    "join_columns of unequal width": (
        lambda *parts: eager.join_columns(parts),
        lambda *parts: paddle.concat(parts, axis=-1),
        [(2, 7, 3), (2, 7, 5)],
    ),
    "grouped_affine": (eager.grouped_affine, plain_grouped, [(3, 8, 1), (6, 4, 1), (6,)]),
    "patches": (
        lambda x: eager.patches(x, 3, 2, 1),
        lambda x: F.unfold(x, 3, 2, 1).transpose([0, 2, 1]),
        [(2, 3, 8, 9)],
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


# of float32 alone, where `kernels` takes them
def plain_heads(x, num_heads, size, window):
    x = cut(x, size, window)
    return x.reshape([len(x), x.shape[1], num_heads, -1]).transpose([0, 2, 1, 3])


def plain_merge(x, size, window):
    x = x.transpose([0, 2, 1, 3])
    return cut(x.reshape([*x.shape[:2], -1]), size, window, back=True)


def cut(x, size, window, back=False):
    rows, columns = size[0] // window[0], size[1] // window[1]
    sides = (rows, columns, *window) if back else (rows, window[0], columns, window[1])
    x = x.reshape([-1, *sides, x.shape[-1]]).transpose([0, 1, 3, 2, 4, 5])
    return x.reshape([-1, size[0] * size[1] if back else window[0] * window[1], x.shape[-1]])


def plain_windows(x, kernel, bias, size, window):
    return cut(plain_filter(cut(x, size, window), kernel, bias, size=window), size, window, back=True)


def plain_branches(x, num_heads, size, windows, scale, kernels, biases):
    """CSwin's branches, one after another."""
    parts, outs = x.split(3 * len(windows), axis=-1), []
    for i, window in enumerate(windows):
        q, k, v = (plain_heads(part, num_heads, size, window) for part in parts[i :: len(windows)])
        weights = F.softmax(scale * paddle.matmul(q, k, transpose_y=True))
        out = plain_merge(paddle.matmul(weights, v), size, window)
        kernel = kernels[i].reshape([1, *kernels[i].shape[:1], *kernels[i].shape[2:]])
        outs.append(out + plain_windows(parts[i + 2 * len(windows)], kernel, biases[i], size, window))
    return paddle.concat(outs, axis=-1)


def joined(tensors):
    """Tensors as one, each with a factor of its own."""
    return paddle.concat([(i + 1) * each.reshape([-1]) for i, each in enumerate(tensors)])


LOOPS = {
    "gelu": (eager.gelu, plain_gelu, [(3, 71, 5)]),
    "gelu by tanh": (lambda x: eager.gelu(x, True), plain_tanh_gelu, [(3, 71, 5)]),
    "softmax": (eager.softmax, plain_softmax, [(3, 7, 37)]),
    "patches": (
        lambda x: eager.patches(x, 3, 2, 1),
        lambda x: (
            F.conv2d(x, paddle.eye(27, dtype=x.dtype).reshape([27, 3, 3, 3]), None, 2, 1)
            .reshape([2, 27, -1])
            .transpose([0, 2, 1])
        ),
        [(2, 3, 8, 9)],
    ),
    "perceptron": (eager.perceptron, plain_perceptron, [(3, 70, 5), (5, 8), (8,), (8, 6), (6,)]),
    "gaussian": (eager.gaussian, plain_gaussian, [(2, 130, 4), (2, 9, 4)]),
    "filter of each image": (
        lambda x, kernel: eager_filters.filter_tokens(x, kernel, None, (5, 7), 1),
        lambda x, kernel: plain_filter(x, kernel, prefix=1),
        [(4, 36, 6), (4, 6, 3, 3)],
    ),
    "filter of all": (
        lambda x, kernel, bias: eager_filters.filter_tokens(x, kernel, bias, (5, 7)),
        plain_filter,
        [(4, 35, 6), (1, 6, 5, 5), (6,)],
    ),
    "filters in turn": (
        lambda x, kernel: eager_filters.filter_tokens(x, kernel, None, (5, 7)),
        plain_filter,
        [(4, 35, 6), (2, 6, 9, 9)],
    ),
    "softmax of multiples": (lambda x: eager.softmax(x, -1.5), lambda x: F.softmax(-1.5 * x), [(3, 70, 9)]),
    "heads in windows": (
        lambda *x: joined(eager.split_heads(x, 2, (4, 6), (2, 3))),
        lambda *x: joined([plain_heads(each, 2, (4, 6), (2, 3)) for each in x]),
        [(2, 24, 6), (2, 24, 6)],
    ),
    "heads and their tokens": (
        lambda *x: joined(eager.split_heads(x, 3, (24, 1), (24, 1), keep=True)),
        lambda *x: joined([*(plain_heads(each, 3, (24, 1), (24, 1)) for each in x), x[-1]]),
        [(2, 24, 6), (2, 24, 6)],
    ),
    "merged heads": (
        lambda x: eager.merge_heads(x, (4, 6), (4, 2)),
        lambda x: plain_merge(x, (4, 6), (4, 2)),
        [(6, 3, 8, 5)],
    ),
    "filter in windows": (
        lambda x, kernel, bias, onto: eager_filters.filter_tokens(
            x, kernel, bias, (4, 6), window=(2, 3), onto=onto
        ),
        lambda x, kernel, bias, onto: onto + plain_windows(x, kernel, bias, (4, 6), (2, 3)),
        [(2, 24, 6), (1, 6, 3, 3), (6,), (2, 24, 6)],
    ),
    "filter onto tokens": (
        lambda x, kernel, onto: eager_filters.filter_tokens(x, kernel, None, (5, 7), 1, onto=onto),
        lambda x, kernel, onto: onto + plain_filter(x, kernel, prefix=1),
        [(4, 36, 6), (2, 6, 3, 3), (4, 36, 6)],
    ),
    "branches": (
        lambda x, k1, k2, b1, b2: eager_windows.branch_attention(
            x, 2, (4, 6), [(4, 2), (2, 6)], 0.7, [k1, k2], [b1, b2]
        ),
        lambda x, k1, k2, b1, b2: plain_branches(x, 2, (4, 6), [(4, 2), (2, 6)], 0.7, [k1, k2], [b1, b2]),
        [(2, 24, 24), (4, 1, 3, 3), (4, 1, 3, 3), (4,), (4,)],
    ),
    "filter of a line": (
        lambda x, kernel: eager_filters.filter_tokens(x, kernel, None, (1, 9)),
        lambda x, kernel: plain_filter(x, kernel, size=(1, 9)),
        [(2, 9, 6), (1, 6, 3, 3)],
    ),
}
needs_numba = pytest.mark.skipif(kernels.version() is None, reason="needs Numba")


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_operators(name):
    function, operator, shapes = CASES[name]
    arrays = [numbers(*shape) for shape in shapes]
    for dtype, tolerance in (("float64", 1e-13), ("float32", 1e-5)):
        expected = run(operator, arrays, dtype)
        for ours, theirs in zip(run(function, arrays, dtype), expected):
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
        with compiled.paused():
            for ours, theirs in zip(run(function, arrays, dtype), expected):
                np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@needs_numba
@pytest.mark.parametrize("name", LOOPS)
def test_loops_give_the_numbers_of_float64(name):
    function, operator, shapes = LOOPS[name]
    arrays = [numbers(*shape) for shape in shapes]
    for ours, theirs in zip(run(function, arrays, "float32"), run(operator, arrays, "float64")):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def torch_operators():
    """The same functions in PyTorch, whose gradients of gradients Paddle's operators do not have."""
    import torch
    import torch.nn.functional as T

    def filtered(x, kernel, bias=None, size=(5, 7), prefix=0):
        images, _, channels = x.shape
        maps = x[:, prefix:].transpose(1, 2).reshape(1, images * channels, *size)
        kernel = kernel.repeat(images // len(kernel), 1, 1, 1).reshape(
            images * channels, 1, *kernel.shape[2:]
        )
        out = T.conv2d(maps, kernel, padding=kernel.shape[-1] // 2, groups=images * channels)
        out = out.reshape(images, channels, -1).transpose(1, 2)
        return T.pad(out if bias is None else out + bias, (0, 0, prefix, 0))

    def cut(x, size, window, back=False):
        rows, columns = size[0] // window[0], size[1] // window[1]
        sides = (rows, columns, *window) if back else (rows, window[0], columns, window[1])
        x = x.reshape(-1, *sides, x.shape[-1]).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(-1, size[0] * size[1] if back else window[0] * window[1], x.shape[-1])

    def heads(x, num_heads, size, window):
        x = cut(x, size, window)
        return x.reshape(len(x), x.shape[1], num_heads, -1).transpose(1, 2)

    def merged(x, size, window):
        return cut(x.transpose(1, 2).flatten(2), size, window, back=True)

    def in_windows(x, kernel, bias, size, window):
        return cut(filtered(cut(x, size, window), kernel, bias, size=window), size, window, back=True)

    def joined(tensors):
        return torch.cat([(i + 1) * each.reshape(-1) for i, each in enumerate(tensors)])

    def branches(x, k1, k2, b1, b2):
        outs = []
        for i, (window, kernel, bias) in enumerate((((4, 2), k1, b1), ((2, 6), k2, b2))):
            parts = x.chunk(6, -1)[i::2]
            q, k, v = (heads(part, 2, (4, 6), window) for part in parts)
            out = merged(T.softmax(0.7 * q @ k.transpose(-1, -2), -1) @ v, (4, 6), window)
            outs.append(out + in_windows(parts[2], kernel.transpose(0, 1), bias, (4, 6), window))
        return torch.cat(outs, -1)

    return {
        "gelu": T.gelu,
        "gelu by tanh": lambda x: T.gelu(x, approximate="tanh"),
        "softmax": lambda x: T.softmax(x, -1),
        "patches": lambda x: T.unfold(x, 3, 1, 1, 2).transpose(1, 2),
        "perceptron": lambda x, w1, b1, w2, b2: T.gelu(x @ w1 + b1) @ w2 + b2,
        "gaussian": lambda a, b: torch.exp(-0.5 * ((a.unsqueeze(-2) - b.unsqueeze(-3)) ** 2).sum(-1)),
        "filter of each image": lambda x, kernel: filtered(x, kernel, prefix=1),
        "filter of all": filtered,
        "filters in turn": filtered,
        "filter of a line": lambda x, kernel: filtered(x, kernel, size=(1, 9)),
        "softmax of multiples": lambda x: T.softmax(-1.5 * x, -1),
        "heads in windows": lambda *x: joined([heads(each, 2, (4, 6), (2, 3)) for each in x]),
        "heads and their tokens": lambda *x: joined(
            [*(heads(each, 3, (24, 1), (24, 1)) for each in x), x[-1]]
        ),
        "merged heads": lambda x: merged(x, (4, 6), (4, 2)),
        "filter in windows": lambda x, kernel, bias, onto: onto + in_windows(x, kernel, bias, (4, 6), (2, 3)),
        "filter onto tokens": lambda x, kernel, onto: onto + filtered(x, kernel, prefix=1),
        "branches": branches,
    }


@needs_numba
@pytest.mark.parametrize("name", LOOPS)
def test_gradients_of_gradients_are_right_where_loops_were_taken(name):
    torch = pytest.importorskip("torch")
    function, _, shapes = LOOPS[name]
    tensors = [paddle.to_tensor(numbers(*shape), dtype="float32", stop_gradient=False) for shape in shapes]
    slopes = paddle.grad((function(*tensors) ** 3).sum(), tensors, create_graph=True)
    second = paddle.grad(sum((slope * slope).sum() for slope in slopes), tensors)
    wide = [torch.tensor(numbers(*shape), requires_grad=True) for shape in shapes]
    slopes = torch.autograd.grad((torch_operators()[name](*wide) ** 3).sum(), wide, create_graph=True)
    expected = torch.autograd.grad(sum((slope * slope).sum() for slope in slopes), wide)
    for ours, theirs in zip(second, expected):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=2e-5 * abs(theirs.numpy()).max())


SEVERAL = [name for name, (_, _, shapes) in {**CASES, **LOOPS}.items() if len(shapes) > 1]


@needs_numba
@pytest.mark.parametrize("name", SEVERAL)
def test_gradients_of_some_tensors_are_those_of_all(name):
    """`paddle.grad` refuses a PyLayer that gives a gradient which it was not asked for."""
    function, _, shapes = {**CASES, **LOOPS}[name]
    tensors = [paddle.to_tensor(numbers(*shape), dtype="float32", stop_gradient=False) for shape in shapes]
    whole = paddle.grad((function(*tensors) ** 2).sum(), tensors)
    for i, expected in enumerate(whole):
        (got,) = paddle.grad((function(*tensors) ** 2).sum(), [tensors[i]])
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-6, atol=1e-6)
        frozen = [t if i == j else t.detach() for j, t in enumerate(tensors)]
        (got,) = paddle.grad((function(*frozen) ** 2).sum(), [tensors[i]])
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-6, atol=1e-6)


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


@pytest.mark.parametrize(
    "name",
    [
        "affine",
        "layer_norm",
        "gelu",
        "mean_rows",
        "repeat_row",
        "add_row",
        "centre_rows",
    ],
)
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
    for module, name in (
        (eager, "affine"),
        (eager, "layer_norm"),
        (eager, "gelu"),
        (eager_filters, "depthwise_conv2d"),
    ):
        original = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, name=name, original=original: taken.append(name) or original(*a)
        )
    x, image = paddle.ones([1, 4, 8]), paddle.ones([1, 8, 4, 4])
    with compiled.paused():
        Linear(8, 8)(x), LayerNorm(8)(x), GELU()(x), Conv2d(8, 8, 3, padding=1, groups=8)(image)
        local_residual(x, paddle.ones([1, 8, 3, 3]), (2, 2))
        assert taken == ["affine", "layer_norm", "gelu", "depthwise_conv2d", "depthwise_conv2d"]
        for other in (Conv2d(8, 8, 3, padding=1), Conv2d(8, 8, 3, groups=8), Conv2d(8, 8, 3, 2, 1, groups=8)):
            other(image)
    assert len(taken) == 5


@needs_numba
@pytest.mark.parametrize(
    ("build", "shape", "loop"),
    [
        (lambda: GELU(), (2, 8), "gelu"),
        (lambda: TanhGELU(), (2, 8), "gelu"),
        (lambda: LayerNorm(8), (2, 8), "layer_norm"),
        (lambda: Mlp(8, 16), (2, 8), "gelu_of_sum"),
        (lambda: Conv1d(8, 8, 1, groups=2), (2, 8, 1), "swap"),
        (lambda: Conv2d(8, 8, 3, 2, 1), (2, 8, 4, 4), "cut_patches"),
        (lambda: Conv2d(8, 8, 3, 1, 1), (2, 8, 4, 4), "add_channels"),
    ],
)
def test_layers_take_the_loops_unless_they_are_paused(monkeypatch, build, shape, loop):
    taken = []
    original = kernels._run
    monkeypatch.setattr(kernels, "_run", lambda name, *rest: taken.append(name) or original(name, *rest))
    layer, x = build(), paddle.to_tensor(numbers(*shape), "float32")
    quick = layer(x).numpy()
    assert loop in taken
    taken.clear()
    with compiled.paused():
        plain = layer(x).numpy()
    assert not taken
    np.testing.assert_allclose(quick, plain, rtol=1e-5, atol=1e-6)


@needs_numba
def test_a_layer_that_is_watched_is_called():
    """Hooks on a layer that a loop would pass over are told all the same."""
    mlp, convolution, seen = Mlp(8, 16), Conv2d(8, 8, 3, padding=1, groups=8), []
    patch = Conv2d(3, 8, 4, 4)
    x, image = paddle.ones([1, 4, 8]), paddle.ones([1, 3, 8, 8])
    calls = (
        lambda: mlp(x),
        lambda: filter_tokens(convolution, x, (2, 2)),
        lambda: convolve_to_tokens(patch, image),
    )
    plain = [call().numpy() for call in calls]
    for layer in (mlp.fc1, mlp.act, convolution, patch):
        layer.register_forward_post_hook(lambda layer, *rest: seen.append(layer))
    for call, before in zip(calls, plain):
        np.testing.assert_allclose(call().numpy(), before, rtol=1e-5, atol=1e-6)
    assert seen == [mlp.fc1, mlp.act, convolution, patch]


class Twice(Conv2d):
    def forward(self, x):
        return 2 * Conv2d.forward(self, x)


@needs_numba
@pytest.mark.parametrize(
    "change",
    [
        lambda mlp, *rest: setattr(mlp, "act", GELU(approximate=True)),
        lambda mlp, *rest: setattr(mlp, "fc1", Linear(8, 16, bias=False)),
        lambda mlp, *rest: setattr(mlp.fc2, "forward", lambda x: 3 * Linear.forward(mlp.fc2, x)),
        lambda mlp, convolutions: convolutions.update(kept=Twice(8, 8, 3, padding=1, groups=8)),
        lambda mlp, convolutions: convolutions.update(patch=Twice(3, 8, 4, 4)),
        lambda mlp, convolutions: convolutions.update(patch=paddle.nn.Conv2D(3, 8, 4, 4)),
        lambda mlp, convolutions: setattr(
            convolutions["kept"], "forward", lambda x: 3 * Conv2d.forward(convolutions["kept"], x)
        ),
    ],
)
def test_a_layer_that_was_replaced_is_not_taken_for_the_one_before(change):
    mlp, convolutions = (
        Mlp(8, 16),
        {"kept": Conv2d(8, 8, 3, padding=1, groups=8), "patch": Conv2d(3, 8, 4, 4)},
    )
    change(mlp, convolutions)
    x, image = paddle.randn([1, 4, 8]), paddle.randn([1, 3, 8, 8])

    def outs():
        kept, patch = convolutions["kept"], convolutions["patch"]
        return [mlp(x), filter_tokens(kept, x, (2, 2)), convolve_to_tokens(patch, image)]

    quick = [out.numpy() for out in outs()]
    with compiled.paused():
        plain = [out.numpy() for out in outs()]
    for ours, theirs in zip(quick, plain):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not eager.LISTS, reason="Paddle 2.6 gives no gradients of some tensors alone")
def test_a_second_backward_pass_is_refused_and_plain_operators_allow_it():
    """Paddle's own PyLayer would crash the process."""
    for layer in (Linear(4, 4), LayerNorm(4), Mlp(4, 8)):
        x = paddle.to_tensor(numbers(2, 3, 4), "float32", stop_gradient=False)
        out = layer(x)
        for _ in range(2):  # through a copy of the graph
            (asked,) = paddle.grad(out.sum(), [x], retain_graph=True)
        out.sum().backward(retain_graph=True)
        np.testing.assert_array_equal(x.grad.numpy(), asked.numpy())
        with pytest.raises(Exception, match=r"(?s)second backward pass.*plain_operators"):
            out.sum().backward()
        with eager.plain_operators():
            x.clear_gradient()
            out = layer(x)
            out.sum().backward(retain_graph=True)
            out.sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), 2 * asked.numpy(), rtol=1e-4, atol=1e-5)


@needs_numba
@pytest.mark.parametrize("function", [eager.softmax, lambda x: eager.gaussian(x, x), newton_inverse])
def test_a_forward_pass_without_a_backward_pass_leaves_nothing(function):
    import weakref

    x = paddle.to_tensor(np.eye(9)[None, None] + 0.1, "float32", stop_gradient=False)
    out = function(x)
    freed = []
    weakref.finalize(out, lambda: freed.append(1))
    del out
    assert freed == [1]  # at once, without a search for cycles


def test_dropout_between_the_layers_of_a_perceptron_is_not_passed_over():
    mlp = Mlp(8, 16, drop_rate=0.5)
    x = paddle.to_tensor(numbers(50, 8), "float32")
    assert (mlp(x).numpy() != mlp(x).numpy()).any()
    mlp.eval()
    np.testing.assert_array_equal(mlp(x).numpy(), mlp(x).numpy())


def test_a_gaussian_kernel_of_equal_points_is_1():
    points = paddle.to_tensor(numbers(1, 2, 9, 4) + 100, "float32")
    kernel = gaussian_kernel(points, points).numpy()
    np.testing.assert_allclose(np.einsum("bhii->bhi", kernel), 1, atol=1e-6)
    assert kernel.max() <= 1


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
