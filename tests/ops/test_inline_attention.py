"""Injective linear attention: the linear form against the quadratic truth, and why it is injective."""

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

from paddle_inline.ops import inline_attention as paddle_ops  # noqa: E402

SHAPES = [(2, 3, 49, 8), (1, 1, 1, 4), (3, 2, 65, 5)]  # B, h, N, d


def tensors(shape, count):
    return [paddle.to_tensor(np.random.standard_normal(shape)) for _ in range(count)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("feature_map", sorted(paddle_ops.FEATURE_MAPS))
def test_linear_form_is_the_quadratic_definition(shape, feature_map):
    q, k, v = tensors(shape, 3)
    phi = paddle_ops.FEATURE_MAPS[feature_map]
    linear = paddle_ops.inline_attention(phi(q), phi(k), v, 0.3)
    quadratic = paddle_ops.quadratic_inline_attention(phi(q), phi(k), v, 0.3)
    np.testing.assert_allclose(linear.numpy(), quadratic.numpy(), rtol=0, atol=1e-13)


def test_weights_of_every_query_sum_to_one():
    q, k = tensors((2, 3, 49, 8), 2)
    weights = paddle_ops.inline_attention_weights(q * 50, k, 0.3)
    np.testing.assert_allclose(weights.sum(-1).numpy(), 1, rtol=0, atol=1e-12)


def divided_weights(q, k):
    """Ordinary linear attention: relu features, divided by their sum (Katharopoulos et al., 2020)."""
    scores = np.maximum(q, 0) @ np.maximum(k, 0).T
    return scores / scores.sum(-1, keepdims=True)


def test_collinear_queries_of_different_length_keep_their_difference():
    direction, keys = np.abs(np.random.standard_normal(8)), np.random.standard_normal((16, 8))
    queries = np.stack([direction, 3 * direction])
    divided = divided_weights(queries, keys)
    np.testing.assert_allclose(divided[0], divided[1], rtol=1e-12)  # confused: division forgets length
    q, k = (paddle.to_tensor(x[None, None]) for x in (queries, keys))
    injective = paddle_ops.inline_attention_weights(q, k, 8**-0.5).numpy()[0, 0]
    centred = injective - 1 / 16
    np.testing.assert_allclose(centred[1], 3 * centred[0], rtol=1e-12)
    assert np.abs(injective[0] - injective[1]).max() > 0.05


def test_feature_maps_are_those_of_the_paper():
    x = np.array([-2.0, 0.5])
    got = {name: phi(paddle.to_tensor(x)).numpy() for name, phi in paddle_ops.FEATURE_MAPS.items()}
    np.testing.assert_allclose(got["identity"], x)
    np.testing.assert_allclose(got["relu"], [0, 0.5])
    np.testing.assert_allclose(got["leaky_relu"], [-0.02, 0.5])
    np.testing.assert_allclose(got["exp"], np.exp(0.2 * x))


def local_residual_by_hand(v, kernel, size):
    """Cross-correlation with zero padding 1, one filter per image and channel."""
    (height, width), (batch, tokens, channels) = size, v.shape
    v = v.transpose(0, 2, 1).reshape(batch, channels, height, width)
    padded = np.pad(v, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = sum(
        padded[:, :, y : y + height, x : x + width] * kernel[:, :, y, x, None, None]
        for y in range(3)
        for x in range(3)
    )
    return out.reshape(batch, channels, tokens).transpose(0, 2, 1)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 7)], ids=str)
@pytest.mark.parametrize("form", ["local_residual", "_filter_grouped", "_filter_shifted"])
def test_every_form_of_the_local_residual_is_the_definition(form, size):
    v, kernel = np.random.standard_normal((3, size[0] * size[1], 4)), np.random.standard_normal((3, 4, 3, 3))
    out = getattr(paddle_ops, form)(paddle.to_tensor(v), paddle.to_tensor(kernel), size)
    np.testing.assert_allclose(out.numpy(), local_residual_by_hand(v, kernel, size), rtol=0, atol=1e-13)


def test_the_key_value_product_fits_float16_where_the_plain_sum_overflows(monkeypatch):
    q, k, v = (paddle.to_tensor(100 * np.random.standard_normal((1, 1, 4096, 32))) for _ in range(3))
    v = v + k
    plain = paddle.matmul(k, v, transpose_x=True).abs().max().item()
    factors, matmul = [], paddle.matmul
    monkeypatch.setattr(paddle, "matmul", lambda a, b, **k: factors.append((a, b)) or matmul(a, b, **k))
    paddle_ops.inline_attention(q, k, v, 32**-0.5)
    left, right = factors[0]
    scaled = matmul(left, right, transpose_x=True).abs().max().item()
    assert plain > 65504 > scaled  # float16's largest number
    assert min(left.abs().mean().item(), right.abs().mean().item()) > 6.1e-5  # and its smallest normal one
