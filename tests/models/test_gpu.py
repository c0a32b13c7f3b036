"""Every family on a GPU: forward, backward and autocasting beside the same model on the CPU."""

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

from paddle_inline import create_model  # noqa: E402
from tests.convert.parity.specs import SMALL, small  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not paddle.is_compiled_with_cuda(), reason="a Paddle without CUDA"),
]


def run(name, overrides, device, state=None, dtype=None):
    """(weights, logits, {parameter: gradient}) of one pass in eval mode."""
    before = paddle.device.get_device()
    paddle.set_device(device)
    try:
        model = create_model(name, **overrides)
        if state is not None:
            model.set_state_dict({key: paddle.to_tensor(value) for key, value in state.items()})
        model.eval()
        images = paddle.to_tensor(
            np.random.RandomState(0).standard_normal((3, 3, *model.img_size)), "float32"
        )
        with paddle.amp.auto_cast(enable=dtype is not None, dtype=dtype or "float16"):
            logits = model(images)
        (logits.astype("float32") ** 2).sum().backward()
        gradients = {key: p.grad.numpy() for key, p in model.named_parameters() if p.grad is not None}
        weights = {key: value.numpy() for key, value in model.state_dict().items()}
        return weights, logits.astype("float32").numpy(), gradients
    finally:
        paddle.set_device(before)


def off(ours, truth):
    """The norm of the difference by the norm of the truth."""
    return np.linalg.norm(ours - truth) / max(np.linalg.norm(truth), 1e-12)


# Matrix products of GPUs round float32 to the ten bits of TF32, as bfloat16 rounds to seven.
@pytest.mark.parametrize(("dtype", "limit"), [(None, 1e-2), ("bfloat16", 1e-1)])
@pytest.mark.parametrize("family", SMALL)
def test_a_gpu_computes_what_the_cpu_does(family, dtype, limit):
    name, overrides = small(family)
    state, truth, gradients = run(name, overrides, "cpu")
    _, logits, found = run(name, overrides, "gpu", state, dtype)
    assert off(logits, truth) < limit
    assert found.keys() == gradients.keys()
    largest = max(np.linalg.norm(value) for value in gradients.values())
    wrong = {
        key: off(found[key], value)
        for key, value in gradients.items()
        if np.linalg.norm(value) > 1e-3 * largest and off(found[key], value) > 10 * limit
    }
    assert not wrong
