"""Every family becomes a static program that serves any batch and computes what the layers do."""

import numpy as np
import paddle
import pytest

import paddle_inline

PYRAMID = {"depths": (2, 2, 1, 1), "num_heads": (2, 2, 2, 4), "img_size": 64, "num_classes": 5}
WINDOWED = {**PYRAMID, "embed_dim": 8}
SMALL = {
    "inline_deit_digits": [{"depth": 2}, {"depth": 1, "attn_type": "S"}],
    "inline_pvt_tiny": [{**PYRAMID, "embed_dims": (8, 8, 12, 16), "attn_type": "ISIS"}],
    "inline_swin_tiny": [
        WINDOWED,
        {**WINDOWED, "attn_type": "SSMI1", "window_size": 64},  # softmax windows of 8, shifted and masked
        {**WINDOWED, "attn_type": "IIII", "window_size": 4},  # InLine windows, shifted
        {**WINDOWED, "attn_type": "SIIS", "window_size": 64, "img_size": (64, 128)},
    ],
    "inline_cswin_tiny": [
        WINDOWED,
        {**WINDOWED, "attn_type": "SSSS"},
        {**WINDOWED, "attn_type": "SMSI1", "img_size": (64, 96)},
    ],
}


@pytest.mark.parametrize(
    ("name", "overrides"), [(name, overrides) for name in SMALL for overrides in SMALL[name]], ids=str
)
def test_a_saved_program_serves_any_batch(name, overrides, tmp_path):
    model = paddle_inline.create_model(name, **overrides)
    model.eval()
    batches = [paddle.randn([batch, 3, *model.img_size]) for batch in (1, 3)]
    expected = [model(images).numpy() for images in batches]  # before tracing changes the model
    shape = paddle.static.InputSpec([-1, 3, *model.img_size], "float32")
    traced = paddle.jit.to_static(model, input_spec=[shape], full_graph=True)
    paddle.jit.save(traced, str(tmp_path / "model"))
    program = paddle.jit.load(str(tmp_path / "model"))
    program.eval()
    for images, logits in zip(batches, expected):
        np.testing.assert_allclose(program(images).numpy(), logits, rtol=0, atol=1e-5 * abs(logits).max())
