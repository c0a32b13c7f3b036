"""Injectivity, locality and masking against values worked out by hand."""

import numpy as np
import paddle
import pytest

from paddle_inline import create_attention, create_model
from paddle_inline.compare import masking, rows
from paddle_inline.compare.plan import read_form
from paddle_inline.compare.rows import NoRows, Record
from paddle_inline.layers.attention import list_attentions

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


def test_every_set_of_rows_counts():
    weights = np.stack([np.eye(3), np.full((3, 3), 1 / 3)])[None]
    assert rows.confused_share(Record(weights, np.stack([np.eye(3)] * 2)[None], (1, 3))) == 0.5


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


GRID, DIM, HEADS, WIDTH = (8, 8), 16, 2, 8  # so that an agent and a landmark stand for eight tokens or more
RANKS = {
    **dict.fromkeys(["softmax", "inline", "inline:local=false", "relu", "relu2"], WIDTH),
    **dict.fromkeys(["flow", "norm", "performer:num_features=24", "mala"], WIDTH),
    **dict.fromkeys(["linear_elu", "efficient", "angular", "rala", "mlla", "pola", "hedgehog"], WIDTH - 1),
    **dict.fromkeys(["linear_relu", "linear_relu:local=true", "cosformer", "slab", "enhanced"], "d+ - 1"),
    "l2": "d+",  # below its bound of 100
    "focused": "d+",  # its 1e-6 beside a mean shows at 1e-7 of the largest singular value
    "gla": WIDTH // 2,
    "agent:num_agents=4": 3,  # min(d, a - 1)
    "nystrom:num_landmarks=8": 7,
    "linformer:num_projected=4": 3,
    **dict.fromkeys(["agent:num_agents=16", "linformer:num_projected=16"], WIDTH),
    "nystrom:num_landmarks=16": WIDTH,
}
OTHERWISE = {"l2", "focused"}  # measured as said above, and not as by their formulas
ROWS = sorted(RANKS)


def layer_of(form, prefix_tokens=0, create=create_attention):
    form = read_form(form, list(list_attentions()))
    options = {"grid": GRID, "prefix_tokens": prefix_tokens, **dict(form.options)}
    layer = create(form.attention, DIM, HEADS, **options)
    layer.eval()
    return layer


def expected_rank(form, layer):
    """The number for a layer of Paddle, of whose first query as many channels count as are positive."""
    rank = RANKS[form]
    return positive_channels(layer) - rank.count("- 1") if isinstance(rank, str) else rank


def positive_channels(layer, seed=0):
    """Of the first head's first query, as `derivative_rank` draws it."""
    draws = np.random.RandomState(seed)
    x = paddle.to_tensor(draws.standard_normal((1, 64, DIM)))
    q = draws.standard_normal(rows.inputs_of(layer, x, GRID)[1][0][0].shape)
    return (q.reshape(-1, q.shape[-1])[0, :WIDTH] > 0).sum().item()


def test_every_form_is_measured_or_has_no_rows():
    known = {name for name, form in list_attentions().items() if form.rows}
    assert known == {form.partition(":")[0] for form in ROWS}


@pytest.mark.parametrize("form", ROWS)
def test_ranks_are_those_of_the_literature(form, double):
    paddle.seed(0)
    layer = layer_of(form)
    assert rows.derivative_rank(layer, GRID) == expected_rank(form, layer)


@pytest.mark.parametrize("form", ROWS)
def test_ranks_of_the_layers_in_torch(form, double):
    torch_ref = pytest.importorskip("torch_ref")
    layer = layer_of(form, create=torch_ref.create_attention).double()
    assert rank_in_torch(layer, GRID) == expected_rank(form, layer_of(form))


def rank_in_torch(layer, size):
    """`derivative_rank` of the first patch's query, for a layer of torch_ref, with the same numbers."""
    import torch

    draws = np.random.RandomState(0)
    x = torch.tensor(draws.standard_normal((1, size[0] * size[1], DIM)))
    name = next(name for name in ("scales", "parts", "project") if hasattr(layer, name))
    gated = type(layer).__name__ == "GatedLinearAttention"
    made = getattr(layer, name)(*([layer.local(x, size)] if gated else [x, size]))
    first, *others = made if name == "scales" else [made]
    parts = [draws.standard_normal(part.shape) for part in first[:3]]
    parts[0][..., 1, :] = parts[0][..., 0, :]  # the next token asks the same, through sums over queries too
    q, k, v = (torch.tensor(part) for part in parts)
    made = (q.requires_grad_(True), k, v, *first[3:])
    object.__setattr__(layer, name, lambda *given: [made, *others] if name == "scales" else made)
    row = layer.rows(x, size)[0, 0, 0]
    found = [torch.autograd.grad(number, q, retain_graph=True)[0] for number in row]
    direct = [grad[0, 0] if grad.ndim == 4 else grad[0, :, :WIDTH] for grad in found]
    values = np.linalg.svd(torch.stack([grad[0] - grad[1] for grad in direct]).numpy(), compute_uv=False)
    return (values > 1e-7 * values.max()).sum().item()


@pytest.mark.parametrize("form", ROWS)
def test_what_the_table_says_is_what_is_measured(form):
    """`row_dimension`, put into numbers, is the rank above; `injective`, whether that is all of a query."""
    name, _, option = form.partition(":")
    row = list_attentions()[name]
    said = row.row_dimension.partition(" per scale")[0].partition(" (m > d)")[0]
    if "d+" not in said:
        count = int(option.partition("=")[2]) if "=" in option and "local" not in option else 0
        said = eval(said, {"min": min}, {"d": WIDTH, "a": count, "m": count})
    assert said == RANKS[form] or form in OTHERWISE
    if row.injective is None:
        assert "min(d" in row.row_dimension
    else:
        width = WIDTH // 2 if name == "gla" else WIDTH  # of a query
        assert row.injective == (RANKS[form] == width)


def test_another_claim_shows(monkeypatch):
    from paddle_inline.layers.attention import ATTENTION

    monkeypatch.setattr(ATTENTION["cosformer"], "INJECTIVE", True)
    with pytest.raises(AssertionError):
        test_what_the_table_says_is_what_is_measured("cosformer")
    monkeypatch.setattr(ATTENTION["linear_elu"], "ROW_DIMENSION", "d")
    with pytest.raises(AssertionError):
        test_what_the_table_says_is_what_is_measured("linear_elu")


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
    with masking.masked(layer_in(layer), lambda size, prefix: near):
        found = layer(x, (3, 3))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-6)
    np.testing.assert_array_equal(layer(x, (3, 3)).numpy(), whole.numpy())  # as before


@pytest.mark.parametrize("form", ROWS)
def test_every_form_is_masked_where_it_sums(form):
    """Without nothing it is as it was; what two halves take away is what both together take, where that is a sum."""
    layer = layer_of(form, prefix_tokens=1)
    x = paddle.randn([2, 65, DIM])
    everything = np.ones((65, 65), bool)
    half = np.random.RandomState(0).rand(65, 65) < 0.5

    def without(taken):
        with masking.masked(layer_in(layer), lambda size, prefix: taken):
            return layer(x, GRID).numpy()

    whole = layer(x, GRID).numpy()
    atol = 1e-5 * abs(whole).max()
    np.testing.assert_allclose(without(~everything), whole, atol=atol)
    first, second, both = without(half), without(~half), without(everything)
    assert abs(first - whole).max() > 10 * atol and abs(second - first).max() > 10 * atol
    if form not in ("norm", "gla"):  # which divide the sum by its length
        np.testing.assert_allclose(whole - first + whole - second, whole - both, atol=3 * atol)


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


@pytest.mark.parametrize(("form", "width"), [("pola", 16), ("enhanced", 16), ("gla", 8), ("mala", 16)])
def test_every_set_of_rows_has_its_queries(form, width):
    model = create_model("inline_deit_digits", attn_type=form, depth=1)
    model.eval()
    (found,) = rows.recorded(model, paddle.randn([2, 3, 32, 32]))
    sets = 2 if form in ("pola", "enhanced") else 1
    assert found.weights.shape == (2, 4 * sets, 65, 65) and found.queries.shape == (2, 4 * sets, 65, width)
    assert (found.queries[:, :4] == found.queries[:, -4:]).all() == (form != "enhanced")


def test_a_layer_without_rows_is_refused():
    layer = create_attention("softmax", 8, 2)
    layer.ROWS = False
    with pytest.raises(NoRows, match="one weight for each token"):
        rows.check_rows(layer_in(layer))
    with pytest.raises(NoRows, match="do not show rows"):
        rows.check_rows(paddle.nn.Linear(2, 2))
