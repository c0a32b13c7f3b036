"""Forms with positions, gates, agents and chunks: each linear form is its definition, in both packages."""

import importlib

import numpy as np
import pytest

HEADS = (2, 3, 13, 8)  # B, h, N, d


class Package:
    """The ops of one package, on numpy arrays in float64."""

    def __init__(self, name):
        self.name = name
        self.framework = importlib.import_module("paddle" if name == "paddle_inline" else "torch")

    def __call__(self, module, function, *arrays, **arguments):
        op = getattr(importlib.import_module(f"{self.name}.ops.{module}"), function)
        out = op(*(self.tensor(array) for array in arrays), **arguments)
        return tuple(part.numpy() for part in out) if isinstance(out, tuple) else out.numpy()

    def tensor(self, array):
        if isinstance(array, tuple):
            return tuple(self.tensor(part) for part in array)
        if not isinstance(array, np.ndarray):
            return array
        return (self.framework.to_tensor if self.name == "paddle_inline" else self.framework.tensor)(array)


@pytest.fixture(params=["paddle_inline", "torch_ref"])
def package(request):
    pytest.importorskip("paddle" if request.param == "paddle_inline" else "torch")
    return Package(request.param)


def normal(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape)


def features(seed):
    return np.exp(normal(*HEADS, seed=seed))


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


class TestLinearFormsAreTheirDefinitions:
    def test_normalised(self, package):
        q, k, turned, v = features(1), features(2), (features(3), features(4)), normal(*HEADS)
        for pair in (None, turned):
            rows = package("attention.normalised", "normalised_rows", q, k, pair)
            close(package("attention.normalised", "normalised_attention", q, k, v, pair), rows @ v)
        scores = turned[0] @ turned[1].swapaxes(2, 3)
        close(rows, scores / (13 * ((q @ k.swapaxes(2, 3)).mean(3, keepdims=True) + 1e-6)))

    def test_mala(self, package):
        q, k, v, turned = features(1), features(2), normal(*HEADS), (normal(*HEADS, seed=3), features(4))
        rows = package("attention.normalised", "mala_rows", q, k, turned, 0.3)
        close(package("attention.normalised", "mala_attention", q, k, v, turned, 0.3), rows @ v)
        unturned = package("attention.normalised", "mala_rows", q, k, (q, k), 0.3)
        np.testing.assert_allclose(unturned.sum(3), 1, atol=1e-5)  # but for the eps
        assert unturned.min() < 1 / 13 < unturned.max()

    def test_rala_keys_are_weighted_by_the_mean_query(self, package):
        q, k = features(1), features(2)
        logits = 0.3 * (k * q.mean(2, keepdims=True)).sum(3, keepdims=True)
        shares = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
        close(package("attention.normalised", "augmented_keys", q, k, 0.3), 13 * shares * k)

    def test_pola(self, package):
        q, k, v, power = (normal(*HEADS, seed=seed) for seed in range(4))
        power = power[:1, :, :1]
        same, opposite = package("attention.focused", "pola_rows", q, k, power)
        out = package("attention.focused", "pola_attention", q, k, v, power)
        close(out[..., :4], same @ v[..., :4])
        close(out[..., 4:], opposite @ v[..., 4:])
        exponent = 1 + 4 / (1 + np.exp(-power))
        q_plus, q_minus, k_plus, k_minus = (np.maximum(part, 0) ** exponent for part in (q, -q, k, -k))
        like = q_plus @ k_plus.swapaxes(2, 3) + q_minus @ k_minus.swapaxes(2, 3)
        close(same, like / (13 * (like.mean(3, keepdims=True) + 1e-6)))

    def test_agent(self, package):
        q, k, v = (normal(*HEADS, seed=seed) for seed in range(3))
        agents, gather, spread = normal(2, 3, 4, 8), normal(3, 4, 13), normal(3, 13, 4)
        rows = package("attention.agent", "agent_rows", q, k, agents, 0.3, gather, spread)
        out = package("attention.agent", "agent_attention", q, k, v, agents, 0.3, gather, spread)
        close(out, rows @ v)
        close(rows.sum(3), 1)

    def test_linformer(self, package):
        q, k, v = (normal(*HEADS, seed=seed) for seed in range(3))
        project_k, project_v = normal(13, 5, seed=4), normal(13, 5, seed=5)
        rows = package("attention.agent", "linformer_rows", q, k, project_k, project_v, 0.3)
        close(package("attention.agent", "linformer_attention", q, k, v, project_k, project_v, 0.3), rows @ v)


def gated_arguments(num_tokens, spread=1.0):
    q, k, a, b = (normal(2, 3, num_tokens, 4, seed=seed) for seed in range(4))
    gates = (-np.logaddexp(0, -spread * part) for part in (a, b))
    return [q, k, normal(2, 3, num_tokens, 6, seed=9), *gates]


class TestGatedLinearAttention:
    @pytest.mark.parametrize("num_tokens", [1, 2, 7, 8, 9, 16, 17, 41])  # a chunk has 8
    def test_chunks_are_the_recurrence_and_the_definition(self, package, num_tokens):
        arguments = gated_arguments(num_tokens)
        out = package("attention.gla", "gated_attention", *arguments, 0.5)
        close(out, package("attention.gla", "gated_recurrence", *arguments, 0.5))
        q, k, v, forward, backward = arguments
        close(out, package("attention.gla", "gated_rows", q, k, forward, backward, 0.5) @ v)

    @pytest.mark.parametrize("spread", [1e3, 1e30])
    def test_gates_that_forget_all_or_nothing_leave_everything_finite(self, package, spread):
        """Log gates of -1e30 and of 0: quotients of the gates' products would be 0 / 0."""
        arguments = [array.astype("float32") for array in gated_arguments(41, spread)]
        tensors = [package.tensor(array) for array in arguments]
        for tensor in tensors:
            if package.name == "paddle_inline":
                tensor.stop_gradient = False
            else:
                tensor.requires_grad_(True)
        gla = importlib.import_module(f"{package.name}.ops.attention.gla")
        out = gla.gated_attention(*tensors, 0.5)
        out.sum().backward()
        assert all(np.isfinite(tensor.grad.numpy()).all() for tensor in tensors)
        expected = package("attention.gla", "gated_recurrence", *arguments, 0.5)
        np.testing.assert_allclose(out.detach().numpy(), expected, rtol=0, atol=1e-5)

    def test_every_exponent_is_a_sum_of_gates(self, package):
        gla = importlib.import_module(f"{package.name}.ops.attention.gla")
        sums = gla.exponent_sums(3)
        assert set(np.unique(sums)) == {0, 1} and sums.shape == (6, 23)
        assert sums[:, :9].sum(0).reshape(3, 3).tolist() == [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
        assert sums[:3, 6].tolist() == [0, 1, 1]  # G from token 0, which is not counted, to token 2
        assert sums[3:, 2].tolist() == [1, 1, 0]  # R from token 0 to token 2, which is not counted


class TestRotary:
    def turned(self, package, x, size, frequencies, prefix):
        rotary = importlib.import_module(f"{package.name}.ops.attention.rotary")
        x = package.tensor(x)
        return rotary.turn(x, rotary.rotary_tables(size, frequencies, prefix, x)).numpy()

    def test_pairs_turn_with_their_row_and_their_column(self, package):
        x, frequencies = normal(2, 3, 1 + 12, 8), np.array([1.0, 0.3])
        found = self.turned(package, x, (3, 4), frequencies, 1)
        y, column = np.divmod(np.arange(12), 4)
        angles = np.concatenate([np.outer(y, frequencies), np.outer(column, frequencies)], axis=1)
        pairs = (x[..., ::2] + 1j * x[..., 1::2])[:, :, 1:] * np.exp(1j * angles)
        close(found[:, :, 1:, ::2], pairs.real)
        close(found[:, :, 1:, 1::2], pairs.imag)
        close(found[:, :, 0], x[:, :, 0])  # the prefix token stands

    def test_frequencies(self, package):
        rotary = importlib.import_module(f"{package.name}.ops.attention.rotary")
        np.testing.assert_allclose(rotary.head_frequencies(12), [1, 1e-2, 1e-4])
        assert rotary.head_frequencies(4).tolist() == [1]
        np.testing.assert_allclose(rotary.width_frequencies(16), [1, 0.1, 0.01, 0.001])


class TestFocus:
    def test_it_is_its_formula_at_any_scale(self, package):
        x, scale = normal(2, 5, 6), normal(1, 1, 6, seed=1)
        t = (np.maximum(x, 0) + 1e-6) / np.log1p(np.exp(scale))
        norm = lambda a: np.sqrt((a * a).sum(2, keepdims=True))  # noqa: E731
        close(package("attention.focused", "focus", x, scale), norm(t) * t**3 / norm(t**3))

    @pytest.mark.parametrize("size", [1e-3, 1e3])
    def test_cubes_of_float16_neither_vanish_nor_overflow(self, package, size):
        x, scale = size * np.abs(normal(2, 5, 6)), np.zeros((1, 1, 6))
        half = package("attention.focused", "focus", x.astype("float16"), scale.astype("float16"))
        expected = package("attention.focused", "focus", x, scale)
        assert half.dtype == np.float16
        np.testing.assert_allclose(half, expected, rtol=1e-2, atol=1e-3 * expected.max())

    def test_an_even_power_of_nothing_has_no_derivative(self, package):
        """0^p is 0, and so are its derivatives by the 0 and by p."""
        focused = importlib.import_module(f"{package.name}.ops.attention.focused")
        x, power = package.tensor(np.zeros((1, 1, 2, 4))), package.tensor(np.zeros((1, 1, 1, 4)))
        for tensor in (x, power):
            if package.name == "paddle_inline":
                tensor.stop_gradient = False
            else:
                tensor.requires_grad_(True)
        same, opposite, keys = focused.polar_features(x, x, power)
        (same + opposite + keys).sum().backward()
        assert np.abs(keys.detach().numpy()).max() < 1e-30
        assert np.abs(x.grad.numpy()).max() < 1e-30 and np.abs(power.grad.numpy()).max() < 1e-20
