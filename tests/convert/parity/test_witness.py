"""An independent witness: with softmax attention everywhere, Swin and DeiT are timm's own models, weight for
weight. So the halves that InLine did not change are checked against code that was not written here."""

import re

import numpy as np
import paddle
import pytest
import timm
import torch

from convert.parity.inputs import draw_images, draw_labels
from convert.parity.run import create_pair


def vit_name(name):
    """timm's name of a tensor of InLine-DeiT: they are the same."""
    return name


def swin_name(name):
    """timm's name of a tensor of InLine-Swin: its downsampling stands at the start of the next stage."""
    name = re.sub(r"^layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", name)
    return re.sub(r"^head\.", "head.fc.", name)


WITNESSES = {
    "vit_tiny_patch16_224": ("inline_deit_tiny", {"attn_type": "S", "num_heads": 3}, vit_name),
    "swin_tiny_patch4_window7_224": ("inline_swin_tiny", {"attn_type": "SSSS"}, swin_name),
}


@pytest.fixture(scope="module", params=WITNESSES)
def trio(request):
    """(Paddle model, PyTorch model, timm's model, timm's name of each tensor), with equal weights."""
    name, overrides, timm_name = WITNESSES[request.param]
    ours, reference = create_pair(name, **overrides)
    witness = timm.create_model(request.param, pretrained=False).double().eval()
    state = {timm_name(key): value for key, value in reference.state_dict().items()}
    buffers = {key for key in state if key.endswith(("attn_mask", "relative_position_index"))}
    # strict, but for what timm builds and does not store
    witness.load_state_dict({key: value for key, value in state.items() if key not in buffers})
    return ours, reference, witness, timm_name


def test_masks_and_indices_are_timm_s(trio):
    _, reference, witness, timm_name = trio
    theirs = dict(witness.named_buffers())
    ours = {timm_name(key): value for key, value in reference.named_buffers()}
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key].to(value.dtype), rtol=0, atol=0)


def test_outputs_and_gradients_are_timm_s(trio):
    ours, reference, witness, timm_name = trio
    images, labels = draw_images((2, 3, 224, 224)), torch.from_numpy(draw_labels(2, 1000))
    logits = {}
    for model in (reference, witness):
        logits[model] = model(torch.from_numpy(images))
        torch.nn.functional.cross_entropy(logits[model], labels).backward()
    expected = logits[witness].detach().numpy()
    largest = np.abs(expected).max()
    assert np.abs(logits[reference].detach().numpy() - expected).max() < 1e-10 * largest
    assert np.abs(ours(paddle.to_tensor(images)).numpy() - expected).max() < 1e-9 * largest
    theirs = {key: parameter.grad.numpy() for key, parameter in witness.named_parameters()}
    floor = 1e-6 * max(np.linalg.norm(gradient) for gradient in theirs.values())
    for key, parameter in reference.named_parameters():
        expected = theirs.pop(timm_name(key))
        difference = np.linalg.norm(parameter.grad.numpy() - expected)
        assert difference < 1e-10 * max(np.linalg.norm(expected), floor), key
    assert not theirs
