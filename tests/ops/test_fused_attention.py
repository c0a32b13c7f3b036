"""The framework's fused attention: the same numbers as the products, and when it is taken."""

from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from paddle_inline.ops import inline_attention as ops


def heads(seed, tokens, width=8):
    array = np.random.RandomState(seed).standard_normal((2, 3, tokens, width)).astype("float32")
    return paddle.to_tensor(array, stop_gradient=False)


@pytest.mark.parametrize("scale", [8**-0.5, 0.3])
@pytest.mark.parametrize("keys", [5, 7])
def test_the_fused_operator_gives_the_products(scale, keys):
    """Forward and backward, scaled as it likes and not; as many keys as queries, and others."""
    results = []
    for function in (ops.softmax_attention, ops.fused_softmax_attention):
        q, k, v = heads(0, 5), heads(1, keys), heads(2, keys)
        out = function(q, k, v, scale)
        (out * out).sum().backward()
        results.append([out.numpy(), *(each.grad.numpy() for each in (q, k, v))])
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


def test_torch_has_the_same():
    torch = pytest.importorskip("torch")
    from torch_ref.ops import inline_attention as theirs

    q, k, v = (heads(seed, 5) for seed in range(3))
    twins = [torch.tensor(each.numpy()) for each in (q, k, v)]
    found = theirs.fused_softmax_attention(*twins, 0.3).numpy()
    np.testing.assert_allclose(ops.fused_softmax_attention(q, k, v, 0.3).numpy(), found, rtol=0, atol=1e-6)
    assert theirs.fused_kernel_takes(str(torch.bfloat16), 64, False, 8) and not theirs.fuses(twins[0])


@pytest.mark.parametrize(
    ("dtype", "width", "biased", "capability", "takes"),
    [
        ("paddle.bfloat16", 32, False, 8, True),
        ("paddle.float16", 128, False, 9, True),
        ("paddle.float32", 32, False, 9, False),
        ("paddle.float16", 132, False, 9, False),
        ("paddle.float16", 136, False, 9, False),
        ("paddle.float16", 20, False, 9, False),
        ("paddle.float16", 32, True, 9, False),
        ("paddle.float16", 32, False, 7, False),
    ],
)
def test_what_the_kernel_takes(dtype, width, biased, capability, takes):
    assert ops.fused_kernel_takes(dtype, width, biased, capability) == takes


def test_a_gpu_takes_it_and_a_cpu_does_not(monkeypatch):
    place = SimpleNamespace(is_gpu_place=lambda: True, gpu_device_id=lambda: 0)
    q = SimpleNamespace(place=place, dtype="paddle.bfloat16", shape=[1, 2, 5, 32])
    monkeypatch.setattr(paddle.device.cuda, "get_device_capability", lambda device: (8, 0))
    assert ops.fuses(q) and not ops.fuses(q, heads(0, 5)) and not ops.fuses(heads(0, 5).astype("bfloat16"))
    ops.use_fused_attention(False)
    try:
        assert not ops.fuses(q)
    finally:
        ops.use_fused_attention(True)
    assert ops.fuses(q)
    asked = []
    monkeypatch.setattr(ops, "fuses", lambda q, bias: True)
    monkeypatch.setattr(ops, "fused_softmax_attention", lambda *given: asked.append(given[3]))
    ops.softmax_attention(heads(0, 5), heads(1, 5), heads(2, 5), 0.25)
    assert asked == [0.25]
