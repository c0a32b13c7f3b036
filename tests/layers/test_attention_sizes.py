"""How large the tensors of every form of attention are, how they hold in half precision, and what is at the edges."""

import importlib

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

import paddle_inline  # noqa: E402

from .attention_goldens import draw, in_float64, numpy_of, tensor  # noqa: E402

LAYERS = paddle_inline.list_attentions()
FORMS = list(LAYERS)
DIM, HEADS, GRID = 48, 3, (3, 4)


@pytest.fixture(params=["paddle_inline", "torch_ref"])
def package(request):
    """Either package, imported."""
    return pytest.importorskip(request.param.partition("_ref")[0]) and importlib.import_module(request.param)


def drawn(form, dtype, grid, heads=1, head_dim=16, prefix=0):
    """A layer of torch_ref with weights that make its q, k and v of size 1, and its tokens."""
    import torch

    import torch_ref

    layer = torch_ref.create_attention(
        form, heads * head_dim, heads, grid=grid, prefix_tokens=prefix
    ).double()
    with torch.no_grad():
        for name, values in layer.state_dict().items():
            if name != "projection":
                array = draw(name, tuple(values.shape), 0)
                if name in ("proj_k.weight", "proj_v.weight"):  # Linformer's, [N, m], sum over tokens
                    array *= (array.shape[1] / array.shape[0]) ** 0.5
                values.copy_(torch.tensor(array))
    shape = (1, prefix + grid[0] * grid[1], heads * head_dim)
    x = torch.tensor(np.random.RandomState(0).standard_normal(shape))
    return layer.to(dtype), x.to(dtype)


@pytest.mark.parametrize("form", FORMS)
class TestHalfPrecision:
    """With half precision as storage, against float64 of the same numbers. (Paddle has no float16 on the CPU.)"""

    def error(self, form, dtype, grid):
        import torch

        layer, x = drawn(form, dtype, grid)
        with torch.no_grad():
            out = layer(x, grid).double()
            expected = layer.double()(x.double(), grid)
        assert torch.isfinite(out).all()
        return ((out - expected).abs().max() / expected.abs().max()).item()

    def test_float16_of_a_large_grid(self, form):
        torch = pytest.importorskip("torch")
        assert self.error(form, torch.float16, (112, 112) if LAYERS[form].linear else (28, 28)) < 2e-3

    def test_bfloat16(self, form):
        torch = pytest.importorskip("torch")
        assert self.error(form, torch.bfloat16, (14, 14)) < 2e-2

    def test_gradients_of_float16_with_a_class_token(self, form):
        torch = pytest.importorskip("torch")
        layer, x = drawn(form, torch.float16, (3, 4), prefix=1)
        x.requires_grad_()
        layer(x, (3, 4)).sum().backward()
        assert all(torch.isfinite(t.grad).all() for t in (x, *layer.parameters()))


@pytest.mark.parametrize("function", ["linear_relu_attention", "cosformer_attention"])
def test_gradients_of_float16_where_a_query_has_no_positive_channel(function):
    torch = pytest.importorskip("torch")
    from torch_ref.ops.attention import divided

    gradients = []
    for dtype in (torch.float64, torch.float16):
        q, k, v = (torch.tensor(np.random.RandomState(i).standard_normal((1, 2, 12, 8))) for i in range(3))
        q[0, 0, 3] = -q[0, 0, 3].abs()
        q, k, v = (t.half().to(dtype).requires_grad_() for t in (q, k, v))
        out = getattr(divided, function)(q, k, v)
        assert (out[0, 0, 3] == 0).all()
        out.sum().backward()
        gradients.append([t.grad.double() for t in (q, k, v)])
    for expected, found in zip(*gradients):
        assert (expected - found).abs().max() < 5e-2 * expected.abs().max()


@pytest.mark.parametrize("form", FORMS)
class TestSizeOfTensors:
    """A linear form makes no tensor of N x N, forward or backward; a quadratic one does."""

    GRID = (20, 21)

    def check(self, form, largest):
        tokens = self.GRID[0] * self.GRID[1]
        assert (largest < tokens**2) == LAYERS[form].linear

    def test_of_torch(self, form):
        torch = pytest.importorskip("torch")
        from torch.utils._python_dispatch import TorchDispatchMode
        from torch.utils._pytree import tree_leaves

        class Largest(TorchDispatchMode):
            seen = 0

            def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
                out = function(*arguments, **(keywords or {}))
                sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
                self.seen = max([self.seen, *sizes])
                return out

        layer, x = drawn(form, torch.float32, self.GRID)
        with Largest() as largest:
            layer(x, self.GRID).sum().backward()
        self.check(form, largest.seen)

    def test_of_paddle(self, form):
        """Traced for any batch, which is the one dimension that stays open."""
        layer = OnGrid(paddle_inline.create_attention(form, 16, 1, grid=self.GRID), self.GRID)
        spec = [paddle.static.InputSpec([None, self.GRID[0] * self.GRID[1], 16], "float32")]
        traced = paddle.jit.to_static(layer, input_spec=spec, full_graph=True)
        shapes = shapes_of(traced.forward.concrete_program.main_program.global_block())
        assert len(shapes) > 10
        assert not [shape for shape in shapes if -1 in shape[1:] and -1 in shape[:1]]
        self.check(form, max(int(np.prod(np.abs(shape))) for shape in shapes))


def shapes_of(block):
    """The shapes of all tensors of a program's block; Paddle 2.6 has variables, 3 has results of operations."""
    if isinstance(getattr(block, "vars", None), dict):
        return [variable.shape for variable in block.vars.values() if variable.shape]
    results = [result for op in block.ops for result in op.results()]
    return [result.shape for result in results if result.is_dense_tensor_type()]


class OnGrid(paddle.nn.Layer):
    """A layer on one grid."""

    def __init__(self, layer, grid):
        super().__init__()
        self.layer, self.grid = layer, grid

    def forward(self, x):
        return self.layer(x, self.grid)


@pytest.mark.parametrize("form", FORMS)
class TestEdges:
    def gradients(self, package, form, grid, x, weights=None):
        """Output, and gradients of input and parameters, of a layer of float64."""
        layer = in_float64(package.create_attention(form, DIM, HEADS, grid=grid))
        for name, parameter in layer.named_parameters():
            if weights is not None and name.startswith("qkv"):
                value = tensor(package, np.full(tuple(parameter.shape), weights))
                parameter.set_value(value) if package is paddle_inline else parameter.data.copy_(value)
        x = tensor(package, x)
        if package is paddle_inline:
            x.stop_gradient = False
        else:
            x.requires_grad_(True)
        out = layer(x, grid)
        (out * out).sum().backward()
        found = [parameter.grad for parameter in layer.parameters()]
        return [numpy_of(array) for array in (out, x.grad, *[grad for grad in found if grad is not None])]

    def test_one_token_of_one_image(self, package, form):
        x = np.random.standard_normal((1, 1, DIM))
        assert all(np.isfinite(array).all() for array in self.gradients(package, form, (1, 1), x))

    def test_queries_keys_and_values_of_zero(self, package, form):
        x = np.random.standard_normal((1, 12, DIM))
        arrays = self.gradients(package, form, GRID, x, weights=0.0)
        assert all(np.isfinite(array).all() for array in arrays)

    def test_an_image_does_not_depend_on_its_batch(self, package, form):
        layer = in_float64(package.create_attention(form, DIM, HEADS, grid=GRID))
        x = np.random.standard_normal((3, 12, DIM))
        alone = numpy_of(layer(tensor(package, x[1:2]), GRID))
        np.testing.assert_allclose(numpy_of(layer(tensor(package, x), GRID))[1:2], alone, rtol=0, atol=1e-12)
