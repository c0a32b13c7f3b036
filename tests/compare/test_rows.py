"""Injectivity, locality and masking against values worked out by hand."""

import numpy as np
import paddle
import pytest

from paddle_inline import create_attention, create_model
from paddle_inline.compare import rows
from paddle_inline.compare.rows import NoRows, Record

SIZE = (4, 4)


def record(weights, queries=None, size=SIZE):
    weights = np.asarray(weights, float)[None, None]
    queries = (
        np.eye(weights.shape[-1])[None, None] if queries is None else np.asarray(queries, float)[None, None]
    )
    return Record(weights, queries, size)


def test_one_collision_among_three_queries_is_a_third():
    row = [0.2, 0.3, 0.5]
    assert rows.confused_share(record([row, row, [0.5, 0.3, 0.2]])) == pytest.approx(1 / 3)
    nearly = [0.2004, 0.3, 0.4996]  # 0.0008 of a row of length 1
    assert rows.confused_share(record([row, nearly, [0.5, 0.3, 0.2]])) == pytest.approx(1 / 3)
    apart = [0.2006, 0.3, 0.4994]
    assert rows.confused_share(record([row, apart, [0.5, 0.3, 0.2]])) == 0


def test_rows_of_any_scale_are_compared_by_their_length():
    row = np.array([0.2, 0.3, 0.5])
    assert rows.confused_share(record(1e-4 * np.array([row, row[::-1], row * 2]))) == 0


def test_equal_queries_are_no_pair():
    row = [0.2, 0.3, 0.5]
    assert np.isnan(rows.confused_share(record([row] * 3, [[1.0, 2.0]] * 3)))
    assert rows.confused_share(record([row] * 3, [[1.0, 2.0], [1.0, 2.0], [0.0, 2.0]])) == 1


def test_forms_with_two_sets_of_rows_use_the_same_queries():
    weights = np.stack([np.eye(3), np.full((3, 3), 1 / 3)])[None]
    assert rows.confused_share(Record(weights, np.eye(3)[None, None], (1, 3))) == 0.5


def test_locality_of_an_identity_is_1_and_of_an_even_spread_nine_of_all():
    assert rows.local_share(record(np.eye(16))) == 1
    assert rows.local_share(record(np.full((16, 16), 1 / 16))) == pytest.approx(9 / 16)
    assert rows.local_share(record(-np.eye(16))) == 1  # by absolute values


def test_locality_leaves_prefix_tokens_out():
    weights = np.zeros((17, 17))
    weights[:, 0] = 0.9  # on the class token
    weights[1:, 1:] = 0.1 * np.eye(16)
    assert rows.local_share(record(weights)) == 1


def test_rows_below_0_or_of_other_sums_are_seen():
    facts = rows.row_facts(record([[0.5, 0.5], [-0.5, 1.0]], size=(1, 2)))
    assert facts["negative"] == 0.25
    assert facts["low"] == pytest.approx(0.525) and facts["high"] == pytest.approx(0.975)


def test_the_neighbourhood_is_cut_at_the_border():
    near = rows.neighbourhood((3, 3), prefix=1)
    assert near.sum(axis=1).tolist() == [0, 4, 6, 4, 6, 9, 6, 4, 6, 4]
    assert not near[:, 0].any()
    elsewhere = rows.as_many_elsewhere(near, 1, np.random.RandomState(0))
    assert elsewhere.sum(axis=1).tolist() == near.sum(axis=1).tolist() and not elsewhere[:, 0].any()


# ---------------------------------------------------------------- layers


@pytest.fixture(scope="module")
def double():
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype("float32")


def positive_channels(dim=16, heads=2, grid=(5, 5), seed=0):
    """Of the first head's first query, as `derivative_rank` draws it."""
    draws = np.random.RandomState(seed)
    draws.standard_normal((1, grid[0] * grid[1], dim))
    return (draws.standard_normal((1, grid[0] * grid[1], dim))[0, 0, : dim // heads] > 0).sum().item()


@pytest.mark.parametrize(
    ("form", "rank"),
    [
        ("softmax", 8),
        ("inline", 8),
        ("inline:local=false", 8),
        ("linear_elu", 7),
        ("linear_relu", positive_channels() - 1),
    ],
)
def test_ranks_are_those_of_the_literature(form, rank, double):
    name, _, option = form.partition(":")
    layer = create_attention(name, 16, 2, grid=(5, 5), **({"local": False} if option else {}))
    layer.eval()
    assert rows.derivative_rank(layer, (5, 5)) == rank


def test_what_a_query_does_through_sums_over_queries_is_taken_away(double):
    """Rows divided by the mean query's length do not depend, themselves, on their own query's length."""

    class Shared(type(create_attention("linear_elu", 8, 2))):
        def weights(self, q, k, v):
            mean = q.mean(axis=2, keepdim=True)
            return paddle.matmul(mean + 0 * q, k, transpose_y=True)

    layer = Shared(8, 2)
    assert rows.derivative_rank(layer, (4, 4)) == 0


@pytest.mark.parametrize("form", ["softmax", "inline", "linear_relu"])
def test_a_masked_layer_sums_what_is_left(form):
    layer = create_attention(form, 8, 2, grid=(3, 3), prefix_tokens=1)
    layer.eval()
    x = paddle.randn([2, 10, 8])
    near = rows.neighbourhood((3, 3), 1)
    whole, weights = layer(x, (3, 3)), layer.rows(x, (3, 3))
    _, _, v = layer.project(x, (3, 3))
    heads = v.reshape([2, 10, 2, 4]).transpose([0, 2, 1, 3])
    lost = paddle.matmul(weights * paddle.to_tensor(near.astype("float32")), heads)
    lost = lost.transpose([0, 2, 1, 3]).reshape([2, 10, 8])
    expected = whole - paddle.matmul(lost, layer.proj.weight)
    with rows.masked(layer_in(layer), lambda size, prefix: near):
        found = layer(x, (3, 3))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-6)
    np.testing.assert_array_equal(layer(x, (3, 3)).numpy(), whole.numpy())  # as before


def layer_in(layer):
    model = paddle.nn.Layer()
    model.attn = layer
    return model


def test_records_are_of_every_layer_in_order():
    model = create_model("inline_deit_digits", attn_type="softmax", depth=2)
    model.eval()
    found = rows.recorded(model, paddle.randn([3, 3, 32, 32]))
    assert [r.weights.shape for r in found] == [(3, 4, 65, 65)] * 2
    assert [r.queries.shape for r in found] == [(3, 4, 65, 16)] * 2
    assert found[0].size == (8, 8)
    np.testing.assert_allclose(found[0].weights.sum(axis=-1), 1, atol=1e-5)
    assert rows.attention_map(found[0], 0, 1).shape == (8, 8)


def test_networks_without_rows_say_why():
    sizes = {"img_size": 64, "embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2)}
    model = create_model("inline_cswin_tiny", **sizes, attn_type="IIII")
    model.eval()
    with pytest.raises(NoRows, match="branch of CSwin has no rows"):
        rows.recorded(model, paddle.randn([1, 3, 64, 64]))


def test_a_layer_without_rows_is_refused():
    layer = create_attention("softmax", 8, 2)
    layer.ROWS = False
    with pytest.raises(NoRows, match="one weight for each token"):
        rows.check_rows(layer_in(layer))
    with pytest.raises(NoRows, match="do not show rows"):
        rows.check_rows(paddle.nn.Linear(2, 2))
