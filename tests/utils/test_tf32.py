"""TF32's switches, with stand-ins: a Paddle for CPUs has them from 3.0 on, and they do nothing there."""

import pytest

paddle = pytest.importorskip("paddle")

from paddle_inline.config.schema import GpuConfig  # noqa: E402
from paddle_inline.training import build_gpu  # noqa: E402
from paddle_inline.utils.tf32 import allow_tf32, describe_tf32, uses_tf32, without_tf32  # noqa: E402


def switches(monkeypatch, **values):
    """Give Paddle switches of these values; return them, as they are now."""
    core = paddle.base.core
    for name in values:
        monkeypatch.setattr(core, f"get_{name}_switch", lambda name=name: values[name], raising=False)
        monkeypatch.setattr(
            core, f"set_{name}_switch", lambda on, name=name: values.update({name: on}), raising=False
        )
    return values


def test_what_held_before_holds_after(monkeypatch):
    values = switches(monkeypatch, cublas=False, cudnn=True)  # Paddle 3.3.1's
    assert uses_tf32() == {"products": False, "convolutions": True}
    with pytest.raises(KeyError), without_tf32():
        assert values == {"cublas": False, "cudnn": False}
        raise KeyError
    assert values == {"cublas": False, "cudnn": True}
    allow_tf32(True)
    assert values == {"cublas": True, "cudnn": True}


def test_a_paddle_without_switches(monkeypatch):
    values = switches(monkeypatch, cublas=True, cudnn=True)
    for name in values:
        monkeypatch.delattr(paddle.base.core, f"get_{name}_switch")
    with without_tf32():
        assert uses_tf32() == {}
    assert values == {"cublas": True, "cudnn": True}
    assert describe_tf32().endswith(": unknown")


@pytest.mark.parametrize(
    ("setting", "products", "convolutions"), [(None, False, True), (True, True, True), (False, False, False)]
)
def test_a_run_sets_it_and_says_so(monkeypatch, setting, products, convolutions):
    switches(monkeypatch, cublas=False, cudnn=True)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    monkeypatch.setattr(build_gpu, "use_fused_attention", lambda on: None)
    line = build_gpu.prepare_gpu(GpuConfig(autotune=False, tf32=setting))[-1]
    assert line.endswith(f": products {products}, convolutions {convolutions}")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert describe_tf32().endswith(f"{convolutions}, NVIDIA_TF32_OVERRIDE=0 switches both off")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    assert describe_tf32().endswith(f"{convolutions}, NVIDIA_TF32_OVERRIDE=1")
