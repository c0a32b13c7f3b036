"""The forms of attention as functions: each linear one is its definition in O(N^2), in both packages, at every edge."""

import importlib

import numpy as np
import pytest

HEADS, DIM = 3, 8
SEEDS = np.random.RandomState


def normal(*shape, seed=0):
    return SEEDS(seed).standard_normal(shape)


# a function -> (its module, that of its weights, the further arguments of both; arrays become tensors)
FORMS = {
    "linear_relu_attention": ("divided", "linear_relu_rows", []),
    "linear_elu_attention": ("divided", "linear_elu_rows", []),
    "hedgehog_attention": (
        "divided",
        "hedgehog_rows",
        [normal(HEADS, DIM, DIM), normal(HEADS, DIM, DIM, seed=1)],
    ),
    "l2_attention": ("divided", "l2_rows", [0.3 + 0.1 * normal(HEADS, 1, 1)]),
    "cosformer_attention": ("divided", "cosformer_rows", []),
    "performer_attention": ("performer", "performer_rows", [normal(11, DIM)]),
    "efficient_attention": ("undivided", "efficient_rows", []),
    "norm_attention": ("undivided", "norm_rows", []),
    "relu_attention": ("undivided", "relu_rows", [0.4, 1]),
    "relu_attention, squared": ("undivided", "relu_rows", [0.4, 2]),
    "angular_attention": ("undivided", "angular_rows", []),
    "flow_attention": ("flow", "flow_rows", []),
    "nystrom_attention": ("nystrom", "nystrom_rows", [7]),
    "nystrom_attention, one": ("nystrom", "nystrom_rows", [1]),
}
NEED_V = {"angular_rows"}  # functions of weights that are given v as well
MEANS = {"norm_attention"}  # functions that return the mean of what their weights sum
PACKAGES = ["paddle_inline", "torch_ref"]
# B, h, N, d
SHAPES = [(2, HEADS, 29, DIM), (1, HEADS, 1, DIM), (1, HEADS, 64, DIM)]


def tensors_of(package):
    """A function from arrays to tensors of a package; other values pass."""
    framework = importlib.import_module("torch" if package == "torch_ref" else "paddle")
    make = framework.tensor if package == "torch_ref" else framework.to_tensor
    return lambda value: make(value) if isinstance(value, np.ndarray) else value


@pytest.fixture(params=PACKAGES)
def package(request):
    pytest.importorskip(request.param.replace("_ref", "").replace("_inline", ""))
    return request.param


def functions(package, form):
    """The function of a form, that of its weights, and their further arguments."""
    module, rows, extra = FORMS[form]
    ops = importlib.import_module(f"{package}.ops.attention.{module}")
    return getattr(ops, form.partition(",")[0]), getattr(ops, rows), list(map(tensors_of(package), extra))


def weighted(package, form, q, k, v):
    """Values weighted by a form's definition."""
    _, rows, extra = functions(package, form)
    weights = rows(q, k, v, *extra) if rows.__name__ in NEED_V else rows(q, k, *extra)
    return weights @ v / (k.shape[2] if form in MEANS else 1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_a_function_is_its_definition(package, form, shape):
    if form == "nystrom_attention" and shape[2] < 7:
        return  # there are no seven landmarks of one token
    tensor = tensors_of(package)
    q, k, v = (tensor(normal(*shape, seed=seed)) for seed in range(3))
    attend, _, extra = functions(package, form)
    np.testing.assert_allclose(
        attend(q, k, v, *extra).numpy(), weighted(package, form, q, k, v).numpy(), rtol=1e-12, atol=1e-13
    )


@pytest.mark.parametrize("count", [1, 7, 28, 29])
def test_landmarks_of_any_number_of_tokens(package, count):
    tensor = tensors_of(package)
    ops = importlib.import_module(f"{package}.ops.attention.nystrom")
    x = normal(2, HEADS, 29, DIM)
    size, short = 29 // count, count * (29 // count + 1) - 29
    ends = np.cumsum([0] + [size] * short + [size + 1] * (count - short))
    means = np.stack([x[:, :, a:b].mean(2) for a, b in zip(ends, ends[1:])], 2)
    np.testing.assert_allclose(ops.landmarks_of(tensor(x), count).numpy(), means, rtol=0, atol=1e-14)


def test_the_iterated_inverse_inverts(package):
    ops = importlib.import_module(f"{package}.ops.attention.nystrom")
    matrix = np.eye(5) + 0.1 * np.abs(normal(2, HEADS, 5, 5))
    inverse = ops.iterated_inverse(tensors_of(package)(matrix)).numpy()
    np.testing.assert_allclose(matrix @ inverse, np.broadcast_to(np.eye(5), matrix.shape), rtol=0, atol=1e-9)


def test_hydra_is_its_definition_for_each_channel(package):
    tensor = tensors_of(package)
    ops = importlib.import_module(f"{package}.ops.attention.undivided")
    q, k, v = (tensor(normal(2, 13, DIM, seed=seed)) for seed in range(3))
    by_channel = np.einsum("bcij,bjc->bic", ops.hydra_rows(q, k).numpy(), v.numpy())
    np.testing.assert_allclose(ops.hydra_attention(q, k, v).numpy(), by_channel, rtol=0, atol=1e-13)


def test_channel_attention_is_attention_of_turned_heads(package):
    tensor = tensors_of(package)
    ops = importlib.import_module(f"{package}.ops.attention.undivided")
    q, k, v = (tensor(normal(2, HEADS, 13, DIM, seed=seed)) for seed in range(3))
    temperature = tensor(normal(HEADS, 1, 1))
    np.testing.assert_allclose(
        ops.channel_attention(q, k, v, temperature).numpy(),
        ops.channel_attention_by_channels(q, k, v, temperature).numpy(),
        rtol=0,
        atol=1e-13,
    )


class TestEdges:
    def test_a_query_without_a_positive_channel(self, package):
        """gives 0 where the weights are divided by their sum, and 0 in L2's."""
        tensor = tensors_of(package)
        k, v = (tensor(normal(2, HEADS, 9, DIM, seed=seed)) for seed in range(2))
        q = tensor(-np.abs(normal(2, HEADS, 9, DIM)))
        for form in ("linear_relu_attention", "cosformer_attention", "l2_attention"):
            attend, _, extra = functions(package, form)
            assert not attend(q, k, v, *extra).numpy().any(), form

    def test_the_bound_of_l2_is_on_the_sum(self, package):
        """100, whatever N is: below it an output is in proportion to the query."""
        tensor = tensors_of(package)
        q, k, v = (np.abs(normal(1, HEADS, 400, DIM, seed=seed)) for seed in range(3))
        attend, _, extra = functions(package, "l2_attention")
        out = [attend(tensor(q * by), tensor(k), tensor(v), *extra).numpy() for by in (1e-3, 2e-3, 10, 20)]
        np.testing.assert_allclose(out[1], 2 * out[0], rtol=1e-12)
        np.testing.assert_allclose(out[3], out[2], rtol=1e-12)

    def test_what_is_kept_when_a_query_grows(self, package):
        """The rows of divided ReLU forms forget a query's length, the others' do not."""
        tensor = tensors_of(package)
        q, k, v = (normal(1, HEADS, 9, DIM, seed=seed) for seed in range(3))
        changed = {}
        for form in FORMS:
            _, rows, extra = functions(package, form)
            last = [tensor(v)] if rows.__name__ in NEED_V else []
            one, two = (rows(tensor(by * q), tensor(k), *last, *extra).numpy() for by in (1, 2))
            changed[form] = np.abs(one - two).max() > 1e-6
        same = {form for form, moved in changed.items() if not moved}
        # (of angular's row only the part of v / 2 is of the length that it is divided by)
        assert same == {"linear_relu_attention", "cosformer_attention", "angular_attention"}


def test_random_directions_are_orthogonal_in_blocks(package):
    ops = importlib.import_module(f"{package}.ops.attention.performer")
    rows = ops.random_directions(20, DIM).numpy()
    assert rows.shape == (20, DIM)
    for block in (rows[:8], rows[8:16], rows[16:]):
        products = block @ block.T
        assert np.abs(products - np.diag(np.diag(products))).max() < 1e-5
    lengths = np.linalg.norm(ops.random_directions(4000, 4).numpy(), axis=1)
    assert abs((lengths**2).mean() - 4) < 0.3  # those of standard normal vectors
    with pytest.raises(ValueError, match="4000000 random features of heads of width 8 are more than 1048576"):
        ops.random_directions(4_000_000, DIM)
