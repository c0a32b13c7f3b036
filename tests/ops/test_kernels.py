"""The compiled loops: numbers of float64, whatever the numbers, and the same whatever the threads."""

import contextlib
import hashlib
import math
import os
import pickle
import subprocess
import sys

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

import paddle_inline
from paddle_inline.ops import kernels
from paddle_inline.training.guarded import guarded_step
from paddle_inline.training.optim import decay_groups, make_optimizer, optimizer_state
from paddle_inline.utils import compiled
from tests.convert.parity.specs import SMALL, small

pytestmark = pytest.mark.skipif(kernels.version() is None, reason="needs Numba")


def tensor(values):
    return paddle.to_tensor(np.asarray(values, "float32"))


def spread(*shape):
    return np.random.RandomState(shape[-1]).standard_normal(shape)


def test_gelu_is_exact_over_its_whole_range():
    x = np.concatenate([np.linspace(-14, 14, 20001), [0.0, 1e-30, -1e-30, 300.0, -300.0]]).astype("float32")
    wide = x.astype("float64")
    below = np.array([0.5 * math.erfc(-v * 0.5**0.5) for v in wide])  # Paddle's own loses the tail
    got = kernels.gelu(tensor(x)).numpy()
    np.testing.assert_allclose(got, wide * below, rtol=2e-5, atol=1e-36)
    near = abs(wide) < 4
    np.testing.assert_allclose(got[near], (wide * below)[near], rtol=3e-6)
    slope = kernels.gelu_backward(tensor(x), tensor(np.ones_like(x))).numpy()
    density = np.exp(-0.5 * wide * wide) / (2 * np.pi) ** 0.5
    np.testing.assert_allclose(slope, below + wide * density, rtol=1e-5, atol=5e-7)


def test_gelu_by_tanh_is_exact_over_its_whole_range():
    x = np.concatenate([np.linspace(-14, 14, 20001), [0.0, 300.0, -300.0]]).astype("float32")
    wide = paddle.to_tensor(x.astype("float64"), stop_gradient=False)
    exact = F.gelu(wide, approximate=True)
    exact.sum().backward()
    np.testing.assert_allclose(kernels.gelu(tensor(x), True).numpy(), exact.numpy(), rtol=1e-5, atol=5e-7)
    slope = kernels.gelu_backward(tensor(x), tensor(np.ones_like(x)), True).numpy()
    np.testing.assert_allclose(slope, wide.grad.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "function",
    [
        kernels.gelu,
        lambda x: kernels.gelu(x, True),
        lambda x: kernels.gelu_of_sum(x, paddle.zeros(x.shape[-1:])),
        lambda x: kernels.layer_norm(x, paddle.ones([9]), paddle.zeros([9]), 1e-6)[0],
        kernels.softmax,
        kernels.sum_rows,
        kernels.centre_rows,
        lambda x: kernels.gaussian(x, x, paddle.matmul(x, x, transpose_y=True)),
    ],
)
def test_what_is_not_finite_stays_so(function, value):
    x = spread(2, 70, 9)
    x[1, 3, 4] = value
    out = function(tensor(x)).numpy()
    assert not np.isfinite(out[1]).all() and np.isfinite(out[0]).all()


def test_softmax_of_far_and_of_masked_logits():
    x = np.array([[1000.0, 0.0, -1000.0], [-np.inf, 0.0, 0.0]])
    np.testing.assert_array_equal(kernels.softmax(tensor(x)).numpy(), [[1, 0, 0], [0, 0.5, 0.5]])


def test_sums_over_many_rows_keep_their_digits():
    x = np.full((1, 200_000, 3), 0.1, "float32")
    np.testing.assert_allclose(
        kernels.sum_rows(tensor(x)).numpy().ravel(), 200_000 * np.float32(0.1), rtol=1e-6
    )


def test_norms_and_factors_of_many_tensors():
    tensors = [tensor(spread(n)) for n in (1, 70_000, 3)]
    before = [t.numpy() for t in tensors]
    np.testing.assert_allclose(
        kernels.square_sums(tensors).numpy(), [(b.astype("float64") ** 2).sum() for b in before], rtol=1e-6
    )
    kernels.scale(tensors, tensor([1.0]))
    for t, b in zip(tensors, before):
        np.testing.assert_array_equal(t.numpy(), b)
    kernels.scale(tensors, tensor([0.5]))
    for t, b in zip(tensors, before):
        np.testing.assert_array_equal(t.numpy(), b * np.float32(0.5))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: kernels.layer_norm(x, paddle.ones([8]), paddle.zeros([9]), 1e-6),
        lambda x: kernels.gelu_backward(x, x[:, :5]),
        lambda x: kernels.add_row(x, x),
        lambda x: kernels.add_channels(x, paddle.ones([3])),
        lambda x: kernels.filter_channels(x, paddle.ones([1, 9, 9]), None, (7, 9)),
        lambda x: kernels.filter_channels(x, paddle.ones([1, 9, 8]), None, (7, 10)),
        lambda x: kernels.split_columns(x, 2),
        lambda x: kernels.split_heads([x], 2, (7, 10), (7, 10)),
        lambda x: kernels.split_heads([x], 3, (7, 9), (7, 9)),
        lambda x: kernels.split_heads([x, x[:, :, :6]], 3, (7, 10), (7, 10)),
        lambda x: kernels.split_heads([kernels.Columns(x, 6, 6)], 3, (7, 10), (7, 10)),
        lambda x: kernels.merge_heads([x.unsqueeze(1)], (7, 10), (7, 5)),
        lambda x: kernels.filter_channels(x, paddle.ones([1, 9, 9]), None, (7, 10), window=(7, 4)),
        lambda x: kernels.filter_channels(x, paddle.ones([1, 9, 9]), None, (7, 10), onto=x[:1]),
        lambda x: kernels.filter_channels(x, paddle.ones([1, 9, 9]), paddle.ones([8]), (7, 10)),
        lambda x: kernels.gaussian(x, x, x),
        lambda x: kernels.layer_norm_backward(x, paddle.ones([8]), paddle.ones([2, 140]), x),
        lambda x: kernels.layer_norm_backward(x, paddle.ones([9]), paddle.ones([2, 139]), x),
        lambda x: kernels.add_row(x, x[:, :1], out=paddle.ones([2, 70, 8])),
        lambda x: kernels.split_heads([kernels.Columns(x, -3, 3)], 3, (7, 10), (7, 10)),
        lambda x: kernels.split_heads([x], 3, (7, 10), (0, 10)),
        lambda x: kernels.filter_channels(x, paddle.ones([1, 4, 9]), None, (7, 10)),
        lambda x: kernels.filter_channels_backward(x, x, 1, 2, (7, 10)),
    ],
)
def test_tensors_that_do_not_fit_are_refused_before_memory_is_read(call):
    with pytest.raises(ValueError, match="stands where"):
        call(tensor(spread(2, 70, 9)))


def test_views_are_read_by_their_own_order():
    """A tensor that is not contiguous is copied first."""
    paddle.set_flags({"FLAGS_use_stride_kernel": True})
    try:
        x = tensor(spread(70, 9)).t()
        assert x.is_contiguous() == (
            not paddle.get_flags("FLAGS_use_stride_kernel")["FLAGS_use_stride_kernel"]
        )
        np.testing.assert_allclose(kernels.gelu(x).numpy(), F.gelu(x).numpy(), rtol=1e-5, atol=1e-6)
    finally:
        paddle.set_flags({"FLAGS_use_stride_kernel": False})


def test_other_types_are_not_taken():
    x = paddle.ones([2, 2])
    assert kernels.takes(x, None)
    assert not kernels.takes(x, x.astype("float64")) and not kernels.takes(x.astype("bfloat16"))
    with compiled.paused():
        assert not kernels.takes(x) and kernels.version() is None
    assert kernels.takes(x)


@pytest.mark.parametrize("family", SMALL)
def test_logits_and_gradients_of_whole_models_are_those_of_paddles_operators(family):
    name, overrides = small(family)
    model = paddle_inline.create_model(name, **overrides)
    x = tensor(spread(4, model.spec.in_chans, *model.img_size))

    def gradients_of_step():
        model.clear_gradients()
        logits = model(x)
        F.cross_entropy(logits, paddle.to_tensor([0, 1, 2, 3])).backward()
        learnt = {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}
        return {"logits": logits.numpy(), **learnt}

    ours = gradients_of_step()
    with compiled.paused():
        theirs = gradients_of_step()
    assert ours.keys() == theirs.keys()
    for key, values in theirs.items():
        np.testing.assert_allclose(ours[key], values, atol=2e-4 * max(abs(values).max(), 1e-4), err_msg=key)


@pytest.mark.parametrize("family", SMALL)
def test_gradients_of_images_alone_are_those_of_a_whole_backward_pass(family):
    name, overrides = small(family)
    model = paddle_inline.create_model(name, **overrides)
    x = tensor(spread(2, model.spec.in_chans, *model.img_size))
    x.stop_gradient = False
    for paused in (False, True):
        with compiled.paused() if paused else contextlib.nullcontext():
            (alone,) = paddle.grad(model(x).square().sum(), [x])
            x.clear_gradient()
            model(x).square().sum().backward()
        np.testing.assert_allclose(alone.numpy(), x.grad.numpy(), atol=1e-6 * abs(alone.numpy()).max())


def test_a_child_may_run_loops_whatever_its_parents_threads_did():
    with kernels._locks["one"]:  # as where another thread is in a loop
        child = os.fork()
        if child == 0:
            os._exit(0 if kernels._locks["one"].acquire(timeout=1) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


STEP = """
import hashlib, sys
import paddle, paddle_inline
from paddle_inline.ops import kernels
paddle.seed(0)
model = paddle_inline.create_model("inline_deit_digits")
x = paddle.randn([4, 3, 32, 32])
paddle.nn.functional.cross_entropy(model(x), paddle.to_tensor([1, 2, 3, 4])).backward()
digest = hashlib.sha256()
for parameter in model.parameters():
    digest.update(parameter.grad.numpy().tobytes())
print(kernels.version(), digest.hexdigest())
"""


def gradients(**environment):
    run = subprocess.run(
        [sys.executable, "-c", STEP],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.split()


def test_gradients_are_the_same_on_any_number_of_threads():
    """Those of the loops: Paddle's own are kept on one."""
    one, two = gradients(NUMBA_NUM_THREADS="1"), gradients(NUMBA_NUM_THREADS="2")
    assert one == two and len(one[1]) == len(hashlib.sha256().hexdigest())


INFER = """
import sys
import paddle, paddle_inline
model = paddle_inline.create_model("inline_deit_digits")
x = paddle.randn([1, 3, 32, 32])
model.eval()
model(x)
with paddle.no_grad():
    model.train()
    model(x)
print("numba" in sys.modules)
model(x)
print("numba" in sys.modules)
"""


def test_the_first_pass_of_training_loads_the_loops():
    """Whoever only asks a model does not wait for a compiler."""
    run = subprocess.run([sys.executable, "-c", INFER], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]


def test_the_switch_leaves_all_to_paddle():
    assert gradients(PADDLE_INLINE_NUMBA="0")[0] == "None"


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_adamw_takes_the_steps_of_paddles_kernel(decay):
    """Weights, moments and powers after five steps, one of which is not taken; the bits where there is AVX-512."""

    def trained(by_loop):
        model = paddle_inline.create_model("inline_deit_digits")
        fill(model)
        optimizer = make_optimizer("adamw", model, decay_groups(model, decay))
        with contextlib.nullcontext() if by_loop else compiled.paused():
            for step in range(5):
                optimizer.clear_grad()
                for i, parameter in enumerate(model.parameters()):
                    grad = np.random.RandomState(100 * step + i).standard_normal(parameter.shape)
                    (parameter * tensor(grad)).sum().backward()
                optimizer.set_lr(0.1 / (step + 1))
                guarded_step(optimizer, paddle.to_tensor([step != 2]))
        slots = optimizer_state(model, optimizer)
        return {
            **{name: p.numpy() for name, p in model.named_parameters()},
            **{(name, slot): values for name, of in slots.items() for slot, values in of.items()},
        }

    ours, theirs = trained(True), trained(False)
    assert len(ours) == 5 * len(list(paddle_inline.create_model("inline_deit_digits").parameters()))
    for name, values in theirs.items():
        if has_avx512():
            np.testing.assert_array_equal(ours[name], values, err_msg=str(name))
        np.testing.assert_allclose(ours[name], values, rtol=2e-6, atol=1e-7)


def fill(model):
    for i, parameter in enumerate(model.parameters()):
        parameter.set_value(np.random.RandomState(i).standard_normal(parameter.shape).astype("float32"))


def has_avx512():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return any("fma" in line.split() and "avx512f" in line.split() for line in lines)
    except OSError:
        return False


def test_gelu_by_tanh_of_huge_numbers():
    x = tensor([-1e20, -1e9, 1e9, 1e20])
    np.testing.assert_array_equal(kernels.gelu(x, True).numpy(), tensor([0, 0, 1e9, 1e20]).numpy())
    np.testing.assert_array_equal(kernels.gelu_backward(x, paddle.ones([4]), True).numpy(), [0, 0, 1, 1])


def test_models_can_be_pickled():
    model = paddle_inline.create_model("inline_deit_digits", kernel_function="exp").eval()
    x = paddle.ones([1, 3, 32, 32])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model))(x).numpy(), model(x).numpy())
