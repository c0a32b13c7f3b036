"""Softmax-free attention: the kernel, the two inverses, their gradients, and what bad matrices do to them."""

import numpy as np
import paddle
import pytest

from paddle_inline.ops.softmax_free import (
    _halvings,
    filter_heads,
    gaussian_kernel,
    head_images,
    heads_of_images,
    inverse_residual,
    newton_inverse,
    normalised_newton_inverse,
    softmax_free_attention,
)

INVERSES = {"soft": newton_inverse, "soft_norm": normalised_newton_inverse}


def points(*shape, spread=1.0, seed=0):
    return spread * np.random.default_rng(seed).standard_normal(shape)


def true_kernel(a, b):
    return np.exp(-((a[..., :, None, :] - b[..., None, :, :]) ** 2).sum(-1) / 2)


def kernel_of(*shape, **options):
    x = points(*shape, **options)
    return true_kernel(x, x)


def call(function, *arrays, dtype="float64", **options):
    return function(*(paddle.to_tensor(array, dtype=dtype) for array in arrays), **options).numpy()


# The kernel


def test_kernel_is_its_definition():
    a, b = points(2, 3, 7, 5), points(2, 3, 4, 5, seed=1)
    assert np.allclose(call(gaussian_kernel, a, b), true_kernel(a, b), rtol=1e-13)


@pytest.mark.parametrize("offset", [0, 30, 1000])
def test_a_common_offset_costs_no_digits(offset):
    """In float32 |a|^2 + |b|^2 - 2 a.b alone would be off by tenths at an offset of 1000."""
    a, b = (x.astype("float32") + np.float32(offset) for x in (points(1, 1, 60, 32), points(1, 1, 9, 32)))
    kernel = call(gaussian_kernel, a, b, dtype="float32")
    assert np.abs(kernel - true_kernel(a.astype(float), b.astype(float))).max() < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernel_never_exceeds_1(dtype):
    x = points(2, 2, 50, 8, spread=30)
    kernel = call(gaussian_kernel, x, x, dtype=dtype)
    assert kernel.max() <= 1 and kernel.min() >= 0
    assert np.allclose(kernel[..., range(50), range(50)], 1, atol=1e-3 if dtype == "float32" else 1e-11)


def test_no_tensor_has_three_long_sides():
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from torch_ref.ops import softmax_free

    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(
                t.numel() for t in (out if isinstance(out, (tuple, list)) else (out,)) if t is not None
            )
            return out

    q, v = (torch.randn(1, 1, 400, 16, requires_grad=True) for _ in range(2))
    landmarks = torch.randn(1, 1, 25, 16, requires_grad=True)
    with Watch():
        out = softmax_free.softmax_free_attention(q, landmarks, v, softmax_free.newton_inverse)
        out.sum().backward()
    assert max(sizes) == 400 * 25


# The inverses


def reference_newton(matrix, inverse):
    for _ in range(20):
        inverse = 2 * inverse - inverse @ matrix @ inverse
    return inverse


def reference_inverse(name, kernel):
    """The spec's words, one matrix and one halving at a time."""
    size = kernel.shape[-1]
    if name == "soft":
        matrix = kernel + 0.01 * np.eye(size)
        alpha = 1.8 / kernel.sum(-1).max(-1)[..., None, None] ** 2
        return reference_newton(matrix, alpha * matrix)
    alpha, halvings = 2 / kernel.sum(-1).max() ** 2, 0
    while abs(np.eye(size) - kernel @ (alpha * kernel)).sum(-2).max() > 1.01 and halvings < 10:
        alpha, halvings = alpha / 2, halvings + 1
    rows = kernel.sum(-1)
    scale = np.sqrt(rows[..., :, None] * rows[..., None, :])
    return reference_newton(kernel, alpha * kernel) / scale


@pytest.mark.parametrize("name", INVERSES)
@pytest.mark.parametrize("spread", [0.05, 0.5, 2.0])
def test_inverse_is_its_definition(name, spread):
    kernel = kernel_of(3, 2, 20, 6, spread=spread)
    expected = reference_inverse(name, kernel)
    assert np.abs(call(INVERSES[name], kernel) - expected).max() < 1e-9 * np.abs(expected).max()


@pytest.mark.parametrize("name", INVERSES)
def test_the_twins_agree(name):
    import torch

    from torch_ref.ops import softmax_free as twin

    invert = getattr(twin, INVERSES[name].__name__)
    arrays = [points(2, 2, 30, 6), points(2, 2, 9, 6, seed=1), points(2, 2, 30, 6, seed=2)]
    ours = [paddle.to_tensor(array, stop_gradient=False) for array in arrays]
    theirs = [torch.tensor(array, requires_grad=True) for array in arrays]
    out = softmax_free_attention(*ours, INVERSES[name])
    expected = twin.softmax_free_attention(*theirs, invert)
    assert np.abs(out.numpy() - expected.detach().numpy()).max() < 1e-12
    (out**2).sum().backward()
    (expected**2).sum().backward()
    for a, b in zip(ours, theirs):
        assert np.abs(a.grad.numpy() - b.grad.numpy()).max() < 1e-11 * b.grad.abs().max().item()


@pytest.mark.parametrize("name", INVERSES)
def test_a_well_conditioned_kernel_is_inverted(name):
    kernel = kernel_of(2, 2, 12, 8, spread=1.5)
    inverse = call(INVERSES[name], kernel)
    assert call(inverse_residual, kernel, inverse, normed=name == "soft_norm").max() < 1e-9
    matrix = kernel + (0.01 * np.eye(12) if name == "soft" else 0)
    if name == "soft_norm":  # undo the normalisation
        rows = kernel.sum(-1)
        inverse = inverse * np.sqrt(rows[..., :, None] * rows[..., None, :])
    assert np.abs(inverse - np.linalg.inv(matrix)).max() < 1e-9


# Their gradients


def gradient(function, array, weights, **options):
    x = paddle.to_tensor(array, stop_gradient=False)
    (function(x, **options) * paddle.to_tensor(weights)).sum().backward()
    return x.grad.numpy()


def finite_differences(function, array, weights, step=1e-6):
    grad = np.zeros_like(array)
    for index in np.ndindex(*array.shape):
        moved = [array.copy(), array.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        grad[index] = ((function(moved[0]) - function(moved[1])) * weights).sum() / (2 * step)
    return grad


def test_soft_gradient_is_the_true_inverse_s():
    kernel = kernel_of(2, 1, 5, 8, spread=1.5)
    weights = points(2, 1, 5, 5, seed=1)
    found = gradient(newton_inverse, kernel, weights)
    inverse = np.linalg.inv(kernel + 0.01 * np.eye(5)).swapaxes(-1, -2)
    assert np.abs(found + inverse @ weights @ inverse).max() < 1e-10
    differences = finite_differences(lambda k: np.linalg.inv(k + 0.01 * np.eye(5)), kernel, weights)
    assert np.abs(found - differences).max() < 1e-7
    assert np.abs(found - finite_differences(lambda k: call(newton_inverse, k), kernel, weights)).max() < 1e-7


def test_soft_gradient_where_it_has_not_converged_is_taken_at_what_was_reached():
    kernel = kernel_of(1, 1, 25, 4, spread=0.02)
    reached = call(newton_inverse, kernel)
    assert call(inverse_residual, kernel, reached).max() > 0.1
    weights = points(1, 1, 25, 25, seed=1)
    expected = -reached.swapaxes(-1, -2) @ weights @ reached.swapaxes(-1, -2)
    found = gradient(newton_inverse, kernel, weights)
    assert np.abs(found - expected).max() < 1e-10 * np.abs(expected).max()


@pytest.mark.parametrize("per_matrix_alpha", [False, True])
@pytest.mark.parametrize("spread", [0.2, 1.5], ids=["not_converged", "converged"])
def test_soft_norm_gradient_is_the_unrolled_one(per_matrix_alpha, spread):
    kernel = kernel_of(2, 2, 4, 3, spread=spread)
    weights = points(2, 2, 4, 4, seed=1)
    options = {"per_matrix_alpha": per_matrix_alpha}
    found = gradient(normalised_newton_inverse, kernel, weights, **options)
    differences = finite_differences(lambda k: call(normalised_newton_inverse, k, **options), kernel, weights)
    assert np.abs(found - differences).max() < 1e-6 * np.abs(differences).max()


# The start of SOFT-Norm's iteration


def test_halvings_are_few_and_powers_of_two():
    kernel = kernel_of(4, 2, 49, 32, spread=0.4)
    alpha = np.full((1, 1, 1, 1), 2 / kernel.sum(-1).max() ** 2)
    factor = call(_halvings, kernel, alpha, over=[0, 1, 2, 3])
    halvings = -np.log2(factor).item()
    assert halvings == round(halvings) and 0 < halvings <= 10
    start = alpha * factor * kernel @ kernel
    assert abs(np.eye(49) - start).sum(-2).max() <= 1.01
    assert abs(np.eye(49) - 2 * start).sum(-2).max() > 1.01


def test_halving_stops_at_ten():
    factor = call(_halvings, kernel_of(1, 1, 4, 3), np.full((1, 1, 1, 1), 1e9), over=[0, 1, 2, 3])
    assert factor.item() == 2.0**-10


def test_per_matrix_alpha_makes_a_sample_independent_of_its_batch():
    batch = np.concatenate([kernel_of(1, 2, 9, 4, spread=0.02), kernel_of(1, 2, 9, 4, spread=0.2)])
    together, alone = call(normalised_newton_inverse, batch)[1], call(normalised_newton_inverse, batch[1:])[0]
    assert np.abs(together - alone).max() > 1e-6  # the default, for parity with the released models
    together = call(normalised_newton_inverse, batch, per_matrix_alpha=True)[1]
    alone = call(normalised_newton_inverse, batch[1:], per_matrix_alpha=True)[0]
    assert np.array_equal(together, alone)


# Ill-conditioned kernels

LINE = np.linspace(0, 1, 49)[:, None] * np.ones(8)
HARD = {
    "all landmarks equal": np.zeros((49, 8)),
    "two equal": np.concatenate([points(48, 8), points(48, 8)[:1]]),
    "nearly equal": 1e-4 * points(49, 8),
    "on a line": LINE,
    "far apart": 100 * points(49, 8),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", INVERSES)
@pytest.mark.parametrize("landmarks", HARD.values(), ids=HARD)
def test_hard_kernels_give_numbers(name, landmarks, dtype):
    """Where the iteration does not converge the residual says so; outputs and gradients stay finite."""
    q, v = (paddle.to_tensor(points(1, 1, 60, 8, seed=s), dtype=dtype, stop_gradient=False) for s in (1, 2))
    landmarks = paddle.to_tensor(landmarks[None, None], dtype=dtype, stop_gradient=False)
    out = softmax_free_attention(q, landmarks, v, INVERSES[name])
    out.sum().backward()
    for value in (out, q.grad, v.grad, landmarks.grad):
        assert np.isfinite(value.numpy()).all()


@pytest.mark.parametrize(
    "name, landmarks, low, high",
    [
        ("soft", "far apart", 0, 1e-12),
        ("soft", "two equal", 0, 1e-6),
        ("soft", "on a line", 1.0, 3.0),  # twenty steps are too few
        ("soft", "all landmarks equal", 1.0, 3.0),
        ("soft_norm", "two equal", 0.9, 1.1),  # no inverse exists: one direction is left out
        ("soft_norm", "on a line", 1.0, 3.0),
        ("soft_norm", "all landmarks equal", 1.0, 3.0),
    ],
)
def test_the_residual_tells_convergence(name, landmarks, low, high):
    kernel = true_kernel(HARD[landmarks], HARD[landmarks])[None, None]
    inverse = call(INVERSES[name], kernel)
    assert low <= call(inverse_residual, kernel, inverse, normed=name == "soft_norm").item() <= high


def test_soft_norm_takes_an_identity_for_the_edge_of_convergence():
    """alpha = 2 passes the bound of 1.01, and V = 2 I goes to 0. So did the released models."""
    kernel = np.eye(5)[None, None]
    inverse = call(normalised_newton_inverse, kernel)
    assert np.abs(inverse).max() == 0
    assert call(inverse_residual, kernel, inverse, normed=True).item() == 1


def test_a_kernel_that_is_not_a_number_is_not_hidden():
    kernel = kernel_of(2, 1, 5, 3)
    kernel[1, 0, 2, 3] = np.nan
    inverse = call(newton_inverse, kernel)
    assert np.isnan(call(inverse_residual, kernel, inverse)[1, 0])
    assert np.isfinite(inverse[0]).all()


# Shapes


def test_heads_as_images_and_back():
    x = paddle.to_tensor(points(2, 3, 12, 4))
    images = head_images(x, (3, 4))
    assert images.shape == [6, 4, 3, 4]
    assert np.array_equal(images.numpy()[4, 1], x.numpy()[1, 1, :, 1].reshape(3, 4))
    assert np.array_equal(heads_of_images(images.flatten(2).transpose([0, 2, 1]), 3).numpy(), x.numpy())


def test_filter_heads_sees_the_heads_as_channels():
    x = points(2, 3, 12, 4)
    seen = []

    def second_head_only(images):
        seen.append(images.shape)
        return images * paddle.to_tensor(np.array([0.0, 1, 0]).reshape(1, 3, 1, 1))

    out = call(lambda t: filter_heads(second_head_only, t, (3, 4)), x)
    assert seen == [[8, 3, 3, 4]]
    assert np.array_equal(out[:, 1], x[:, 1]) and not out[:, [0, 2]].any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    arrays = [points(1, 2, 30, 8), points(1, 2, 9, 8, seed=1), points(1, 2, 30, 8, seed=2)]
    half = [paddle.to_tensor(array, dtype="float32").astype(dtype) for array in arrays]
    out = softmax_free_attention(*half, newton_inverse)
    assert out.dtype == half[0].dtype
    full = softmax_free_attention(*(x.astype("float32") for x in half), newton_inverse)
    assert np.array_equal(out.astype("float32").numpy(), full.astype(dtype).astype("float32").numpy())


@pytest.mark.gpu
def test_autocasting_does_not_reach_the_kernel():
    arrays = [paddle.to_tensor(points(1, 2, 30, 8, seed=s), dtype="float32") for s in range(3)]
    plain = softmax_free_attention(arrays[0], arrays[1][:, :, :9], arrays[2], normalised_newton_inverse)
    with paddle.amp.auto_cast(level="O1", dtype="bfloat16"):
        cast = softmax_free_attention(arrays[0], arrays[1][:, :, :9], arrays[2], normalised_newton_inverse)
    assert np.array_equal(plain.numpy(), cast.numpy())


def test_autocasting_does_not_reach_the_reference_s_kernel():
    """Paddle autocasts on GPUs alone; PyTorch does it here too."""
    import torch

    from torch_ref.ops import softmax_free as twin

    q, landmarks, v = (torch.tensor(points(1, 2, 9, 8, seed=s), dtype=torch.float32) for s in range(3))
    plain = twin.softmax_free_attention(q, landmarks, v, twin.normalised_newton_inverse)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.matmul(q, q.transpose(2, 3)).dtype == torch.bfloat16
        cast = twin.softmax_free_attention(q, landmarks, v, twin.normalised_newton_inverse)
    assert torch.equal(plain, cast)
