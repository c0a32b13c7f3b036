"""Mixup and cutmix against timm: the same draws, the same images, the same targets."""

import numpy as np
import paddle
import pytest

from paddle_inline.data.mixup import Mixup

SETTINGS = {
    "recipe": dict(),
    "mixup only": dict(cutmix=0.0),
    "cutmix only": dict(mixup=0.0, cutmix=0.7),
    "minmax": dict(cutmix_minmax=[0.2, 0.8]),
    "half": dict(prob=0.5, switch_prob=0.3, smoothing=0.0),
}


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_mixup_equals_timm(timm_data, paired, mode, setting):
    import torch

    given = SETTINGS[setting]
    reference = timm_data.Mixup(
        mixup_alpha=given.get("mixup", 0.8),
        cutmix_alpha=given.get("cutmix", 1.0),
        cutmix_minmax=given.get("cutmix_minmax"),
        prob=given.get("prob", 1.0),
        switch_prob=given.get("switch_prob", 0.5),
        mode=mode,
        label_smoothing=given.get("smoothing", 0.1),
        num_classes=7,
    )
    candidate = Mixup(7, mode=mode, **given)
    images = np.random.RandomState(1).standard_normal((6, 3, 20, 28)).astype(np.float32)
    labels = np.array([3, 0, 6, 6, 1, 2])
    for seed in range(25):
        draws = paired(seed)
        x, y = reference(torch.from_numpy(images.copy()), torch.from_numpy(labels))
        mixed, targets = candidate(paddle.to_tensor(images), paddle.to_tensor(labels), draws.np)
        # One product and one sum each; the frameworks may fuse them: one rounding of values below 8.
        np.testing.assert_allclose(mixed.numpy(), x.numpy(), rtol=0, atol=5e-7)
        np.testing.assert_allclose(targets.numpy(), y.numpy(), rtol=0, atol=1e-7)
        np.testing.assert_allclose(targets.numpy().sum(1), 1, rtol=0, atol=1e-6)


def test_batch_mode_mixes_as_written_down():
    """Lambda 0.25 on two flat images, by hand."""
    mixup = Mixup(2, cutmix=0.0, smoothing=0.0)
    mixup._draw_batch = lambda rng: (0.25, False)
    images = np.zeros((2, 1, 2, 2), np.float32)
    images[1] = 4
    mixed, targets = mixup(paddle.to_tensor(images), paddle.to_tensor([0, 1]), None)
    assert mixed.numpy()[:, 0, 0, 0].tolist() == [3, 1]
    assert targets.numpy().tolist() == [[0.25, 0.75], [0.75, 0.25]]


def test_what_it_refuses():
    with pytest.raises(ValueError, match="batch, pair, elem"):
        Mixup(10, mode="triple")
    with pytest.raises(ValueError, match="both 0"):
        Mixup(10, mixup=0.0, cutmix=0.0)
    with pytest.raises(ValueError, match="even batch, got 3"):
        Mixup(10)(paddle.zeros([3, 3, 4, 4]), paddle.zeros([3], "int64"), np.random.RandomState(0))
